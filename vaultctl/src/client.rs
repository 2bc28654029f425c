//! The connection to a host. What a host answers is a claim: it is checked where it is used.
//!
//! Wire messages end here: what comes out are domain types, with every length checked.

mod reader;
mod refusal;
mod status;

use std::path::Path;
use std::time::Duration;

use attestation::Sha256Digest;
use ledger::entry::{ProposedPermit, ProposedRaise};
use ledger::vault_file::VaultFile;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};
use vault_proto::client::has_keeper;
use vault_proto::convert::{
    Approval, Contribution, EscrowSubmission, KeeperEvidence, KeeperEvidenceRequest, KeeperIdentity, KeyEpochLinks,
    KeyEpochSubmission, KeyEpochsRequest, LeaveSubmission, PlatformSubmission, PolicySubmission, Proposal,
    RecoveryOffer, RecoveryProgress, ResealSubmission, RevocationSubmission,
};
use vault_proto::limits::{BLOB_BYTES_MAX, CHECKPOINT_BYTES_MAX, GET_ENTRIES_MAX, PROVISION_MESSAGE_BYTES_MAX};
use vault_proto::v1;
use vault_proto::v1::audit_client::AuditClient;
use vault_proto::v1::provision_client::ProvisionClient;
use vault_proto::v1::vault_client::VaultClient;

pub use reader::Reader;
pub use refusal::refused;
pub use status::{EscrowHolders, Lease, LostKeeper, VaultState, VaultStatus, WitnessQuorum};

use crate::failure::{Failure, Kind};

/// How long one host may take to accept a connection.
const CONNECT_SECS_MAX: u64 = 5;
/// How long a call may take: the keeper's TPM makes keys in some of them.
const CALL_SECS_MAX: u64 = 120;
/// The most models that a list may have.
const MODELS_MAX: usize = 65_536;

/// A host that accepted a connection.
pub struct Remote {
    address: String,
    channel: Channel,
    reader: Option<Reader>,
}

/// A model as a host lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedModel {
    /// Name.
    pub model: String,
    /// Version.
    pub version: String,
    /// SHA-256 of the manifest that it would deliver.
    pub manifest: Sha256Digest,
}

/// The exact reason of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Stable code.
    pub code: String,
    /// In words.
    pub message: String,
    /// When.
    pub time: u64,
    /// Which call.
    pub method: String,
}

impl Remote {
    /// Connects to the first host that has a keeper, else to the first that accepts: `http://…`, `https://…` or
    /// `unix:/path`. Nothing that the vault does depends on TLS; `ca` is the PEM of the authority for `https` hosts, and no other authority is asked.
    pub async fn connect(hosts: &[String], ca: Option<&Path>) -> Result<Self, Failure> {
        let ca = match ca {
            Some(path) => Some(std::fs::read(path).map_err(|error| Failure::file("read", path, &error))?),
            None => None,
        };
        let mut reasons = Vec::new();
        let mut without_keeper = None;
        for host in hosts {
            match endpoint(host, ca.as_deref())?.connect().await {
                Ok(channel) => {
                    let remote = Self { address: host.clone(), channel, reader: None };
                    if hosts.len() == 1 || has_keeper(&remote.channel).await {
                        return Ok(remote);
                    }
                    without_keeper = without_keeper.or(Some(remote));
                }
                Err(error) => reasons.push(format!("{host}: {}", chain(&error))),
            }
        }
        without_keeper.ok_or_else(|| {
            Failure::new(Kind::Failed, "host-unreachable", "no host answers")
                .why(reasons.join("\n"))
                .next("check that vault-host runs there, or name another one with --host")
        })
    }

    /// Whoever reads the log here, if a host asks.
    pub fn reading_as(self, reader: Reader) -> Self {
        Self { reader: Some(reader), ..self }
    }

    /// The address that answered.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Gives an empty keeper the core of its genesis.
    pub async fn init_keeper(&self, core: Vec<u8>) -> Result<KeeperIdentity, Failure> {
        let answer = self.provision().init_keeper(v1::InitKeeperRequest { core }).await;
        self.read("InitKeeper", answer)
    }

    /// Who the keeper says it is.
    pub async fn keeper_identity(&self) -> Result<KeeperIdentity, Failure> {
        let answer = self.provision().get_keeper_identity(v1::GetKeeperIdentityRequest {}).await;
        self.read("GetKeeperIdentity", answer)
    }

    /// A quote over the caller's nonce and the secret of the caller's credential.
    pub async fn keeper_evidence(&self, request: KeeperEvidenceRequest) -> Result<KeeperEvidence, Failure> {
        let answer = self.provision().get_keeper_evidence(v1::GetKeeperEvidenceRequest::from(request)).await;
        self.read("GetKeeperEvidence", answer)
    }

