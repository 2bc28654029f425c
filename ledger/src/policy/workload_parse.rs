//! Reads `workloads`.

use attestation::Sha256Digest;

use super::error::{PolicyError, PolicyProblem};
use super::fields::Fields;
use super::rules::Permitted;
use super::value;
use super::workload::{WorkloadPin, WorkloadRule};

/// The key of a release rule, which may be left out: then nothing is asked.
pub(super) fn rule(fields: &mut Fields) -> Result<WorkloadRule, PolicyError> {
    if !fields.has("workloads") {
        return Ok(WorkloadRule::NotAsked);
    }
    let Some(list) = fields.any_or_tables("workloads")? else { return Ok(WorkloadRule::Asked(Permitted::Any)) };
    let mut pins: Vec<WorkloadPin> = Vec::new();
    for fields in list {
        let key = fields.path().to_owned();
        let pin = pin(fields)?;
        if pins.contains(&pin) {
            return Err(PolicyError { key, problem: PolicyProblem::ItemRepeated });
        }
        pins.push(pin);
    }
    Ok(WorkloadRule::Asked(Permitted::Only(pins)))
}

fn pin(mut fields: Fields) -> Result<WorkloadPin, PolicyError> {
    let key = fields.path().to_owned();
    let program = digest(&mut fields, "program")?;
    let arguments = digest(&mut fields, "arguments")?;
    let environment = digest(&mut fields, "environment")?;
    let image = digest(&mut fields, "image")?;
    fields.finish()?;
    let open = |problem| PolicyError { key: key.clone(), problem };
    let program = program.ok_or_else(|| open(PolicyProblem::WorkloadOpen))?;
    let environment = environment.ok_or_else(|| open(PolicyProblem::WorkloadEnvironmentOpen))?;
    Ok(WorkloadPin { program, arguments, environment, image })
}

/// `"any"`, spelled out, or a digest.
fn digest(fields: &mut Fields, key: &str) -> Result<Option<Sha256Digest>, PolicyError> {
    let field = fields.text(key)?;
    if field.value == "any" {
        return Ok(None);
    }
    let refused = |_| field.refuse(PolicyProblem::WorkloadDigestMalformed);
    value::digest(&field).map(Some).map_err(refused)
}
