//! What auditors read.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use attestation::UnixTime;
use ledger::tiles::Tile;
use tonic::{Request, Response, Status};
use vault_proto::convert::blob_digest;
use vault_proto::limits::{BLOB_BYTES_MAX, GET_ENTRIES_MAX};
use vault_proto::reader::{self, CredentialError};
use vault_proto::v1;
use vault_proto::v1::Coarse;
use vault_proto::v1::audit_server::Audit;

use super::{Host, enter};
use crate::status::Refused;
use crate::store::{NotAuthorised, Store, StoreError};

/// Bytes of entries in one answer, unless a single bundle has more.
const ENTRIES_BYTES: usize = 1 << 20;
/// A bundle of entries at their longest.
const BUNDLE_BYTES_MAX: u64 = 256 * (2 + (16 << 10));

/// The Audit service.
#[derive(Clone, Debug)]
pub(crate) struct AuditService(pub(crate) Arc<Host>);

impl AuditService {
    /// Refuses whoever may not read the log. Where anybody may, nobody looks at the credential.
    async fn check_reader(&self, credential: Result<v1::ReaderCredential, CredentialError>) -> Result<(), Refused> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs());
        let check = move |store: &dyn Store| {
            let in_force = store.in_force()?;
            if in_force.as_ref().is_some_and(|in_force| in_force.anyone()) {
                return Ok(Ok(None));
            }
            Ok(credential.map_err(without_credential).and_then(|credential| {
                let in_force = in_force.ok_or(NotAuthorised::NoPolicy);
                let reader = in_force.and_then(|in_force| in_force.authorise(&credential, UnixTime(now)));
                reader.map(Some).map_err(|error| Refused::new(Coarse::Denied, error.code(), error))
            }))
        };
        if let Some(reader) = self.0.on_disk(check).await?? {
            tracing::info!(reader = %reader.id(), "a reader of the log");
        }
        Ok(())
    }
}

fn without_credential(error: CredentialError) -> Refused {
    let coarse = match error {
        CredentialError::Missing => Coarse::Denied,
        CredentialError::Malformed => Coarse::Malformed,
    };
    Refused::new(coarse, error.code(), error)
}

#[tonic::async_trait]
impl Audit for AuditService {
    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let (context, v1::GetCheckpointRequest {}) = enter(request);
        let read = async {
            let checkpoint = self.0.on_disk(|store| store.checkpoint()).await?;
            let checkpoint =
                checkpoint.ok_or(StoreError::NotFound { what: "checkpoint: the vault is not open yet" })?;
            Ok(v1::GetCheckpointResponse { checkpoint })
        };
        self.0.answer(context, read).await
    }

    async fn get_tile(&self, request: Request<v1::GetTileRequest>) -> Result<Response<v1::GetTileResponse>, Status> {
        let credential = reader::read(request.metadata());
        let (context, message) = enter(request);
        let read = async {
            self.check_reader(credential).await?;
            let tile: Tile =
                message.path.parse().map_err(|error| Refused::new(Coarse::Malformed, "malformed-path", error))?;
            let memory = self.0.admission.reply_memory(BUNDLE_BYTES_MAX).await?;
            let tile = self.0.on_disk(move |store| store.tile(&tile)).await?;
            memory.shrink_to(tile.len());
            Ok((v1::GetTileResponse { tile }, memory))
        };
        self.0.answer_holding(context, read).await
    }

    async fn get_entries(
        &self,
        request: Request<v1::GetEntriesRequest>,
    ) -> Result<Response<v1::GetEntriesResponse>, Status> {
        let credential = reader::read(request.metadata());
        let (context, v1::GetEntriesRequest { first, count }) = enter(request);
        let read = async {
            self.check_reader(credential).await?;
            if count == 0 || count > GET_ENTRIES_MAX {
                return Err(Refused::new(Coarse::Malformed, "malformed-count", "1 to 1024 entries can be asked for"));
            }
            let memory = self.0.admission.reply_memory(BUNDLE_BYTES_MAX + ENTRIES_BYTES as u64).await?;
            let entries = self.0.on_disk(move |store| {
                let mut entries: Vec<Vec<u8>> = Vec::new();
                let mut bytes = 0;
                while bytes < ENTRIES_BYTES && entries.len() < count as usize {
                    let next = first.saturating_add(entries.len() as u64);
                    let more = store.entries(next, count as usize - entries.len())?;
                    if more.is_empty() {
                        break;
                    }
                    bytes += more.iter().map(Vec::len).sum::<usize>();
                    entries.extend(more);
                }
                Ok(entries)
            });
            let entries = entries.await?;
            memory.shrink_to(entries.iter().map(Vec::len).sum());
            Ok((v1::GetEntriesResponse { entries }, memory))
        };
        self.0.answer_holding(context, read).await
    }

    async fn get_blob(&self, request: Request<v1::GetBlobRequest>) -> Result<Response<v1::GetBlobResponse>, Status> {
        let credential = reader::read(request.metadata());
        let (context, message) = enter(request);
        let read = async {
            self.check_reader(credential).await?;
            let digest = blob_digest(&message)?;
            let memory = self.0.admission.reply_memory(BLOB_BYTES_MAX as u64).await?;
            let blob = self.0.on_disk(move |store| store.blob(&digest)).await?;
            memory.shrink_to(blob.len());
            Ok((v1::GetBlobResponse { blob }, memory))
        };
        self.0.answer_holding(context, read).await
    }
}
