//! A sealed model as far as a host can see: a manifest, and units of the right lengths.

use std::sync::Arc;

use attestation::Sha256Digest;
use ledger::approvals::model_object;
use ledger::entry::{Entry, ModelPublished};
use ledger::manifest::{Blake3Digest, FilePath, Manifest, ModelId, Plan, PlanUnit, SealedDigests};
use ledger::names::Group;
use tonic::Status;
use tonic::transport::Channel;
use vault_proto::convert::UnitUpload;
use vault_proto::v1::provision_client::ProvisionClient;
use vault_proto::v1::{PublishModelRequest, UploadUnitRequest};

use crate::keeper::{Call, Reply};

#[derive(Clone)]
pub struct SealedModel {
    pub manifest: Manifest,
    pub units: Vec<Arc<Vec<u8>>>,
    pub signature: Vec<u8>,
}

impl SealedModel {
    /// Units of these plaintext lengths, with contents that depend on `seed`.
    pub fn new(model: &str, version: &str, lengths: &[u64], seed: u8) -> Self {
        let unit = |(index, length): (usize, &u64)| PlanUnit {
            file: FilePath::try_from(format!("part-{index:05}").as_str()).unwrap(),
            offset: 0,
            length: *length,
            group: Group::try_from("files").unwrap(),
        };
        let plan = Plan::new(lengths.iter().enumerate().map(unit).collect()).unwrap();
        let units: Vec<_> = plan.units().iter().zip(0u8..).map(|(unit, index)| sealed(unit, seed, index)).collect();
        let digests = units
            .iter()
            .map(|bytes| SealedDigests { sha256: Sha256Digest::of(bytes), blake3: Blake3Digest::from_bytes([0; 32]) });
        let id = ModelId {
            vault: Sha256Digest::of(b"vault"),
            model: model.parse().unwrap(),
            version: version.parse().unwrap(),
            publisher: Sha256Digest::of(b"publisher"),
        };
        let manifest = Manifest::build(id, plan, digests.collect()).unwrap();
        Self { manifest, units, signature: vec![seed; 300] }
    }

    pub fn upload(&self, index: usize) -> UnitUpload {
        let unit = self.units.get(index).unwrap();
        UnitUpload { manifest: self.manifest.digest(), sealed: Sha256Digest::of(unit), bytes: unit.len() as u64 }
    }

    pub fn object(&self) -> Sha256Digest {
        let id = self.manifest.id();
        model_object(&id.model, &id.version, self.manifest.digest(), Sha256Digest::of(&self.signature))
    }

    /// The log entry that makes it a model.
    pub fn entry(&self) -> Vec<u8> {
        let published = ModelPublished {
            time: attestation::UnixTime(7),
            proposal: 1,
            object: self.object(),
            model: self.manifest.id().model.clone(),
            version: self.manifest.id().version.clone(),
        };
        Entry::Model(published).encode().unwrap()
    }

    pub fn publication(&self) -> PublishModelRequest {
        PublishModelRequest {
            manifest: self.manifest.bytes().to_vec(),
            dek: vec![1; vault_proto::limits::DEK_BYTES],
            model_signature: self.signature.clone(),
        }
    }

    pub async fn upload_all(&self, client: &mut ProvisionClient<Channel>) {
        for index in 0..self.units.len() {
            let stored = upload(client, self.upload(index), 0, &self.units[index]).await.unwrap();
            assert_eq!(stored, self.units[index].len() as u64);
        }
    }
}

fn sealed(unit: &PlanUnit, seed: u8, index: u8) -> Arc<Vec<u8>> {
    let mut state = u32::from(seed) << 8 | u32::from(index);
    let byte = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    Arc::new((0..unit.sealed_len()).map(byte).collect())
}

/// Uploads `bytes` of a unit from `offset` on.
pub async fn upload(
    client: &mut ProvisionClient<Channel>,
    unit: UnitUpload,
    offset: u64,
    bytes: &[u8],
) -> Result<u64, Status> {
    let first = UploadUnitRequest { unit: Some(unit.into()), offset, data: Default::default() };
    let pieces =
        bytes.chunks(256 << 10).map(|piece| UploadUnitRequest { unit: None, offset: 0, data: piece.to_vec().into() });
    let messages: Vec<_> = std::iter::once(first).chain(pieces).collect();
    Ok(client.upload_unit(tokio_stream::iter(messages)).await?.into_inner().offset)
}

/// A keeper that takes every publication.
pub fn proposes(call: Call) -> Option<Reply> {
    match call {
        Call::PublishModel(_) => Some(Reply::PublishModel(Default::default())),
        other => panic!("{other:?}"),
    }
}