    /// Offers a genesis. Gives the vault id that the keeper computed.
    pub async fn submit_genesis(&self, genesis: Vec<u8>) -> Result<Sha256Digest, Failure> {
        const METHOD: &str = "SubmitGenesis";
        let answer =
            self.accepted(METHOD, self.provision().submit_genesis(v1::SubmitGenesisRequest { genesis }).await)?;
        self.digest(METHOD, &answer.vault_id)
    }

    /// Proposes a policy.
    pub async fn submit_policy(&self, submission: PolicySubmission) -> Result<Proposal, Failure> {
        const METHOD: &str = "SubmitPolicy";
        let request = v1::SubmitPolicyRequest::from(submission);
        let answer = self.accepted(METHOD, self.provision().submit_policy(request).await)?;
        self.proposal(METHOD, answer.proposal)
    }

    /// Proposes that a platform be enrolled or removed.
    pub async fn submit_platform(&self, submission: PlatformSubmission) -> Result<Proposal, Failure> {
        const METHOD: &str = "SubmitPlatform";
        let request = v1::SubmitPlatformRequest::from(submission);
        let answer = self.accepted(METHOD, self.provision().submit_platform(request).await)?;
        self.proposal(METHOD, answer.proposal)
    }

    /// Proposes a boot state of the keeper.
    pub async fn submit_reseal(&self, submission: ResealSubmission) -> Result<Proposal, Failure> {
        const METHOD: &str = "SubmitReseal";
        let request = v1::SubmitResealRequest::from(submission);
        let answer = self.accepted(METHOD, self.provision().submit_reseal(request).await)?;
        self.proposal(METHOD, answer.proposal)
    }

    /// Proposes custodians of the vault's keys.
    pub async fn submit_escrow(&self, submission: EscrowSubmission) -> Result<Proposal, Failure> {
        const METHOD: &str = "SubmitEscrow";
        let request = v1::SubmitEscrowRequest::from(submission);
        let answer = self.accepted(METHOD, self.provision().submit_escrow(request).await)?;
        self.proposal(METHOD, answer.proposal)
    }

    /// What a recovering keeper says that it is about to do.
    pub async fn recovery(&self) -> Result<RecoveryOffer, Failure> {
        const METHOD: &str = "GetRecovery";
        let answer = self.accepted(METHOD, self.provision().get_recovery(v1::GetRecoveryRequest {}).await)?;
        answer.try_into().map_err(|error| self.malformed(METHOD, error))
    }

    /// Gives it a share.
    pub async fn contribute(&self, contribution: Contribution) -> Result<RecoveryProgress, Failure> {
        const METHOD: &str = "ContributeShare";
        let request = v1::ContributeShareRequest::from(contribution);
        let answer = self.accepted(METHOD, self.provision().contribute_share(request).await)?;
        let progress = answer.progress.ok_or_else(|| self.malformed(METHOD, "no progress"))?;
        progress.try_into().map_err(|error: vault_proto::convert::WireError| self.malformed(METHOD, error))
    }

    /// Proposes that a keeper leaves the others.
    pub async fn submit_keeper_leave(&self, submission: LeaveSubmission) -> Result<Proposal, Failure> {
        const METHOD: &str = "SubmitKeeperLeave";
        let request = v1::SubmitKeeperLeaveRequest::from(submission);
        let answer = self.accepted(METHOD, self.provision().submit_keeper_leave(request).await)?;
        self.proposal(METHOD, answer.proposal)
    }

    /// Asks for keys of the next epoch, and proposes them.
    pub async fn submit_key_epoch(&self, submission: KeyEpochSubmission) -> Result<Proposal, Failure> {
        const METHOD: &str = "SubmitKeyEpoch";
        let request = v1::SubmitKeyEpochRequest::from(submission);
        let answer = self.accepted(METHOD, self.provision().submit_key_epoch(request).await)?;
        self.proposal(METHOD, answer.proposal)
    }

    /// The vault file that goes on with the present keys of the vault.
    pub async fn follow(&self, vault: &VaultFile) -> Result<VaultFile, Failure> {
        const METHOD: &str = "GetKeyEpochs";
        let request = v1::GetKeyEpochsRequest::from(KeyEpochsRequest { known: vault.keys().epoch });
        let links = match self.vault().get_key_epochs(request).await {
            // A host that knows no epochs.
            Err(status) if status.code() == Code::Unimplemented => return Ok(vault.clone()),
            answer => KeyEpochLinks::try_from(self.accepted(METHOD, answer)?),
        };
        let links = links.map_err(|error| self.malformed(METHOD, error))?.links;
        vault.clone().following(&links).map_err(|error| {
            Failure::new(Kind::NotVerified, error.code(), "what leads to the present keys of the vault does not verify")
                .why(error)
        })
    }

