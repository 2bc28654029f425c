//! What engineers and publishers call.

use std::sync::Arc;

use ledger::entry::{ProposedPermit, ProposedRaise};
use ledger::manifest::Manifest;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;
use vault_proto::convert;
use vault_proto::convert::{
    Approval, Contribution, EscrowSubmission, JoinRequest, KeeperEvidenceRequest, KeyEpochSubmission, LeaveSubmission,
    PlatformSubmission, PolicySubmission, Publication, ResealSubmission, RevocationSubmission, UnitUpload,
};
use vault_proto::v1;
use vault_proto::v1::Coarse;
use vault_proto::v1::provision_server::Provision;

use super::{Host, enter, upload};
use crate::admission::WorkPlace;
use crate::link::{Call, LinkError, Reply};
use crate::status::Refused;
use crate::telemetry::RequestId;

/// The Provision service.
#[derive(Clone, Debug)]
pub(crate) struct ProvisionService(pub(crate) Arc<Host>);

#[tonic::async_trait]
impl Provision for ProvisionService {
    async fn init_keeper(
        &self,
        request: Request<v1::InitKeeperRequest>,
    ) -> Result<Response<v1::InitKeeperResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::InitKeeper(v1::InitKeeperRequest { core: convert::core(message)? });
            let pick = |reply| if let Reply::InitKeeper(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn get_keeper_identity(
        &self,
        request: Request<v1::GetKeeperIdentityRequest>,
    ) -> Result<Response<v1::GetKeeperIdentityResponse>, Status> {
        let (context, message) = enter(request);
        let pick = |reply| if let Reply::GetKeeperIdentity(reply) = reply { Some(reply) } else { None };
        self.0.answer(context, self.0.relay(Call::GetKeeperIdentity(message), pick)).await
    }

    async fn get_keeper_evidence(
        &self,
        request: Request<v1::GetKeeperEvidenceRequest>,
    ) -> Result<Response<v1::GetKeeperEvidenceResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::GetKeeperEvidence(KeeperEvidenceRequest::try_from(message)?.into());
            let pick = |reply| if let Reply::GetKeeperEvidence(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn submit_genesis(
        &self,
        request: Request<v1::SubmitGenesisRequest>,
    ) -> Result<Response<v1::SubmitGenesisResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::SubmitGenesis(v1::SubmitGenesisRequest { genesis: convert::genesis(message)? });
            let pick = |reply| if let Reply::SubmitGenesis(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn get_upload(
        &self,
        request: Request<v1::GetUploadRequest>,
    ) -> Result<Response<v1::GetUploadResponse>, Status> {
        let (context, message) = enter(request);
        let read = async {
            let unit = UnitUpload::try_from(message)?;
            let offset = self.0.on_disk(move |store| store.uploaded(&unit)).await?;
            Ok(v1::GetUploadResponse { offset })
        };
        self.0.answer(context, read).await
    }

    async fn upload_unit(
        &self,
        request: Request<Streaming<v1::UploadUnitRequest>>,
    ) -> Result<Response<v1::UploadUnitResponse>, Status> {
        let (context, stream) = enter(request);
        let connection = context.connection.clone();
        let received = async {
            let offset = upload::receive(&self.0, stream, connection).await?;
            Ok(v1::UploadUnitResponse { offset })
        };
        self.0.answer(context, received).await
    }

    async fn publish_model(
        &self,
        request: Request<v1::PublishModelRequest>,
    ) -> Result<Response<v1::PublishModelResponse>, Status> {
        let (context, message) = enter(request);
        let work = context.work.clone();
        let published = async { publish(&self.0, Publication::try_from(message)?, work).await };
        self.0.answer(context, published).await
    }

    async fn submit_policy(
        &self,
        request: Request<v1::SubmitPolicyRequest>,
    ) -> Result<Response<v1::SubmitPolicyResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::SubmitPolicy(PolicySubmission::try_from(message)?.into());
            let pick = |reply| if let Reply::SubmitPolicy(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn submit_platform(
        &self,
        request: Request<v1::SubmitPlatformRequest>,
    ) -> Result<Response<v1::SubmitPlatformResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::SubmitPlatform(PlatformSubmission::try_from(message)?.into());
            let pick = |reply| if let Reply::SubmitPlatform(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn submit_reseal(
        &self,
        request: Request<v1::SubmitResealRequest>,
    ) -> Result<Response<v1::SubmitResealResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::SubmitReseal(ResealSubmission::try_from(message)?.into());
            let pick = |reply| if let Reply::SubmitReseal(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn submit_key_epoch(
        &self,
        request: Request<v1::SubmitKeyEpochRequest>,
    ) -> Result<Response<v1::SubmitKeyEpochResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::SubmitKeyEpoch(KeyEpochSubmission::try_from(message)?.into());
            let pick = |reply| if let Reply::SubmitKeyEpoch(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn get_join_challenge(
        &self,
        request: Request<v1::GetJoinChallengeRequest>,
    ) -> Result<Response<v1::GetJoinChallengeResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let tpm = Some(convert::joiner_identity(message)?.into());
            let call = Call::GetJoinChallenge(v1::GetJoinChallengeRequest { tpm });
            let pick = |reply| if let Reply::GetJoinChallenge(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn join_keeper(
        &self,
        request: Request<v1::JoinKeeperRequest>,
    ) -> Result<Response<v1::JoinKeeperResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::JoinKeeper(JoinRequest::try_from(message)?.into());
            let pick = |reply| if let Reply::JoinKeeper(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn submit_escrow(
        &self,
        request: Request<v1::SubmitEscrowRequest>,
    ) -> Result<Response<v1::SubmitEscrowResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::SubmitEscrow(EscrowSubmission::try_from(message)?.into());
            let pick = |reply| if let Reply::SubmitEscrow(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn get_recovery(
        &self,
        request: Request<v1::GetRecoveryRequest>,
    ) -> Result<Response<v1::GetRecoveryResponse>, Status> {
        let (context, message) = enter(request);
        let pick = |reply| if let Reply::GetRecovery(reply) = reply { Some(reply) } else { None };
        self.0.answer(context, self.0.relay(Call::GetRecovery(message), pick)).await
    }

    async fn contribute_share(
        &self,
        request: Request<v1::ContributeShareRequest>,
    ) -> Result<Response<v1::ContributeShareResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::ContributeShare(Contribution::try_from(message)?.into());
            let pick = |reply| if let Reply::ContributeShare(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn submit_keeper_leave(
        &self,
        request: Request<v1::SubmitKeeperLeaveRequest>,
    ) -> Result<Response<v1::SubmitKeeperLeaveResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::SubmitKeeperLeave(LeaveSubmission::try_from(message)?.into());
            let pick = |reply| if let Reply::SubmitKeeperLeave(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn submit_raise(
        &self,
        request: Request<v1::SubmitRaiseRequest>,
    ) -> Result<Response<v1::SubmitRaiseResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::SubmitRaise(ProposedRaise::try_from(message)?.into());
            let pick = |reply| if let Reply::SubmitRaise(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn submit_approval(
        &self,
        request: Request<v1::SubmitApprovalRequest>,
    ) -> Result<Response<v1::SubmitApprovalResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::SubmitApproval(Approval::try_from(message)?.into());
            let pick = |reply| if let Reply::SubmitApproval(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn submit_revocation(
        &self,
        request: Request<v1::SubmitRevocationRequest>,
    ) -> Result<Response<v1::SubmitRevocationResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::SubmitRevocation(RevocationSubmission::try_from(message)?.into());
            let pick = |reply| if let Reply::SubmitRevocation(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn submit_permit(
        &self,
        request: Request<v1::SubmitPermitRequest>,
    ) -> Result<Response<v1::SubmitPermitResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::SubmitPermit(ProposedPermit::try_from(message)?.into());
            let pick = |reply| if let Reply::SubmitPermit(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let (context, message) = enter(request);
        let status = async {
            let pick = |reply| if let Reply::Status(reply) = reply { Some(reply) } else { None };
            match self.0.keepers.call(Call::Status(message)).await {
                Ok(reply) => pick(reply).ok_or_else(|| LinkError::WrongReply.into()),
                Err(error @ LinkError::Refused(_)) => Err(error.into()),
                Err(error) => Ok(v1::StatusResponse {
                    state: "unreachable".to_owned(),
                    reason: self.0.without_answer(error).await.message,
                    log_size: self.0.on_disk(|store| store.committed()).await?,
                    ..v1::StatusResponse::default()
                }),
            }
        };
        self.0.answer(context, status).await
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        let (context, message) = enter(request);
        let work = context.work.clone();
        let found = async {
            let id = RequestId::parse(&message.request_id).ok_or_else(|| {
                Refused::new(Coarse::Malformed, "malformed-request-id", "a request id is 32 hex digits")
            })?;
            let journal = self.0.journal.clone();
            let record = self.0.work.run(move || {
                let _work = work;
                journal.find(id.as_str())
            });
            let record = record.await?;
            let record = record.map_err(|error| Refused::new(Coarse::Unavailable, "journal-unreadable", error))?;
            let unknown = "no refusal with this id is in the journal: it may be too old, or a limit turned it away";
            let record = record.ok_or_else(|| Refused::new(Coarse::Unknown, "request-unknown", unknown))?;
            Ok(v1::ExplainResponse {
                code: record.code,
                message: record.message,
                time: record.time,
                method: record.method,
            })
        };
        self.0.answer(context, found).await
    }
}

/// Publishes, to the end also where the caller is gone: whoever left in the middle would leave a proposal behind that the
/// keeper never took.
async fn publish(
    host: &Arc<Host>,
    files: Publication,
    work: Option<WorkPlace>,
) -> Result<v1::PublishModelResponse, Refused> {
    // One after another, so that the refusal of one does not take back what another was granted.
    let publishing = host.publishing.clone().lock_owned().await;
    let host = host.clone();
    let to_the_end = async move {
        let _held = (publishing, work);
        propose(&host, files).await
    };
    let done = tokio::spawn(to_the_end.in_current_span()).await;
    done.map_err(|_| Refused::new(Coarse::Unavailable, "host-panicked", "the host could not finish the call"))?
}

/// Puts the model together, asks the keeper, and keeps it if the keeper does.
async fn propose(host: &Arc<Host>, files: Publication) -> Result<v1::PublishModelResponse, Refused> {
    let files = Arc::new(files);
    let assembled = files.clone();
    let manifest = host.work.run(move || Manifest::parse(&assembled.manifest)).await?;
    let manifest = manifest.map_err(|error| Refused::new(Coarse::Malformed, error.code(), error))?;
    let digest = manifest.digest();
    let assembled = files.clone();
    let (object, new) = host.on_disk(move |store| store.propose(&manifest, &assembled)).await?;

    let request = v1::PublishModelRequest::from(Arc::unwrap_or_clone(files));
    let answer = match host.keepers.call(Call::PublishModel(request)).await {
        Ok(Reply::PublishModel(answer)) => Ok(answer),
        Ok(_) => Err(LinkError::WrongReply),
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) => {
            // The same model waits already under another spelling of its signature: ours stays without a proposal.
            let other = answer.proposal.as_ref().is_some_and(|standing| standing.object != object.as_bytes());
            if new && other {
                tidied(host.on_disk(move |store| store.withdraw(&object)).await);
            }
            tidied(host.on_disk(move |store| store.forget_uploads(&digest)).await);
            Ok(answer)
        }
        Err(error) => {
            // After the other errors the keeper may have proposed it: then it is here when the approvals come.
            let refused = matches!(error, LinkError::Refused(_) | LinkError::Unreachable { .. });
            if new && refused {
                tidied(host.on_disk(move |store| store.withdraw(&object)).await);
            }
            Err(host.without_answer(error).await)
        }
    }
}

/// The keeper's answer counts; what could not be tidied up takes room and harms nobody.
fn tidied(done: Result<(), Refused>) {
    if let Err(refused) = done {
        tracing::warn!(code = refused.code, reason = refused.message, "could not tidy up after a publication");
    }
}
