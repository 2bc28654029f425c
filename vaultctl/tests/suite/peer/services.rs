//! The gRPC services of the peer. A call that no test makes is not served.

use std::pin::Pin;
use std::sync::Mutex;

use attestation::Sha256Digest;
use prost::Message;
use tokio_stream::Stream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status, Streaming};
use vault_proto::convert;
use vault_proto::v1::audit_server::Audit;
use vault_proto::v1::provision_server::Provision;
use vault_proto::v1::vault_server::Vault;
use vault_proto::v1::{self, *};

use super::{Keeper, now};

/// A keeper that all calls share.
pub(crate) struct Shared(pub(crate) Mutex<Keeper>);

type Answer<T> = Result<Response<T>, Status>;

fn read<W, T: TryFrom<W, Error = convert::WireError>>(request: Request<W>) -> Result<T, Status> {
    T::try_from(request.into_inner()).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn not_served<T>() -> Answer<T> {
    Err(Status::unimplemented("not by this peer"))
}

fn changed<T>(lie: Option<fn(&mut T)>, mut answer: T) -> Answer<T> {
    if let Some(lie) = lie {
        lie(&mut answer);
    }
    Ok(Response::new(answer))
}

/// A refusal, with its trailer.
fn refuse(keeper: &Keeper) -> Result<(), Status> {
    let Some(refusal) = &keeper.lies.refusal else { return Ok(()) };
    let mut metadata = MetadataMap::new();
    metadata.insert_bin("weightvault-refusal-bin", MetadataValue::from_bytes(&refusal.encode_to_vec()));
    Err(Status::with_metadata(Code::PermissionDenied, "denied", metadata))
}

impl Keeper {
    fn identity_message(&self) -> Result<GetKeeperIdentityResponse, Status> {
        let core = self.core.as_ref().ok_or_else(|| Status::failed_precondition("empty"))?;
        Ok(convert::KeeperIdentity {
            tpm: self.identity.clone(),
            instance: Self::instance(),
            core_digest: core.digest(),
            wrap_key: Self::wrap_key(),
            identity_key: Self::identity_key(),
            log_key: Self::log_key(),
            vault_id: self.state.vault().map(|vault| vault.id()),
            pcrs: core.policy().keeper().tpm().pcrs.selection(),
        }
        .into())
    }

    fn status_message(&self) -> StatusResponse {
        let state = match (self.state.vault(), self.state.genesis(), &self.core) {
            (Some(_), ..) => "open",
            (None, Some(_), _) | (None, None, Some(_)) => "ceremony",
            (None, None, None) => "empty",
        };
        let policy = self.state.vault().map(|vault| vault.policy());
        StatusResponse {
            state: state.to_owned(),
            vault_id: self.state.genesis().map(|genesis| genesis.vault_id().as_bytes().to_vec()).unwrap_or_default(),
            tier: "emulated".to_owned(),
            anti_rollback: "none".to_owned(),
            policy_serial: policy.map_or(0, |policy| policy.serial()),
            policy_digest: policy.map(|policy| policy.digest().as_bytes().to_vec()).unwrap_or_default(),
            policy_not_after: policy.map_or(0, |policy| policy.not_after().seconds()),
            log_size: self.state.size(),
            log_root: self.root().map(|root| root.as_bytes().to_vec()).unwrap_or_default(),
            pending: self.all_pending().into_iter().map(v1::Proposal::from).collect(),
            leases: self.leases(),
            time_source: "host clock".to_owned(),
            genesis: self.entries.first().cloned().unwrap_or_default(),
            ..Default::default()
        }
    }

    fn leases(&self) -> Vec<LeaseSummary> {
        let Some(vault) = self.state.vault() else { return Vec::new() };
        let summary = |(id, lease): (Sha256Digest, &ledger::state::Lease)| LeaseSummary {
            lease_id: id.as_bytes().to_vec(),
            rule: lease.rule.to_string(),
            model: lease.model.to_string(),
            version: lease.version.to_string(),
            platform: lease.platform.as_bytes().to_vec(),
            renew_by: lease.renew_by.seconds(),
            tier: lease.tier.to_string(),
            program: lease.workload.map_or_else(Vec::new, |workload| workload.program.as_bytes().to_vec()),
        };
        vault.leases(now()).map(summary).collect()
    }
}

#[tonic::async_trait]
impl Provision for Shared {
    async fn init_keeper(&self, request: Request<InitKeeperRequest>) -> Answer<InitKeeperResponse> {
        let mut keeper = self.0.lock().unwrap();
        refuse(&keeper)?;
        let core = ledger::genesis::Core::parse(&request.into_inner().core).unwrap();
        keeper.core = Some(core);
        Ok(Response::new(InitKeeperResponse { identity: Some(keeper.identity_message()?) }))
    }

    async fn get_keeper_identity(&self, _: Request<GetKeeperIdentityRequest>) -> Answer<GetKeeperIdentityResponse> {
        let keeper = self.0.lock().unwrap();
        changed(keeper.lies.identity, keeper.identity_message()?)
    }

    async fn get_keeper_evidence(
        &self,
        request: Request<GetKeeperEvidenceRequest>,
    ) -> Answer<GetKeeperEvidenceResponse> {
        let keeper = self.0.lock().unwrap();
        refuse(&keeper)?;
        let evidence = keeper.evidence(read(request)?).ok_or_else(|| Status::internal("the TPM did not open it"))?;
        changed(keeper.lies.evidence, evidence.into())
    }

    async fn submit_genesis(&self, request: Request<SubmitGenesisRequest>) -> Answer<SubmitGenesisResponse> {
        let mut keeper = self.0.lock().unwrap();
        let id = keeper.submit_genesis(&request.into_inner().genesis);
        changed(keeper.lies.genesis_answer, SubmitGenesisResponse { vault_id: id.as_bytes().to_vec() })
    }

    async fn submit_policy(&self, request: Request<SubmitPolicyRequest>) -> Answer<SubmitPolicyResponse> {
        let mut keeper = self.0.lock().unwrap();
        refuse(&keeper)?;
        let proposal = keeper.submit_policy(read(request)?);
        Ok(Response::new(SubmitPolicyResponse { proposal: Some(proposal.into()) }))
    }

    async fn submit_platform(&self, request: Request<SubmitPlatformRequest>) -> Answer<SubmitPlatformResponse> {
        let mut keeper = self.0.lock().unwrap();
        refuse(&keeper)?;
        let proposal = keeper.submit_platform(read(request)?);
        Ok(Response::new(SubmitPlatformResponse { proposal: Some(proposal.into()) }))
    }

    async fn submit_reseal(&self, request: Request<SubmitResealRequest>) -> Answer<SubmitResealResponse> {
        let mut keeper = self.0.lock().unwrap();
        refuse(&keeper)?;
        let proposal = keeper.submit_reseal(read(request)?);
        Ok(Response::new(SubmitResealResponse { proposal: Some(proposal.into()) }))
    }

    async fn submit_key_epoch(&self, _: Request<SubmitKeyEpochRequest>) -> Answer<SubmitKeyEpochResponse> {
        Err(Status::unimplemented("the peer's keeper has one epoch"))
    }

    async fn get_join_challenge(&self, _: Request<GetJoinChallengeRequest>) -> Answer<GetJoinChallengeResponse> {
        Err(Status::unimplemented("the peer's keeper has no successor"))
    }

    async fn join_keeper(&self, _: Request<JoinKeeperRequest>) -> Answer<JoinKeeperResponse> {
        Err(Status::unimplemented("the peer's keeper has no successor"))
    }

    async fn submit_escrow(&self, _: Request<SubmitEscrowRequest>) -> Answer<SubmitEscrowResponse> {
        Err(Status::unimplemented("the peer's keeper has no keys to split"))
    }

    async fn get_recovery(&self, _: Request<GetRecoveryRequest>) -> Answer<GetRecoveryResponse> {
        Err(Status::unimplemented("the peer's keeper is not lost"))
    }

    async fn contribute_share(&self, _: Request<ContributeShareRequest>) -> Answer<ContributeShareResponse> {
        Err(Status::unimplemented("the peer's keeper is not lost"))
    }

    async fn submit_keeper_leave(&self, _: Request<SubmitKeeperLeaveRequest>) -> Answer<SubmitKeeperLeaveResponse> {
        Err(Status::unimplemented("the peer's keeper is alone"))
    }

    async fn submit_raise(&self, request: Request<SubmitRaiseRequest>) -> Answer<SubmitRaiseResponse> {
        let mut keeper = self.0.lock().unwrap();
        refuse(&keeper)?;
        let proposal = keeper.submit_raise(read(request)?);
        Ok(Response::new(SubmitRaiseResponse { proposal: Some(proposal.into()) }))
    }

    async fn submit_permit(&self, request: Request<SubmitPermitRequest>) -> Answer<SubmitPermitResponse> {
        let mut keeper = self.0.lock().unwrap();
        refuse(&keeper)?;
        let proposal = keeper.submit_permit(read(request)?);
        Ok(Response::new(SubmitPermitResponse { proposal: Some(proposal.into()) }))
    }

    async fn submit_revocation(&self, request: Request<SubmitRevocationRequest>) -> Answer<SubmitRevocationResponse> {
        let mut keeper = self.0.lock().unwrap();
        refuse(&keeper)?;
        let proposal = keeper.submit_revocation(read(request)?);
        Ok(Response::new(SubmitRevocationResponse { proposal: Some(proposal.into()) }))
    }

    async fn submit_approval(&self, request: Request<SubmitApprovalRequest>) -> Answer<SubmitApprovalResponse> {
        let mut keeper = self.0.lock().unwrap();
        refuse(&keeper)?;
        let proposal = keeper.submit_approval(read(request)?);
        Ok(Response::new(SubmitApprovalResponse { proposal: Some(proposal.into()) }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let keeper = self.0.lock().unwrap();
        changed(keeper.lies.status, keeper.status_message())
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Answer<ExplainResponse> {
        let keeper = self.0.lock().unwrap();
        refuse(&keeper)?;
        Ok(Response::new(ExplainResponse {
            code: "quote-not-fresh".to_owned(),
            message: format!("of {}: \u{1b}[2J", request.into_inner().request_id),
            time: 1_800_000_000,
            method: "ReleaseKeys".to_owned(),
        }))
    }

    async fn get_upload(&self, _: Request<GetUploadRequest>) -> Answer<GetUploadResponse> {
        not_served()
    }

    async fn upload_unit(&self, _: Request<Streaming<UploadUnitRequest>>) -> Answer<UploadUnitResponse> {
        not_served()
    }

    async fn publish_model(&self, _: Request<PublishModelRequest>) -> Answer<PublishModelResponse> {
        not_served()
    }
}

#[tonic::async_trait]
impl Audit for Shared {
    async fn get_checkpoint(&self, _: Request<GetCheckpointRequest>) -> Answer<GetCheckpointResponse> {
        let keeper = self.0.lock().unwrap();
        if keeper.entries.is_empty() {
            return Err(Status::not_found("no log yet"));
        }
        let checkpoint = match &keeper.lies.checkpoint {
            Some(lie) => lie.clone(),
            None => keeper.checkpoint(keeper.entries.len() as u64),
        };
        Ok(Response::new(GetCheckpointResponse { checkpoint }))
    }

    /// At most two entries, so that readers have to come back.
    async fn get_entries(&self, request: Request<GetEntriesRequest>) -> Answer<GetEntriesResponse> {
        let keeper = self.0.lock().unwrap();
        let GetEntriesRequest { first, count } = request.into_inner();
        let from = usize::try_from(first).unwrap();
        let mut entries: Vec<_> = keeper.entries.iter().skip(from).take(2.min(count as usize)).cloned().collect();
        if let Some(lie) = keeper.lies.entries {
            lie(first, &mut entries);
        }
        Ok(Response::new(GetEntriesResponse { entries }))
    }

    async fn get_blob(&self, request: Request<GetBlobRequest>) -> Answer<GetBlobResponse> {
        let keeper = self.0.lock().unwrap();
        let digest = Sha256Digest::try_from(request.into_inner().digest.as_slice()).unwrap();
        let blob = keeper.blobs.get(&digest).cloned().ok_or_else(|| Status::not_found("no such blob"))?;
        let mut answer = GetBlobResponse { blob };
        if let Some(lie) = keeper.lies.blob {
            lie(&mut answer.blob);
        }
        Ok(Response::new(answer))
    }

    async fn get_tile(&self, _: Request<GetTileRequest>) -> Answer<GetTileResponse> {
        not_served()
    }
}

#[tonic::async_trait]
impl Vault for Shared {
    type FetchUnitsStream = Pin<Box<dyn Stream<Item = Result<FetchUnitsResponse, Status>> + Send>>;
    type WatchLeaseStream = Pin<Box<dyn Stream<Item = Result<WatchLeaseResponse, Status>> + Send>>;

    async fn get_key_epochs(&self, _: Request<GetKeyEpochsRequest>) -> Answer<GetKeyEpochsResponse> {
        not_served()
    }

    async fn submit_extension(&self, _: Request<SubmitExtensionRequest>) -> Answer<SubmitExtensionResponse> {
        not_served()
    }

    async fn watch_lease(&self, _: Request<WatchLeaseRequest>) -> Answer<Self::WatchLeaseStream> {
        not_served()
    }

    async fn list_models(&self, _: Request<ListModelsRequest>) -> Answer<ListModelsResponse> {
        let keeper = self.0.lock().unwrap();
        let models = keeper.state.vault().map(|vault| vault.models().map(|model| model.proposed.clone()).collect());
        let models: Vec<ledger::entry::ProposedModel> = models.unwrap_or_default();
        let summary = |model: ledger::entry::ProposedModel| ModelSummary {
            model: model.model.to_string(),
            version: model.version.to_string(),
            manifest_digest: model.manifest.as_bytes().to_vec(),
            bytes: model.bytes,
            units: model.units,
            released: true,
        };
        Ok(Response::new(ListModelsResponse { models: models.into_iter().map(summary).collect() }))
    }

    async fn get_challenge(&self, _: Request<GetChallengeRequest>) -> Answer<GetChallengeResponse> {
        not_served()
    }

    async fn release_keys(&self, _: Request<ReleaseKeysRequest>) -> Answer<ReleaseKeysResponse> {
        not_served()
    }

    async fn renew_lease(&self, _: Request<RenewLeaseRequest>) -> Answer<RenewLeaseResponse> {
        not_served()
    }

    async fn end_lease(&self, _: Request<EndLeaseRequest>) -> Answer<EndLeaseResponse> {
        not_served()
    }

    async fn get_manifest(&self, _: Request<GetManifestRequest>) -> Answer<GetManifestResponse> {
        not_served()
    }

    async fn fetch_units(&self, _: Request<FetchUnitsRequest>) -> Answer<Self::FetchUnitsStream> {
        not_served()
    }
}
