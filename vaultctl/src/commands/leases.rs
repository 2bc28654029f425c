//! `vaultctl leases`

use std::fmt;

use attestation::{Sha256Digest, UnixTime, Workload};
use ledger::state::{Lease, Vault};
use serde::Serialize;

use crate::audit;
use crate::failure::Failure;
use crate::print::{count_of, distance, moment, size};
use crate::session::Session;
use crate::words::{tier_in_words, workload_in_words};

/// The leases that run, from the verified log.
#[derive(Debug, Serialize)]
pub(crate) struct LeasesReport {
    vault: Sha256Digest,
    log_size: u64,
    log_time: UnixTime,
    now: UnixTime,
    leases: Vec<LeaseReport>,
    /// Until when the last one ends though its agent hears nothing, if all that are not revoked were revoked now.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ends_by: Option<UnixTime>,
    revocations: Vec<RevocationReport>,
}

#[derive(Debug, Serialize)]
struct LeaseReport {
    lease: Sha256Digest,
    model: String,
    version: String,
    rule: String,
    units: u32,
    bytes: u64,
    platform: Sha256Digest,
    tier: attestation::Trust,
    issued: UnixTime,
    renew_by: UnixTime,
    ends_by: UnixTime,
    /// What its guest started, where it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<Workload>,
    /// Index of the `revoke` entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<u64>,
}

#[derive(Debug, Serialize)]
struct RevocationReport {
    entry: u64,
    time: UnixTime,
    proposed_by: String,
    what: String,
}

pub(crate) async fn leases(session: &Session) -> Result<LeasesReport, Failure> {
    let file = session.vault()?;
    let remote = session.remote(&file).await?;
    let log = audit::read_log(&remote, &file).await?;
    let (vault, now) = (log.vault()?, audit::moment_of(session.now(), log.state()));
    let leases: Vec<LeaseReport> =
        vault.leases(now).map(|(id, lease)| LeaseReport::new(id, lease, vault, now)).collect();
    let revocations = vault.revocations().map(|(entry, revocation)| RevocationReport {
        entry,
        time: revocation.time,
        proposed_by: revocation.proposer.to_string(),
        what: revocation.scope.to_string(),
    });
    Ok(LeasesReport {
        vault: file.id(),
        log_size: log.state().size(),
        log_time: log.state().time(),
        now,
        last_ends_by: leases.iter().map(|lease| lease.ends_by).max(),
        leases,
        revocations: revocations.collect(),
    })
}

impl LeaseReport {
    fn new(id: Sha256Digest, lease: &Lease, vault: &Vault, now: UnixTime) -> Self {
        Self {
            lease: id,
            model: lease.model.to_string(),
            version: lease.version.to_string(),
            rule: lease.rule.to_string(),
            units: lease.units.count,
            bytes: lease.units.bytes,
            platform: lease.platform,
            tier: lease.tier,
            issued: lease.issued,
            renew_by: lease.renew_by,
            ends_by: vault.ends_by(lease, now),
            workload: lease.workload,
            revoked: lease.revoked,
        }
    }
}

/// The worst case, in a sentence without its beginning.
pub(super) fn worst_case(leases: usize, last: UnixTime, now: UnixTime) -> String {
    format!(
        "the last of {} ends by {} ({}) even if its agent hears nothing",
        count_of(leases as u64, "lease"),
        moment(last),
        distance(last, now)
    )
}

impl fmt::Display for LeasesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for lease in &self.leases {
            let units = count_of(u64::from(lease.units), "unit");
            writeln!(f, "{}  {}@{}", lease.lease, lease.model, lease.version)?;
            writeln!(f, "  {units}, {}, under {}; {}", size(lease.bytes), lease.rule, tier_in_words(lease.tier))?;
            writeln!(f, "  platform {}", lease.platform)?;
            let (issued, renew_by) = (moment(lease.issued), moment(lease.renew_by));
            writeln!(f, "  issued {issued}, renew by {renew_by} ({})", distance(lease.renew_by, self.now))?;
            if let Some(workload) = &lease.workload {
                writeln!(f, "  runs {}", workload_in_words(workload))?;
            }
            if let Some(entry) = lease.revoked {
                writeln!(f, "  REVOKED by entry {entry}; its holder has not said that it ended")?;
            }
        }
        for revocation in &self.revocations {
            let RevocationReport { entry, time, proposed_by, what } = revocation;
            writeln!(f, "revoked since {} by {proposed_by} (entry {entry}): {what}", moment(*time))?;
        }
        match self.last_ends_by {
            None => writeln!(f, "No lease runs.")?,
            Some(last) => {
                let all_revoked = self.leases.iter().all(|lease| lease.revoked.is_some());
                let worst = worst_case(self.leases.len(), last, self.now);
                match all_revoked {
                    true => writeln!(f, "All are revoked: {worst}.")?,
                    false => writeln!(f, "If all were revoked now: {worst}.")?,
                }
            }
        }
        writeln!(f, "By the verified log: {} entries, the last of {}", self.log_size, moment(self.log_time))
    }
}
