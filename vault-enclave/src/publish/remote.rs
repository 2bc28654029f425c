//! The vault as a publisher reaches it: through a host that is not trusted, to a keeper that has to show itself.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::{Keeper, Sha256Digest, TpmIdentity, UnixTime, Verified};
use ledger::checkpoint::LogVerifier;
use ledger::keeper_evidence::{KeeperEvidenceError, KeeperRun, KeeperStanding};
use ledger::names::{Name, Version};
use ledger::vault_file::{VAULT_FILE_BYTES_MAX, VaultFile};
use ring::rand::SecureRandom;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, IntoStreamingRequest, Request, Response, Status};
use vault_proto::client::{CALL_SECS_MAX, CallError, connect};
use vault_proto::convert::{
    JoinAnswer, JoinChallenge, JoinRequest, KeeperEvidence, KeeperEvidenceRequest, KeeperIdentity, KeyEpochLinks,
    KeyEpochsRequest, Proposal, Publication, UnitUpload,
};
use vault_proto::limits::PROVISION_MESSAGE_BYTES_MAX;
use vault_proto::v1;
use vault_proto::v1::provision_client::ProvisionClient;
use vault_proto::v1::vault_client::VaultClient;

use crate::failure::{Failure, Kind};

/// An upload may take long; a peer that is gone is noticed by its silence.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Which vault, and how to reach it.
#[derive(Debug, Clone, clap::Args)]
pub struct VaultArgs {
    /// The vault file, from whoever ran the ceremony: which vault, its keeper's keys and rules, its hosts.
    #[arg(long, value_name = "FILE")]
    pub vault: PathBuf,
    /// A host, in the place of those of the vault file: http://…, https://… or unix:/path.
    #[arg(long, value_name = "URL")]
    pub host: Option<String>,
    /// PEM of the certificate authority of https hosts.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// A host that accepted a connection.
#[derive(Clone)]
pub(crate) struct Remote {
    address: String,
    channel: Channel,
}

impl VaultArgs {
    /// Reads the vault file.
    pub(crate) fn read(&self) -> Result<VaultFile, Failure> {
        let path = &self.vault;
        let bytes = std::fs::metadata(path)
            .and_then(
                |file| if file.len() > VAULT_FILE_BYTES_MAX as u64 { Ok(Vec::new()) } else { std::fs::read(path) },
            )
            .map_err(|error| Failure::file("read", path, &error))?;
        VaultFile::parse(&bytes).map_err(|error| {
            let message = format!("{} is not a vault file that can be used: {error}", path.display());
            Failure::new(Kind::Usage, error.code(), message)
                .next("get the vault file from whoever ran the ceremony, and compare the vault id over another way")
        })
    }

    /// Connects to the named host, or else to the first of the vault file's that accepts.
    pub(crate) async fn connect(&self, vault: &VaultFile) -> Result<Remote, Failure> {
        let ca = match &self.ca {
            Some(path) => Some(std::fs::read(path).map_err(|error| Failure::file("read", path, &error))?),
            None => None,
        };
        let addresses = self.host.as_ref().map_or(vault.hosts(), std::slice::from_ref);
        let (address, channel) = connect(addresses, ca.as_deref(), tuned).await?;
        Ok(Remote { address, channel })
    }
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint.timeout(UPLOAD_TIME_MAX).http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE)
}

impl Remote {
    /// The address that answered.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Verifies the evidence of the vault's keeper, for a nonce of this call, under the vault file alone.
    pub(crate) async fn check_keeper(
        &self,
        vault: &VaultFile,
        now: UnixTime,
        rng: &(dyn SecureRandom + Sync),
    ) -> Result<Verified<Keeper>, Failure> {
        let identity = self.keeper_identity().await?;
        check_vault_id(vault.id(), identity.vault_id)?;
        if identity.wrap_key != *vault.wrap_key() {
            return Err(not_verified(KeeperEvidenceError::OtherKeeper { field: "the wrap key" }));
        }
        let run = KeeperRun::start(vault.policy(), &identity.tpm, now, rng).map_err(not_verified)?;
        let question = KeeperEvidenceRequest { nonce: *run.nonce(), credential: run.credential().clone() };
        let answer = self.keeper_evidence(question).await?;
        let standing = answer.standing.ok_or_else(|| {
            let message = "the keeper's evidence names no policy and no checkpoint, as that of an open vault does";
            Failure::new(Kind::NotVerified, "keeper-standing-missing", message).next(DO_NOT_SEAL)
        })?;
        let standing = KeeperStanding { policy: standing.policy, checkpoint: standing.checkpoint };
        // The binding that it checks has the wrap key of the vault file in it: see `KeeperRun::verify_vault`.
        let known = (vault.keeper_with(run.ak_name()), vault.keys());
        let verified =
            run.verify_vault(vault.genesis(), known, standing, answer.evidence.evidence).map_err(not_verified)?;
        let log = LogVerifier::of(vault.genesis());
        log.verify_checkpoint(verified.statement().checkpoint()).map_err(|error| {
            let message = format!("the checkpoint in the keeper's evidence is not good: {error}");
            Failure::new(Kind::NotVerified, error.code(), message).next(DO_NOT_SEAL)
        })?;
        Ok(verified)
    }

