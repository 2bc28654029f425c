//! What an approver of a model checks before he is asked: the manifest and the publisher's signature, by himself.

use std::fmt::Display;

use attestation::Sha256Digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ledger::entry::ProposedModel;
use ledger::manifest::{DEK_NAME, Manifest};
use ledger::model_signature;
use ledger::state::Vault;
use serde_json::Value;

use crate::client::Remote;
use crate::failure::{Failure, Kind};

/// Fetches manifest and signature by the digests that the object names, and checks that the proposal says of them what is
/// true: vault, name, version, publisher, size, and that the publisher signed exactly these files.
pub(super) async fn check(remote: &Remote, vault: &Vault, proposed: &ProposedModel) -> Result<(), Failure> {
    let manifest = remote.blob(proposed.manifest).await?;
    let signature = remote.blob(proposed.model_sig).await?;
    check_blobs(vault, proposed, &manifest, &signature)
}

/// The same without the host. The blobs have the digests that the proposal names.
fn check_blobs(vault: &Vault, proposed: &ProposedModel, manifest: &[u8], signature: &[u8]) -> Result<(), Failure> {
    let manifest = Manifest::parse(manifest).map_err(|error| refused(error.code(), error))?;
    let id = manifest.id();
    let same = [
        ("the vault", id.vault == vault.id()),
        ("the model", id.model == proposed.model),
        ("the version", id.version == proposed.version),
        ("the publisher", id.publisher == proposed.publisher),
        ("the number of bytes", manifest.total_bytes() == proposed.bytes),
        ("the number of units", u32::try_from(manifest.units().len()) == Ok(proposed.units)),
    ];
    if let Some((field, _)) = same.into_iter().find(|(_, same)| !same) {
        return Err(refused("model-manifest-mismatch", format!("{field} is another in the manifest than proposed")));
    }
    let rules = vault.policy().publish_rules().values().filter(|rule| rule.covers(&proposed.model, proposed.publisher));
    let key = rules.flat_map(|rule| &rule.keys).find(|key| key.digest() == proposed.publisher);
    let key = key.ok_or_else(|| refused("model-publisher-unknown", "no publish rule lets this publisher's key in"))?;
    let dek = signed_dek(signature).ok_or_else(|| refused("model-signature-malformed", "it names no dek.hpke"))?;
    model_signature::verify(signature, key, &manifest.signed_files(dek)).map_err(|error| refused(error.code(), error))
}

/// The digest of `dek.hpke` by the bundle itself, not verified: only a bundle that is signed over exactly this digest and
/// all the others passes afterwards. Nobody but the keeper can say whether the wrapped key is a good one.
fn signed_dek(bundle: &[u8]) -> Option<Sha256Digest> {
    let bundle: Value = serde_json::from_slice(bundle).ok()?;
    let payload = BASE64_STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str()?).ok()?;
    let payload: Value = serde_json::from_slice(&payload).ok()?;
    let resources = payload["predicate"]["resources"].as_array()?;
    let dek = resources.iter().find(|resource| resource["name"].as_str() == Some(DEK_NAME))?;
    format!("sha256:{}", dek["digest"].as_str()?).parse().ok()
}

fn refused(code: &str, why: impl Display) -> Failure {
    Failure::new(Kind::NotVerified, code, "the proposed model is not what the proposal says")
        .why(why)
        .next("do not approve it; ask its publisher")
}
