//! `vaultctl propose reseal`

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use attestation::Sha256Digest;
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::reseal::Reseal;
use ledger::state::Vault;
use serde::{Deserialize, Serialize};
use vault_proto::convert::ResealSubmission;

use super::{Submission, check_object};
use crate::audit;
use crate::cli::{ProposeResealArgs, hex_of};
use crate::failure::{Failure, Kind};
use crate::session::{Session, read_text};
use crate::signing::{self, Signed};
use crate::words::reseal_in_words;

/// The longest output of `vaultctl measure pcr`.
const MEASURED_BYTES_MAX: usize = 64 << 10;

/// A boot state that was proposed.
#[derive(Debug, Serialize)]
pub(crate) struct ResealReport {
    object: Sha256Digest,
    pcrs: BTreeMap<u32, String>,
    /// Those that were given nowhere: the policy in force allows one value.
    from_policy: Vec<u32>,
    proposed_by: String,
    threshold: u32,
    entry: u64,
}

type Pcrs = BTreeMap<u32, [u8; 32]>;

pub(crate) async fn reseal(session: &Session, args: &ProposeResealArgs) -> Result<Submission<ResealReport>, Failure> {
    let vault_file = session.vault()?;
    let given = given(args)?;
    let remote = session.remote_of_signer(&vault_file, &args.signing).await?;
    let log = audit::read_log(&remote, &vault_file).await?;
    let vault = log.vault()?;
    let (pcrs, from_policy) = complete(vault, given)?;
    let keeper = vault.keepers().current();
    let reseal = Reseal { instance: keeper.instance, ak_name: keeper.ak_name, pcrs, measurement: args.measurement };
    reseal.check(vault.genesis(), keeper, vault.policy()).map_err(|error| {
        Failure::new(Kind::Usage, error.code(), "the keeper of this vault can't be sealed to that").why(error)
    })?;
    let object = reseal.object(vault.reseal_revision());
    let approvers = &vault.policy().approval().approvers;
    signing::check_approver(&args.signing, approvers)?;
    session.review(&reseal_in_words(&reseal, vault).join("\n"));
    let statement = ApprovalStatement {
        action: ApprovalAction::ProposeReseal,
        object,
        previous: vault.policy().digest(),
        vault: vault.id(),
        serial: vault.policy().serial(),
        not_after: session.now().plus(args.signing.expires),
    };
    let signature = match signing::obtain(&args.signing, &statement, approvers, session)? {
        Signed::Later(printed) => return Ok(Submission::Printed(printed)),
        Signed::Now(signature) => signature,
    };
    let report = |threshold, entry| ResealReport {
        object,
        pcrs: reseal.pcrs.iter().map(|(index, value)| (*index, hex::encode(value))).collect(),
        from_policy,
        proposed_by: signature.approver.to_string(),
        threshold,
        entry,
    };
    let submission = ResealSubmission {
        reseal: reseal.clone(),
        statement: signature.statement.clone(),
        signature: signature.armored.clone(),
    };
    let proposal = remote.submit_reseal(submission).await?;
    check_object(&proposal, object)?;
    Ok(Submission::Made(report(proposal.threshold, proposal.entry)))
}

/// What the caller says, each PCR once.
fn given(args: &ProposeResealArgs) -> Result<Given, Failure> {
    let measured = match &args.pcrs {
        Some(path) => measured(path, &read_text(path, MEASURED_BYTES_MAX)?)?,
        None => Pcrs::new(),
    };
    let mut named = Pcrs::new();
    for (index, value) in &args.pcr {
        if named.insert(*index, *value).is_some() || measured.get(index).is_some_and(|other| other != value) {
            return Err(Failure::new(Kind::Usage, "pcr-twice", format!("two values are given for PCR {index}"))
                .next("give the one that the boot to come leaves there"));
        }
    }
    Ok(Given { measured, named })
}

struct Given {
    /// A file may have more than the keeper is sealed to.
    measured: Pcrs,
    /// Each of these is meant.
    named: Pcrs,
}

/// Reads what `vaultctl measure pcr` printed: JSON, or its lines `PCR 11 HEX`.
fn measured(path: &Path, text: &str) -> Result<Pcrs, Failure> {
    #[derive(Deserialize)]
    struct Report {
        pcrs: BTreeMap<String, String>,
    }
    let rows: Option<Vec<(String, String)>> = match text.trim_start().starts_with('{') {
        true => serde_json::from_str::<Report>(text).ok().map(|report| report.pcrs.into_iter().collect()),
        false => Some(text.lines().filter_map(row).collect()),
    };
    let parse = |(index, value): (String, String)| {
        let index = (0..24).find(|known: &u32| known.to_string() == index)?;
        Some((index, hex_of(&value)?))
    };
    let values: Option<Vec<(u32, [u8; 32])>> = rows.and_then(|rows| rows.into_iter().map(parse).collect());
    let count = values.as_ref().map_or(0, Vec::len);
    let pcrs: Pcrs = values.into_iter().flatten().collect();
    if pcrs.is_empty() || pcrs.len() != count {
        return Err(Failure::new(Kind::Usage, "pcrs-unreadable", format!("{} has no PCR values", path.display()))
            .next("give what `vaultctl measure pcr` prints, or single values with --pcr INDEX=HEX"));
    }
    Ok(pcrs)
}

