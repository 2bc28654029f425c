//! `[witnesses]` from its text.

use super::error::{PolicyError, PolicyProblem};
use super::fields::{Field, Fields};
use crate::cosignature::{WitnessKey, WitnessPolicy, WitnessPolicyError};

/// The witnesses of the vault, where the policy names any. All three keys have to be there: no number of them is safe for
/// every vault.
pub(super) fn witnesses(root: &mut Fields) -> Result<Option<WitnessPolicy>, PolicyError> {
    if !root.has("witnesses") {
        return Ok(None);
    }
    let mut fields = root.table("witnesses")?;
    let keys = fields.texts("keys")?;
    let (quorum, faulty) = (fields.count("quorum")?, fields.count("faulty")?);
    let keys_key = fields.key("keys");
    fields.finish()?;
    let parsed: Vec<WitnessKey> = keys.iter().map(witness).collect::<Result<_, _>>()?;
    WitnessPolicy::new(parsed, number(&quorum), number(&faulty)).map(Some).map_err(|error| {
        let key = match &error {
            WitnessPolicyError::Count { .. }
            | WitnessPolicyError::NameRepeated { .. }
            | WitnessPolicyError::KeyRepeated { .. } => keys_key,
            WitnessPolicyError::QuorumUnreachable { .. } | WitnessPolicyError::QuorumTooSmall { .. } => quorum.key,
        };
        PolicyError { key, problem: PolicyProblem::WitnessesRefused(error) }
    })
}

fn witness(field: &Field<String>) -> Result<WitnessKey, PolicyError> {
    WitnessKey::parse(&field.value).map_err(|error| field.refuse(PolicyProblem::WitnessKeyRefused(error)))
}

/// A number that no set of witnesses has is refused by the set.
fn number(field: &Field<u64>) -> usize {
    usize::try_from(field.value).unwrap_or(usize::MAX)
}
