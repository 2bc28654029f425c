//! A keeper before its genesis: it was given a core, and shows its keys to whoever asks.

use attestation::{Credential, GenesisChallenge, PcrSelection, Sha256Digest, Trust, UnixTime};
use ledger::genesis::{Genesis, KeeperIdentity as NamedKeeper};
use ledger::key_epoch::EpochKeys;
use ledger::release_log::ClosedLog;
use ledger::state::State;
use vault_proto::convert::{EvidenceSet, KeeperEvidence, KeeperEvidenceRequest, KeeperIdentity};
use vault_proto::v1::{self, keeper_call::Request, keeper_reply::Response};

use super::clock;
use super::fold::FoldError;
use super::hardware::Hardware;
use super::link::Store;
use super::refusal::Refusal;
use super::service::Answer;
use super::vault::{OpenError, Run, Vault, is_of};
use super::witnesses::witnesses;

/// What a request to a keeper without a genesis comes to.
#[expect(clippy::large_enum_variant, reason = "one at a time, consumed at once")]
pub(super) enum Step {
    /// An answer.
    Answer(Answer),
    /// The genesis is accepted: the vault begins with it as its first entry.
    Begin(Box<Genesis>),
}

impl Run {
    /// Answers what can be answered before the genesis.
    pub(super) fn before_genesis(&self, request: Request) -> Step {
        let answer = match request {
            Request::InitKeeper(request) => self.init_again(&request),
            Request::GetKeeperIdentity(_) => Ok(Response::GetKeeperIdentity(self.identity().into())),
            Request::GetKeeperEvidence(request) => self.evidence(request),
            Request::Status(_) => Ok(Response::Status(self.status())),
            Request::SubmitGenesis(request) => match self.accept(request) {
                Ok(genesis) => return Step::Begin(Box::new(genesis)),
                Err(refusal) => Err(refusal),
            },
            _ => Err(Refusal::unavailable("vault-not-open", "this keeper has no genesis: see `vaultctl init`")),
        };
        Step::Answer(answer)
    }

    /// The same core again gets the same answer; another one needs another keeper.
    fn init_again(&self, request: &v1::InitKeeperRequest) -> Answer {
        if Sha256Digest::of(&request.core) == self.core.digest() {
            Ok(Response::InitKeeper(v1::InitKeeperResponse { identity: Some(self.identity().into()) }))
        } else {
            let message = "this keeper was given another core: stop it, and `vault-enclave keeper --reset-ceremony` lets you \
                           begin again";
            Err(Refusal::denied("core-other", message))
        }
    }

    pub(super) fn identity(&self) -> KeeperIdentity {
        KeeperIdentity {
            tpm: self.hardware.identity.clone(),
            instance: self.instance,
            core_digest: self.core.digest(),
            wrap_key: self.keys.wrap_key().clone(),
            identity_key: self.keys.identity_key().clone(),
            log_key: self.keys.log_key().clone(),
            vault_id: None,
            pcrs: self.core.policy().keeper().tpm().pcrs.selection(),
        }
    }

    fn evidence(&self, request: v1::GetKeeperEvidenceRequest) -> Answer {
        let KeeperEvidenceRequest { nonce, credential } = request.try_into()?;
        let pcrs = self.core.policy().keeper().tpm().pcrs.selection();
        let named = self.named(self.platform(clock::wall(UnixTime(0)))?.0);
        let evidence = self.hardware.genesis_evidence(&credential, pcrs, nonce, self.core.digest(), &named)?;
        Ok(Response::GetKeeperEvidence(KeeperEvidence { evidence, standing: None }.into()))
    }