fn row(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace();
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("PCR"), Some(index), Some(value), None) if value.len() == 64 => {
            Some((index.to_owned(), value.to_owned()))
        }
        _ => None,
    }
}

/// Exactly the PCRs that a keeper of this vault is sealed to, and which of them the policy in force gave: where it allows one
/// value, there is no other that the keeper could start with.
fn complete(vault: &Vault, given: Given) -> Result<(Pcrs, Vec<u32>), Failure> {
    let selection = vault.genesis().policy().keeper().tpm().pcrs.selection();
    if let Some(index) = given.named.keys().find(|index| !selection.contains(**index)) {
        let named: Vec<String> = selection.iter().map(|index| index.to_string()).collect();
        return Err(Failure::new(
            Kind::Usage,
            "reseal-pcr-selection",
            format!("the keeper is not sealed to PCR {index}"),
        )
        .why(format!("`keeper.pcrs` of the first policy names the PCRs {}", named.join(", "))));
    }
    let allowed = vault.policy().keeper().tpm().pcrs.allowed();
    let (mut pcrs, mut from_policy, mut missing) = (Pcrs::new(), Vec::new(), Vec::new());
    for index in selection.iter() {
        let value = given.named.get(&index).or_else(|| given.measured.get(&index)).copied();
        let only = allowed.get(&index).filter(|values| values.len() == 1).and_then(|values| values.first());
        match (value, only) {
            (Some(value), _) => drop(pcrs.insert(index, value)),
            (None, Some(only)) => {
                pcrs.insert(index, *only);
                from_policy.push(index);
            }
            (None, None) => missing.push(format!("--pcr {index}=HEX")),
        }
    }
    if missing.is_empty() {
        return Ok((pcrs, from_policy));
    }
    Err(Failure::new(Kind::Usage, "reseal-pcr-selection", "PCRs are missing that the policy allows several values of")
        .next(format!("give {} too; `vaultctl status` shows the present values", missing.join(" "))))
}

impl fmt::Display for ResealReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} proposed to seal the keeper to another boot state (entry {}).", self.proposed_by, self.entry)?;
        writeln!(f, "  object: {}", self.object)?;
        for (index, value) in &self.pcrs {
            let note =
                if self.from_policy.contains(index) { "  (given nowhere: all that the policy allows)" } else { "" };
            writeln!(f, "  PCR {index:2} {value}{note}")?;
        }
        writeln!(f, "Next: {} approvers run", self.threshold)?;
        writeln!(f, "  vaultctl approve {} --vault FILE --key KEY", self.object)?;
        writeln!(f, "Reboot only once `vaultctl status` says that the record for the next boot is written.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Pcrs, Failure> {
        measured(Path::new("measured"), text)
    }

    #[test]
    fn both_forms_of_measure_pcr_are_read() {
        let value = "ab".repeat(32);
        let text = format!("PCR  4 {value}\nPCR 11 {value}\nPCR 9 is left out: it is\n\nFor [keeper]:\npcrs = {{ }}\n");
        let json = format!(r#"{{"pcrs":{{"4":"{value}","11":"{value}"}},"notes":[],"policy":"x"}}"#);
        let expected: Pcrs = [(4, [0xab; 32]), (11, [0xab; 32])].into();
        for form in [text, json] {
            assert_eq!(read(&form).unwrap(), expected);
        }
    }

    #[test]
    fn a_file_without_pcrs_or_with_one_twice_or_malformed_is_refused() {
        let value = "ab".repeat(32);
        for wrong in [
            String::new(),
            "PCR 4 is left out\n".to_owned(),
            format!("PCR 4 {value}\nPCR 4 {value}\n"),
            format!("PCR 24 {value}\n"),
            format!("PCR 4 {}\n", value.to_uppercase()),
            r#"{"pcrs":{"4":"ab"}}"#.to_owned(),
            r#"{"pcrs":4}"#.to_owned(),
        ] {
            assert_eq!(read(&wrong).unwrap_err().code(), "pcrs-unreadable", "{wrong}");
        }
    }
}
