//! Reads a `boot` section.

use attestation::{RootHash, verity_root_hashes};

use super::boot::{BootRule, CommandLines, SecureBoot};
use super::error::{PolicyError, PolicyProblem};
use super::fields::{Field, Fields};
use super::rules::Permitted;
use super::value;

/// Stands in a command line for each of `verity_root_hashes`.
const PLACEHOLDER: &str = "{verity_root_hash}";
/// Command lines of a rule, root hashes filled in.
const COMMAND_LINES_MAX: usize = 64;
/// COMMAND_LINE_SIZE of Linux on x86-64.
const COMMAND_LINE_BYTES_MAX: usize = 2048;

/// The section. Keys that would change nothing are unknown: `initrds` and `verity_root_hashes` beside any command line.
pub(super) fn rule(mut fields: Fields) -> Result<BootRule, PolicyError> {
    let key = fields.path().to_owned();
    let secure_boot = match fields.yes_or_no("secure_boot")?.value {
        true => SecureBoot::Required,
        false => SecureBoot::NotAsked,
    };
    let images = match fields.any_or_texts("images")? {
        None => Permitted::Any,
        Some(images) => Permitted::Only(images.iter().map(value::digest).collect::<Result<_, _>>()?),
    };
    let command_lines = match fields.any_or_texts("command_lines")? {
        None => None,
        Some(lines) => Some(command_lines(&mut fields, &lines)?),
    };
    fields.finish()?;
    if secure_boot == SecureBoot::NotAsked && images == Permitted::Any && command_lines.is_none() {
        return Err(PolicyError { key, problem: PolicyProblem::BootEmpty });
    }
    Ok(BootRule { secure_boot, images, command_lines })
}

fn command_lines(fields: &mut Fields, lines: &[Field<String>]) -> Result<CommandLines, PolicyError> {
    let initrds = fields.none_or_texts("initrds")?.iter().map(value::digest).collect::<Result<_, _>>()?;
    let roots = fields.any_or_texts("verity_root_hashes")?;
    let mut filled = Vec::new();
    for line in lines {
        let printable = line.value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if line.value.is_empty() || line.value.len() > COMMAND_LINE_BYTES_MAX || !printable {
            return Err(line.refuse(PolicyProblem::CommandLineMalformed));
        }
        fill_in(line, roots.as_deref(), &mut filled)?;
    }
    if let Some(unnamed) = roots.iter().flatten().find(|root| !filled.iter().any(|line| names(line, &root.value))) {
        return Err(unnamed.refuse(PolicyProblem::VerityRootUnused));
    }
    let verity_root_hashes = roots.map(|roots| roots.into_iter().map(|root| root.value).collect());
    Ok(CommandLines { lines: filled, initrds, verity_root_hashes })
}

/// The line with each root hash in its place. Where root hashes are listed it must name one, and no other.
fn fill_in(line: &Field<String>, roots: Option<&[Field<String>]>, filled: &mut Vec<String>) -> Result<(), PolicyError> {
    let roots = roots.unwrap_or_default();
    roots.iter().try_for_each(check_root)?;
    let has_place = line.value.contains(PLACEHOLDER);
    let lines: Vec<String> = match has_place {
        true => roots.iter().map(|root| line.value.replace(PLACEHOLDER, &root.value)).collect(),
        false => vec![line.value.clone()],
    };
    let listed = |named: &RootHash| roots.iter().any(|root| root.value == named.hex);
    for text in lines {
        let named = verity_root_hashes(&text);
        if !roots.is_empty() && (named.is_empty() || !named.iter().all(listed)) {
            return Err(line.refuse(PolicyProblem::VerityRootMissing));
        }
        if !filled.contains(&text) {
            filled.push(text);
        }
    }
    if has_place && roots.is_empty() {
        return Err(line.refuse(PolicyProblem::VerityRootMissing));
    }
    if filled.len() > COMMAND_LINES_MAX {
        return Err(line.refuse(PolicyProblem::CommandLinesTooMany { max: COMMAND_LINES_MAX }));
    }
    Ok(())
}

/// 64 to 128 lower-case hex digits: the digests that dm-verity is used with.
fn check_root(field: &Field<String>) -> Result<(), PolicyError> {
    let digits = field.value.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    match (64..=128).contains(&field.value.len()) && field.value.len().is_multiple_of(2) && digits {
        true => Ok(()),
        false => Err(field.refuse(PolicyProblem::VerityRootMalformed)),
    }
}

fn names(line: &str, root: &str) -> bool {
    verity_root_hashes(line).iter().any(|named| named.hex == root)
}