    /// Proposes a raise of a budget.
    pub async fn submit_raise(&self, raise: ProposedRaise) -> Result<Proposal, Failure> {
        const METHOD: &str = "SubmitRaise";
        let request = v1::SubmitRaiseRequest::from(raise);
        let answer = self.accepted(METHOD, self.provision().submit_raise(request).await)?;
        self.proposal(METHOD, answer.proposal)
    }

    /// Proposes a standing approval or break-glass.
    pub async fn submit_permit(&self, permit: ProposedPermit) -> Result<Proposal, Failure> {
        const METHOD: &str = "SubmitPermit";
        let request = v1::SubmitPermitRequest::from(permit);
        let answer = self.accepted(METHOD, self.provision().submit_permit(request).await)?;
        self.proposal(METHOD, answer.proposal)
    }

    /// Proposes a revocation or the lift of one.
    pub async fn submit_revocation(&self, submission: RevocationSubmission) -> Result<Proposal, Failure> {
        const METHOD: &str = "SubmitRevocation";
        let request = v1::SubmitRevocationRequest::from(submission);
        let answer = self.accepted(METHOD, self.provision().submit_revocation(request).await)?;
        self.proposal(METHOD, answer.proposal)
    }

    /// Tells the keeper of an extension; how many leases run longer by it.
    pub async fn submit_extension(&self, extension: Vec<u8>) -> Result<u32, Failure> {
        const METHOD: &str = "SubmitExtension";
        let request = v1::SubmitExtensionRequest { extension };
        Ok(self.accepted(METHOD, self.vault().submit_extension(request).await)?.leases)
    }

    /// Adds an approval.
    pub async fn submit_approval(&self, approval: Approval) -> Result<Proposal, Failure> {
        const METHOD: &str = "SubmitApproval";
        let request = v1::SubmitApprovalRequest::from(approval);
        let answer = self.accepted(METHOD, self.provision().submit_approval(request).await)?;
        self.proposal(METHOD, answer.proposal)
    }

    /// Where the vault stands, as the host tells it.
    pub async fn status(&self) -> Result<VaultStatus, Failure> {
        let answer = self.provision().status(v1::StatusRequest {}).await;
        self.read("Status", answer)
    }

    /// What a request id stands for.
    pub async fn explain(&self, request_id: &str) -> Result<Explanation, Failure> {
        let request = v1::ExplainRequest { request_id: request_id.to_owned() };
        let answer = self.accepted("Explain", self.provision().explain(request).await)?;
        let v1::ExplainResponse { code, message, time, method } = answer;
        Ok(Explanation { code, message, time, method })
    }

    /// The models that the host can deliver.
    pub async fn models(&self) -> Result<Vec<ListedModel>, Failure> {
        const METHOD: &str = "ListModels";
        let answer = self.accepted(METHOD, self.vault().list_models(v1::ListModelsRequest {}).await)?;
        if answer.models.len() > MODELS_MAX {
            return Err(self.malformed(METHOD, format!("{} models", answer.models.len())));
        }
        let listed = answer.models.into_iter().map(|summary| {
            let manifest = self.digest(METHOD, &summary.manifest_digest)?;
            Ok(ListedModel { model: summary.model, version: summary.version, manifest })
        });
        listed.collect()
    }

    /// The newest checkpoint: a signed note, not verified.
    pub async fn checkpoint(&self) -> Result<String, Failure> {
        const METHOD: &str = "GetCheckpoint";
        let answer = self.accepted(METHOD, self.audit().get_checkpoint(v1::GetCheckpointRequest {}).await)?;
        if answer.checkpoint.len() > CHECKPOINT_BYTES_MAX {
            return Err(self.malformed(METHOD, "the checkpoint is too long"));
        }
        Ok(answer.checkpoint)
    }

    /// Entries from an index on: at least one, and fewer than asked for where the host likes. Exact bytes, not verified.
    pub async fn entries(&self, first: u64, count: u64) -> Result<Vec<Vec<u8>>, Failure> {
        const METHOD: &str = "GetEntries";
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(GET_ENTRIES_MAX);
        let ask = || self.reading(v1::GetEntriesRequest { first, count });
        let answer = match self.accepted(METHOD, self.audit().get_entries(ask()).await) {
            Ok(answer) => answer,
            Err(failure) => {
                self.sign_in(failure).await?;
                self.accepted(METHOD, self.audit().get_entries(ask()).await)?
            }
        };
        if answer.entries.is_empty() || answer.entries.len() > count as usize {
            return Err(self.malformed(METHOD, format!("{} entries from {first} on", answer.entries.len())));
        }
        Ok(answer.entries)
    }