    /// The vault file that goes on with the present keys of the vault.
    pub(crate) async fn follow(&self, vault: VaultFile) -> Result<VaultFile, Failure> {
        let request = v1::GetKeyEpochsRequest::from(KeyEpochsRequest { known: vault.keys().epoch });
        let mut client = VaultClient::new(self.channel.clone()).max_decoding_message_size(PROVISION_MESSAGE_BYTES_MAX);
        let answer = match client.get_key_epochs(short(request)).await {
            // A host that knows no epochs.
            Err(status) if status.code() == Code::Unimplemented => return Ok(vault),
            answer => self.accepted("GetKeyEpochs", answer)?,
        };
        let KeyEpochLinks { links } = answer.try_into().map_err(|error| self.malformed("GetKeyEpochs", error))?;
        vault.following(&links).map_err(|error| {
            let message = format!("what leads to the present keys of the vault does not verify: {error}");
            Failure::new(Kind::NotVerified, error.code(), message).next(DO_NOT_SEAL)
        })
    }

    /// Whether the host says that this version is published.
    pub(crate) async fn is_published(&self, model: &Name, version: &Version) -> Result<bool, Failure> {
        let mut client = VaultClient::new(self.channel.clone()).max_decoding_message_size(PROVISION_MESSAGE_BYTES_MAX);
        let answer = client.list_models(short(v1::ListModelsRequest {})).await;
        let models = self.accepted("ListModels", answer)?.models;
        let same = |listed: &v1::ModelSummary| listed.model == model.as_str() && listed.version == version.as_str();
        Ok(models.iter().any(|listed| same(listed) && listed.released))
    }

    /// Where the vault stands, by the host's word.
    pub(crate) async fn status(&self) -> Result<v1::StatusResponse, Box<CallError>> {
        self.accepted("Status", self.provision().status(short(v1::StatusRequest {})).await)
    }

    /// How much of a unit the host has.
    pub(super) async fn stored(&self, unit: UnitUpload) -> Result<u64, Box<CallError>> {
        let request = short(v1::GetUploadRequest::from(unit));
        self.accepted("GetUpload", self.provision().get_upload(request).await).map(|answer| answer.offset)
    }

    /// Sends a unit, or the rest of one. Gives how much of it the host has then.
    pub(super) async fn upload(
        &self,
        pieces: impl IntoStreamingRequest<Message = v1::UploadUnitRequest>,
    ) -> Result<u64, Box<CallError>> {
        self.accepted("UploadUnit", self.provision().upload_unit(pieces).await).map(|answer| answer.offset)
    }

    /// Proposes a model. The same publication again gets the same answer.
    pub(super) async fn publish(&self, publication: Publication) -> Result<v1::PublishModelResponse, Box<CallError>> {
        let request = short(v1::PublishModelRequest::from(publication));
        self.accepted("PublishModel", self.provision().publish_model(request).await)
    }

    /// Reads the answer of [`Self::publish`].
    pub(super) fn proposal(&self, answer: v1::PublishModelResponse) -> Result<Proposal, Failure> {
        let proposal = answer.proposal.ok_or_else(|| self.malformed("PublishModel", "it has no proposal"))?;
        Proposal::try_from(proposal).map_err(|error| self.malformed("PublishModel", error))
    }

    /// A challenge for a keeper that asks to take over.
    pub(crate) async fn join_challenge(&self, tpm: &TpmIdentity) -> Result<JoinChallenge, Failure> {
        const METHOD: &str = "GetJoinChallenge";
        let request = short(v1::GetJoinChallengeRequest { tpm: Some(tpm.clone().into()) });
        let answer = self.accepted(METHOD, self.provision().get_join_challenge(request).await).map_err(waiting)?;
        answer.try_into().map_err(|error| self.malformed(METHOD, error))
    }

