//! A `deny` entry of a log, decided again.

use std::fmt;

use attestation::{Sha256Digest, UnixTime};
use ledger::entry::{Action, Deny, Entry, Proposal};
use ledger::policy::line_of;
use ledger::state::Vault;
use serde::Serialize;

use crate::commands::audit::PastLog;
use crate::failure::{Failure, Kind};
use crate::past::{self, Denied, Why};
use crate::print::moment;

/// A refusal, and what would have made it pass.
#[derive(Debug, Serialize)]
pub(crate) struct EntryExplained {
    index: u64,
    time: UnixTime,
    code: String,
    action: Action,
    rule: String,
    model: String,
    platform: Sha256Digest,
    policy: Sha256Digest,
    policy_serial: u64,
    /// Where the decision comes out the same again.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Why>,
    /// Where the policy says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<Line>,
    /// Why it could not be decided again.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_replayed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    number: usize,
    text: String,
}

/// What is known of the entry before the text of its policy is looked for.
struct Found {
    deny: Deny,
    denied: Denied,
    policy: (Sha256Digest, u64),
}

pub(super) fn explain_entry(log: &PastLog, index: u64) -> Result<EntryExplained, Failure> {
    // Where the text of the policy in force stands: in the genesis, or in a proposal.
    let (mut text_at, mut found) = (0, None);
    log.fold(|before, entry| {
        if found.is_some() {
            return Ok(());
        }
        if let Entry::Policy(effect) = entry {
            text_at = effect.proposal;
        }
        if before.size() == index {
            found = Some(look(log, index, before.vault(), entry)?);
        }
        Ok(())
    })?;
    let found = match found {
        Some(found) => found,
        None => return log.entry(index).and_then(|entry| Err(not_a_denial(index, entry.type_name()))),
    };
    let text = policy_text(log.entry(text_at)?);
    Ok(found.explained(index, text.as_deref()))
}

fn policy_text(entry: Entry) -> Option<String> {
    if let Entry::Genesis(genesis) = entry {
        return Some(genesis.policy);
    }
    let Entry::Propose(propose) = entry else { return None };
    match propose.proposal {
        Proposal::Policy(proposed) => Some(proposed.policy),
        Proposal::Model(_)
        | Proposal::Platform(_)
        | Proposal::Reseal(_)
        | Proposal::KeeperJoin(_)
        | Proposal::Escrow(_)
        | Proposal::Recover(_)
        | Proposal::KeeperLeave(_)
        | Proposal::KeyEpoch(_)
        | Proposal::Budget(_)
        | Proposal::Revocation(_)
        | Proposal::Permit(_) => None,
    }
}

fn look(log: &PastLog, index: u64, vault: Option<&Vault>, entry: &Entry) -> Result<Found, Failure> {
    let (Entry::Deny(deny), Some(vault)) = (entry, vault) else {
        return Err(not_a_denial(index, entry.type_name()));
    };
    let evidence = log.bundle().blob(deny.evidence);
    let captured = evidence.as_deref().and_then(past::evidence_of);
    Ok(Found {
        denied: past::explain(deny, vault, captured.as_ref()),
        policy: (vault.policy().digest(), vault.policy().serial()),
        deny: deny.clone(),
    })
}

fn not_a_denial(index: u64, type_name: &str) -> Failure {
    Failure::new(Kind::Usage, "entry-not-a-refusal", format!("entry {index} is no refusal"))
        .why(format!("it is of type {type_name}"))
        .next("`vaultctl log show` lists the entries: those of type deny are refusals")
}

impl Found {
    fn explained(self, index: u64, text: Option<&str>) -> EntryExplained {
        let Self { deny, denied, policy: (policy, policy_serial) } = self;
        let (why, not_replayed) = match denied {
            Denied::ByPolicy(why) => (Some(*why), None),
            Denied::ByUnits(why) => (Some(*why), Some("which units were asked for is not in the log".to_owned())),
            Denied::NotByPolicy => {
                (None, Some("no policy decides this: it follows from the request and the log".to_owned()))
            }
            Denied::Unexplained { why } => (None, Some(why)),
        };
        let key = why.as_ref().and_then(|why| why.policy_key.as_deref());
        let number = text.zip(key).and_then(|(text, key)| line_of(text, key));
        let line = text.zip(number).and_then(|(text, number)| {
            let text = text.lines().nth(number - 1)?.trim().to_owned();
            Some(Line { number, text })
        });
        EntryExplained {
            index,
            time: deny.time,
            code: deny.code.to_string(),
            action: deny.action,
            rule: deny.rule.to_string(),
            model: format!("{}@{}", deny.model, deny.version),
            platform: deny.platform,
            policy,
            policy_serial,
            why,
            line,
            not_replayed,
        }
    }
}

impl fmt::Display for EntryExplained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, code, model, platform, rule, .. } = self;
        let action = match self.action {
            Action::Load => "load",
            Action::Renew => "renewal",
        };
        writeln!(f, "entry {index}, {}: {action} of {model} under {rule} was refused: {code}", moment(self.time))?;
        writeln!(f, "  platform: {platform}")?;
        writeln!(f, "  policy:   serial {}, {}", self.policy_serial, self.policy)?;
        if let Some(why) = &self.why {
            writeln!(f, "  claim:    {}", why.claim)?;
            writeln!(f, "  expected: {}", why.expected)?;
            writeln!(f, "  seen:     {}", why.seen)?;
            if let Some(key) = &why.policy_key {
                writeln!(f, "  key:      {key}")?;
            }
            if let Some(line) = &self.line {
                writeln!(f, "  line {:>4}: {}", line.number, line.text)?;
            }
            why.facts.iter().try_for_each(|fact| writeln!(f, "  then:     {fact}"))?;
            writeln!(f, "  would pass if {}", why.remedy)?;
            why.propose.iter().try_for_each(|command| writeln!(f, "  propose:  {command}"))?;
        }
        match &self.not_replayed {
            Some(not) => writeln!(f, "  not decided again: {not}"),
            None => writeln!(f, "  decided again from the log and its evidence: the same"),
        }
    }
}