    /// Checks an offered genesis: own core, own keys, own TPM, and a time that is not in the future.
    fn accept(&self, request: v1::SubmitGenesisRequest) -> Result<Genesis, Refusal> {
        let genesis = Genesis::parse(&request.genesis).map_err(|error| Refusal::malformed(error.code(), error))?;
        self.check_genesis(&genesis).map_err(|error| Refusal::denied(error.code(), &error))?;
        if !is_of(&self.keys, &EpochKeys::from(genesis.keeper())) {
            return Err(Refusal::denied("genesis-other", "the genesis names other keys than this keeper's"));
        }
        let named = (genesis.keeper().instance, genesis.keeper().ak_name);
        if named != (self.instance, self.hardware.ak_name) {
            return Err(Refusal::denied("genesis-other", "the genesis names another keeper than this one"));
        }
        let now = clock::wall(UnixTime(0));
        if genesis.time() > now.plus(300) {
            return Err(Refusal::denied("genesis-future", "the genesis is dated in the future: check both clocks"));
        }
        let (platform, _) = self.platform(now)?;
        if genesis.keeper().platform != platform {
            return Err(Refusal::denied("genesis-other", "the genesis names other hardware than this keeper's"));
        }
        Ok(genesis)
    }

    /// Begins the vault with its genesis: the first entry, an ordinary counted commit.
    ///
    /// # Errors
    /// As [`Run::open`].
    pub(super) fn open_genesis(mut self, genesis: Genesis, store: &Store) -> Result<Vault, OpenError> {
        let (_, tier) = self.platform(clock::wall(UnixTime(0))).map_err(OpenError::Refused)?;
        let mut state = State::new();
        state.apply(0, genesis.bytes()).map_err(|error| FoldError::Entry { index: 0, error })?;
        let first = (vec![genesis.bytes().to_vec()], Vec::new());
        let log = self.recosigned(store, ClosedLog::empty(), &state, &genesis)?;
        self.begin(store, log, state, (genesis, tier), first)
    }

    /// Of a vault that has a genesis and is not open: nothing of it is known before its log was folded.
    pub(super) fn closed_status(&self, why: &str) -> Response {
        Response::Status(v1::StatusResponse {
            state: "closed".to_owned(),
            reason: why.to_owned(),
            anti_rollback: self.core.anti_rollback().as_str().to_owned(),
            witnesses: self.core.policy().witnesses().map(|policy| witnesses(policy, None)),
            ..v1::StatusResponse::default()
        })
    }

    fn platform(&self, now: UnixTime) -> Result<(Sha256Digest, Trust), Refusal> {
        self.hardware.check(self.core.policy(), now)
    }

    fn named(&self, platform: Sha256Digest) -> NamedKeeper {
        NamedKeeper {
            instance: self.instance,
            wrap_key: self.keys.wrap_key().clone(),
            identity_key: self.keys.identity_key().clone(),
            log_key: self.keys.log_key().clone(),
            platform,
            ak_name: self.hardware.ak_name,
        }
    }

    fn status(&self) -> v1::StatusResponse {
        let tier =
            self.platform(clock::wall(UnixTime(0))).map_or_else(|_| String::new(), |(_, trust)| trust.to_string());
        v1::StatusResponse {
            state: "ceremony".to_owned(),
            reason: "a core was given; the genesis is missing: see `vaultctl init`".to_owned(),
            tier,
            anti_rollback: self.core.anti_rollback().as_str().to_owned(),
            time_source: "host clock".to_owned(),
            witnesses: self.core.policy().witnesses().map(|policy| witnesses(policy, None)),
            ..v1::StatusResponse::default()
        }
    }
}

impl Hardware {
    /// A quote over the genesis binding.
    ///
    /// # Errors
    /// What the TPM refuses.
    pub(super) fn genesis_evidence(
        &self,
        credential: &Credential,
        pcrs: PcrSelection,
        nonce: [u8; 32],
        core: Sha256Digest,
        keeper: &NamedKeeper,
    ) -> Result<EvidenceSet, Refusal> {
        self.evidence(credential, pcrs, |tpm| {
            GenesisChallenge {
                nonce,
                instance: keeper.instance,
                core,
                wrap_key: keeper.wrap_key.clone(),
                identity_key: keeper.identity_key.clone(),
                log_key: keeper.log_key.clone(),
                tpm,
            }
            .bind()
        })
    }
}