    /// Redeems it.
    pub(crate) async fn join(&self, request: JoinRequest) -> Result<JoinAnswer, Failure> {
        const METHOD: &str = "JoinKeeper";
        let request = short(v1::JoinKeeperRequest::from(request));
        let answer = self.accepted(METHOD, self.provision().join_keeper(request).await).map_err(waiting)?;
        answer.try_into().map_err(|error| self.malformed(METHOD, error))
    }

    async fn keeper_identity(&self) -> Result<KeeperIdentity, Failure> {
        let answer = self.provision().get_keeper_identity(short(v1::GetKeeperIdentityRequest {})).await;
        let answer = self.accepted("GetKeeperIdentity", answer)?;
        answer.try_into().map_err(|error| self.malformed("GetKeeperIdentity", error))
    }

    async fn keeper_evidence(&self, question: KeeperEvidenceRequest) -> Result<KeeperEvidence, Failure> {
        let answer = self.provision().get_keeper_evidence(short(v1::GetKeeperEvidenceRequest::from(question))).await;
        let answer = self.accepted("GetKeeperEvidence", answer)?;
        answer.try_into().map_err(|error| self.malformed("GetKeeperEvidence", error))
    }

    fn provision(&self) -> ProvisionClient<Channel> {
        ProvisionClient::new(self.channel.clone()).max_decoding_message_size(PROVISION_MESSAGE_BYTES_MAX)
    }

    fn accepted<T>(&self, method: &'static str, answer: Result<Response<T>, Status>) -> Result<T, Box<CallError>> {
        answer.map(Response::into_inner).map_err(|status| Box::new(CallError::new(method, &self.address, &status)))
    }

    fn malformed(&self, method: &str, why: impl std::fmt::Display) -> Failure {
        let message = format!("{} does not answer {method} as it must: {why}", self.address);
        Failure::new(Kind::Failed, "answer-malformed", message)
            .next("check that this program and vault-host are of the same version")
    }
}

/// For whoever waits: a keeper that is away, busy or between two policies is no refusal.
fn waiting(error: Box<CallError>) -> Failure {
    let passes = error.may_repeat() || error.is_try_again() || error.is_busy();
    let failure = Failure::from(error);
    if passes { failure.passing() } else { failure }
}

/// A call that is soon answered or never.
fn short<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(CALL_SECS_MAX));
    request
}

fn check_vault_id(wanted: Sha256Digest, found: Option<Sha256Digest>) -> Result<(), Failure> {
    match found {
        Some(id) if id == wanted => Ok(()),
        Some(id) => {
            let message = format!("the host has the keeper of another vault: asked for {wanted}, found {id}");
            Err(Failure::new(Kind::NotVerified, "vault-other", message)
                .next("check --host, and the hosts in the vault file"))
        }
        None => Err(Failure::new(Kind::Failed, "vault-not-open", "the vault is not open yet")
            .next("`vaultctl init status --vault FILE` says who has not signed")),
    }
}

const DO_NOT_SEAL: &str = "do not seal to this keeper; `vaultctl status --vault FILE` says more, and whether the vault file is of an older policy or keeper";

fn not_verified(error: KeeperEvidenceError) -> Failure {
    Failure::new(Kind::NotVerified, error.code(), format!("the keeper's evidence does not verify: {error}"))
        .next(DO_NOT_SEAL)
}

/// The moment of this call by the machine's clock.
pub(crate) fn unix_now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keeper_of_another_vault_or_of_none_is_refused() {
        let id = Sha256Digest::of(b"vault");
        let code = |found| check_vault_id(id, found).err().map(|failure| failure.code().to_owned());
        assert_eq!(code(Some(id)), None);
        assert_eq!(code(Some(Sha256Digest::of(b"other"))).as_deref(), Some("vault-other"));
        assert_eq!(code(None).as_deref(), Some("vault-not-open"));
    }

    #[test]
    fn evidence_that_does_not_verify_says_not_to_seal() {
        let failure = not_verified(KeeperEvidenceError::OtherKeeper { field: "the wrap key" });
        assert_eq!((failure.kind(), failure.code()), (Kind::NotVerified, "keeper-other"));
        assert_eq!(failure.next_step(), Some(DO_NOT_SEAL));
    }
}