    /// A blob that the log names. It has this digest: else it is refused.
    pub async fn blob(&self, digest: Sha256Digest) -> Result<Vec<u8>, Failure> {
        const METHOD: &str = "GetBlob";
        let ask = || self.reading(v1::GetBlobRequest { digest: digest.as_bytes().to_vec() });
        let blob = match self.accepted(METHOD, self.audit().get_blob(ask()).await) {
            Ok(answer) => answer.blob,
            Err(failure) => {
                self.sign_in(failure).await?;
                self.accepted(METHOD, self.audit().get_blob(ask()).await)?.blob
            }
        };
        if blob.len() > BLOB_BYTES_MAX || Sha256Digest::of(&blob) != digest {
            return Err(Failure::new(Kind::NotVerified, "blob-digest-mismatch", "the host gave another blob")
                .why(format!("asked {} for {digest}, and the answer has another digest", self.address))
                .next("do not trust this host's storage; ask another host with --host"));
        }
        Ok(blob)
    }

    fn reading<T>(&self, message: T) -> Request<T> {
        match &self.reader {
            Some(reader) => reader.request(message),
            None => Request::new(message),
        }
    }

    /// After a refusal: signs in where that helps, else gives the refusal back.
    async fn sign_in(&self, failure: Failure) -> Result<(), Failure> {
        match &self.reader {
            Some(reader) => reader.refused(failure).await,
            None => Err(failure),
        }
    }

    fn provision(&self) -> ProvisionClient<Channel> {
        ProvisionClient::new(self.channel.clone()).max_decoding_message_size(PROVISION_MESSAGE_BYTES_MAX)
    }

    fn vault(&self) -> VaultClient<Channel> {
        VaultClient::new(self.channel.clone()).max_decoding_message_size(PROVISION_MESSAGE_BYTES_MAX)
    }

    fn audit(&self) -> AuditClient<Channel> {
        AuditClient::new(self.channel.clone()).max_decoding_message_size(PROVISION_MESSAGE_BYTES_MAX)
    }

    fn accepted<T>(&self, method: &str, answer: Result<Response<T>, Status>) -> Result<T, Failure> {
        answer.map(Response::into_inner).map_err(|status| refused(method, &self.address, &status))
    }

    fn read<W, T>(&self, method: &str, answer: Result<Response<W>, Status>) -> Result<T, Failure>
    where
        T: TryFrom<W>,
        T::Error: std::fmt::Display,
    {
        T::try_from(self.accepted(method, answer)?).map_err(|error| self.malformed(method, error))
    }

    fn proposal(&self, method: &str, proposal: Option<v1::Proposal>) -> Result<Proposal, Failure> {
        let proposal = proposal.ok_or_else(|| self.malformed(method, "it has no proposal"))?;
        Proposal::try_from(proposal).map_err(|error| self.malformed(method, error))
    }

    fn digest(&self, method: &str, bytes: &[u8]) -> Result<Sha256Digest, Failure> {
        Sha256Digest::try_from(bytes).map_err(|error| self.malformed(method, error))
    }

    fn malformed(&self, method: &str, why: impl std::fmt::Display) -> Failure {
        Failure::new(Kind::Failed, "answer-malformed", format!("{} does not answer {method} as it must", self.address))
            .why(why)
            .next("check that vaultctl and vault-host are of the same version")
    }
}

fn endpoint(host: &str, ca: Option<&[u8]>) -> Result<Endpoint, Failure> {
    let usable = ["http://", "https://", "unix:"].iter().any(|scheme| host.starts_with(scheme));
    let endpoint = Endpoint::from_shared(host.to_owned()).ok().filter(|_| usable).ok_or_else(|| {
        Failure::new(Kind::Usage, "host-malformed", format!("{host:?} is not the address of a host"))
            .next("write http://HOST:PORT, https://HOST:PORT or unix:/path/to/socket")
    })?;
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(CONNECT_SECS_MAX))
        .timeout(Duration::from_secs(CALL_SECS_MAX))
        .tcp_nodelay(true);
    if !host.starts_with("https://") {
        return Ok(endpoint);
    }
    let ca = ca.ok_or_else(|| {
        Failure::new(Kind::Usage, "ca-missing", format!("{host} needs a certificate authority to check it by"))
            .next("give its PEM with --ca FILE")
    })?;
    endpoint.tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca))).map_err(|error| {
        Failure::new(Kind::Usage, "ca-malformed", "can't use the certificate authority")
            .why(chain(&error))
            .next("--ca takes a PEM file with at least one certificate")
    })
}

/// An error and its causes: tonic's own text is only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
