//! An event log and PCR values that nobody signed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::captured::{Answer, Refusal, Verdict};
use crate::captured::{BootHolds, read_event_log, read_pcrs};
use crate::cli::EvidenceVerifyArgs;
use crate::failure::{Failure, Kind};
use crate::words::BootSays;

const UNSIGNED: &str =
    "nobody signed these PCR values: with --kind tpm or azure-snp-vtpm the log is held against a quote";

/// What a log says that leads to the PCR values beside it.
#[derive(Debug, Serialize)]
pub(super) struct BootShown {
    events: usize,
    /// PCRs whose values the log leads to.
    pcrs: Vec<u32>,
    /// PCRs with other values: extended later, by something that has no events here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pcrs_extended_later: Vec<u32>,
    #[serde(flatten)]
    says: BootSays,
}

/// Every failure is wrong use here: exit code 1 stands for a refused log alone.
pub(crate) fn verify(args: &EvidenceVerifyArgs) -> Result<Verdict, Failure> {
    let beside = &args.beside;
    let usage = |what: &str, next: &str| Failure::new(Kind::Usage, "evidence-arguments", what).next(next);
    let (Some(log), Some(pcrs)) = (&beside.event_log, &beside.pcrs) else {
        return Err(usage(
            "a log is compared with PCR values",
            "give --event-log and --pcrs; `vaultctl evidence show FILE` explains a log that comes alone",
        ));
    };
    let more = args.report.is_some() || beside.quote.is_some() || args.policy.is_some() || args.report_data.is_some();
    if more || args.extra_data.is_some() {
        return Err(usage(
            "a log alone has no report, quote or challenge, and no rule can be held against it",
            "give --event-log and --pcrs alone, or say --kind tpm",
        ));
    }
    let log = read_event_log(log)?;
    let values: BTreeMap<u32, [u8; 32]> = read_pcrs(pcrs, None)?.into_iter().collect();
    let answer = match BootHolds::of(&log, &values) {
        Ok(boot) => Answer::Log { boot: Box::new(boot.into()) },
        Err(error) => Answer::Refusal(Refusal::of_log(&error, &log, &values)),
    };
    Ok(Verdict {
        verified: matches!(answer, Answer::Log { .. }),
        kind: "event-log",
        now: None,
        policy: "none".to_owned(),
        rule: None,
        freshness: "not checked",
        notes: vec![UNSIGNED],
        answer,
    })
}

impl From<BootHolds> for BootShown {
    fn from(boot: BootHolds) -> Self {
        Self { events: boot.events, pcrs: boot.agreed, pcrs_extended_later: boot.other, says: boot.says }
    }
}
