//! Leases in bytes.

use std::sync::Arc;

use attestation::Sha256Digest;

use super::{Lease, Leases, Running};
use crate::names::Name;
use crate::policy::Policy;
use crate::snapshot::SnapshotError;
use crate::state::stored::{Reader, Stored, Writer};

/// The rule is that of its name in the policy that it was granted under.
impl Stored for Lease {
    fn store(&self, to: &mut Writer) {
        let Self {
            entry,
            rule,
            granted_under: _,
            model,
            version,
            units,
            lease_key,
            platform,
            machine,
            tier,
            marks,
            workload,
            revoked,
            extended,
            issued,
            renew_by,
            seconds,
            policy,
        } = self;
        policy.store(to);
        rule.store(to);
        entry.store(to);
        model.store(to);
        version.store(to);
        units.store(to);
        lease_key.store(to);
        platform.store(to);
        machine.store(to);
        tier.store(to);
        marks.store(to);
        workload.store(to);
        revoked.store(to);
        extended.store(to);
        issued.store(to);
        renew_by.store(to);
        seconds.store(to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let (policy, rule): (Arc<Policy>, Name) = Stored::restore(from)?;
        let granted_under = policy.release_rule(&rule).ok_or(SnapshotError::Malformed { what: "rule of a lease" })?;
        Ok(Self {
            granted_under: Arc::clone(granted_under),
            rule,
            entry: Stored::restore(from)?,
            model: Stored::restore(from)?,
            version: Stored::restore(from)?,
            units: Stored::restore(from)?,
            lease_key: Stored::restore(from)?,
            platform: Stored::restore(from)?,
            machine: Stored::restore(from)?,
            tier: Stored::restore(from)?,
            marks: Stored::restore(from)?,
            workload: Stored::restore(from)?,
            revoked: Stored::restore(from)?,
            extended: Stored::restore(from)?,
            issued: Stored::restore(from)?,
            renew_by: Stored::restore(from)?,
            seconds: Stored::restore(from)?,
            policy,
        })
    }
}

/// Each lease with its id and whether it still counts as running; the counters follow.
impl Stored for Leases {
    fn store(&self, to: &mut Writer) {
        let Self { by_id, running, lapsed: _ } = self;
        let Running { by_end, count_by_rule: _, tally: _ } = running;
        by_id.len().store(to);
        for (id, lease) in by_id {
            id.store(to);
            by_end.contains(&(lease.renew_by, *id)).store(to);
            lease.store(to);
        }
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let mut leases = Self::default();
        for _ in 0..from.count()? {
            let (id, runs): (Sha256Digest, bool) = Stored::restore(from)?;
            let lease = Lease::restore(from)?;
            match runs {
                true => leases.running.insert(id, &lease),
                false => drop(leases.lapsed.insert((lease.renew_by, id))),
            }
            leases.by_id.insert(id, lease);
        }
        Ok(leases)
    }
}
