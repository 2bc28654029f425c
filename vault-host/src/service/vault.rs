//! What inference guests call.

use std::sync::Arc;

use tokio_stream::Empty;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use vault_proto::convert::{
    self, ChallengeRequest, EndLease, FetchRequest, KeyEpochsRequest, ModelName, ReleaseRequest, RenewRequest,
    WatchLease,
};
use vault_proto::v1;
use vault_proto::v1::vault_server::Vault;

use super::units::Units;
use super::{Host, enter, fetch, watch};
use crate::link::{Call, Reply};
use crate::store::Model;

/// The Vault service.
#[derive(Clone, Debug)]
pub(crate) struct VaultService(pub(crate) Arc<Host>);

#[tonic::async_trait]
impl Vault for VaultService {
    async fn get_challenge(
        &self,
        request: Request<v1::GetChallengeRequest>,
    ) -> Result<Response<v1::GetChallengeResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::GetChallenge(ChallengeRequest::try_from(message)?.into());
            let pick = |reply| if let Reply::GetChallenge(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn release_keys(
        &self,
        request: Request<v1::ReleaseKeysRequest>,
    ) -> Result<Response<v1::ReleaseKeysResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::ReleaseKeys(ReleaseRequest::try_from(message)?.into());
            let pick = |reply| if let Reply::ReleaseKeys(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn renew_lease(
        &self,
        request: Request<v1::RenewLeaseRequest>,
    ) -> Result<Response<v1::RenewLeaseResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::RenewLease(RenewRequest::try_from(message)?.into());
            let pick = |reply| if let Reply::RenewLease(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn end_lease(&self, request: Request<v1::EndLeaseRequest>) -> Result<Response<v1::EndLeaseResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::EndLease(EndLease::try_from(message)?.into());
            let pick = |reply| if let Reply::EndLease(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn get_key_epochs(
        &self,
        request: Request<v1::GetKeyEpochsRequest>,
    ) -> Result<Response<v1::GetKeyEpochsResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let call = Call::GetKeyEpochs(KeyEpochsRequest::try_from(message)?.into());
            let pick = |reply| if let Reply::GetKeyEpochs(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    async fn submit_extension(
        &self,
        request: Request<v1::SubmitExtensionRequest>,
    ) -> Result<Response<v1::SubmitExtensionResponse>, Status> {
        let (context, message) = enter(request);
        let relayed = async {
            let extension = convert::extension(message)?;
            let call = Call::SubmitExtension(v1::SubmitExtensionRequest { extension });
            let pick = |reply| if let Reply::SubmitExtension(reply) = reply { Some(reply) } else { None };
            self.0.relay(call, pick).await
        };
        self.0.answer(context, relayed).await
    }

    type WatchLeaseStream = ReceiverStream<Result<v1::WatchLeaseResponse, Status>>;

    async fn watch_lease(
        &self,
        request: Request<v1::WatchLeaseRequest>,
    ) -> Result<Response<Self::WatchLeaseStream>, Status> {
        let (context, message) = enter(request);
        let begin = async { watch::begin(&self.0, WatchLease::try_from(message)?).await };
        self.0.answer(context, begin).await
    }

    async fn get_manifest(
        &self,
        request: Request<v1::GetManifestRequest>,
    ) -> Result<Response<v1::GetManifestResponse>, Status> {
        let (context, message) = enter(request);
        let read = async {
            let name = ModelName::try_from(message)?;
            let model = self.0.on_disk(move |store| store.released(&name)).await?;
            let sized = model.clone();
            let bytes = self.0.on_disk(move |store| store.public_bytes(&sized)).await?;
            let memory = self.0.admission.reply_memory(bytes).await?;
            let (manifest, model_signature) = self.0.on_disk(move |store| store.public_files(&model)).await?;
            Ok((v1::GetManifestResponse { manifest, model_signature }, memory))
        };
        self.0.answer_holding(context, read).await
    }

    /// Always empty: what is sent goes around the codec, as [`Units`].
    type FetchUnitsStream = Empty<Result<v1::FetchUnitsResponse, Status>>;

    async fn fetch_units(
        &self,
        request: Request<v1::FetchUnitsRequest>,
    ) -> Result<Response<Self::FetchUnitsStream>, Status> {
        let (context, message) = enter(request);
        let begin = async {
            let request = FetchRequest::try_from(message)?;
            let name = request.model.clone();
            let model = self.0.on_disk(move |store| store.released(&name)).await?;
            fetch::begin(self.0.store.clone(), model, &request.ranges)
        };
        let messages = self.0.answer(context, begin).await?.into_inner();
        let mut response = Response::new(tokio_stream::empty());
        response.extensions_mut().insert(Units::new(messages));
        Ok(response)
    }

    async fn list_models(
        &self,
        request: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let (context, v1::ListModelsRequest {}) = enter(request);
        let list = async {
            let summary = |(model, released): (Arc<Model>, bool)| v1::ModelSummary {
                model: model.name.model.to_string(),
                version: model.name.version.to_string(),
                manifest_digest: model.manifest.as_bytes().to_vec(),
                bytes: model.bytes,
                units: u32::try_from(model.units.len()).unwrap_or(u32::MAX),
                released,
            };
            let models = self.0.on_disk(|store| store.models()).await?;
            Ok(v1::ListModelsResponse { models: models.into_iter().map(summary).collect() })
        };
        self.0.answer(context, list).await
    }
}
