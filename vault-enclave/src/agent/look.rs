//! Finds units by the names of tensors. The headers that have them are released alone, under a lease that ends before the one
//! of the model begins, so that the keeper grants nothing that is not wanted.

use std::sync::Arc;

use ring::rand::SystemRandom;

use super::attester::AgentIdentity;
use super::child::Load;
use super::lease_signer::LeaseSigner;
use super::options::Request;
use super::part::Part;
use crate::failure::Failure;

/// Makes `request` one of units alone; `None` where `stop` came first.
///
/// # Errors
/// What the loader says, and `tensor-not-found`.
pub(super) async fn look(
    request: &mut Request,
    identity: &AgentIdentity,
    stop: impl Future<Output = ()>,
) -> Result<Option<()>, Failure> {
    if request.part.by_name().is_none() {
        return Ok(Some(()));
    }
    let signer = Arc::new(LeaseSigner::generate(&SystemRandom::new())?);
    let load = Load { request, identity, signer: &signer, into: None, owner: None, insecure_plaintext_on_disk: false };
    let Some(found) = load.look(stop).await? else { return Ok(None) };
    eprintln!(
        "found     {} tensors that match, in {} units; {} tensors are in these",
        found.matching,
        found.named.unit_count(),
        found.tensors
    );
    request.part = Part::Of(found.named);
    Ok(Some(()))
}
