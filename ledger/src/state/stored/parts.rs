//! What the state holds that entries say, and keys and names.

use std::sync::Arc;

use attestation::{AkName, HpkePublicKey, IdentityKey, LeaseKey, Sha256Digest, Trust, UnixTime, Workload};

use super::{Reader, Stored, Writer, stored};
use crate::entry::{
    AlarmEntry, BootId, Machine, PlatformAct, PlatformChange, ProposedModel, ProposedRaise, RaiseAmounts,
    ReleasedUnits, Revoke,
};
use crate::escrow::{Custodian, EscrowPlan, LogPoint, Recovery, Rollback, ShareDigests};
use crate::genesis::Genesis;
use crate::keepers::{Joiner, KeeperMachine};
use crate::key_epoch::{EpochKeys, NextEpoch};
use crate::names::Version;
use crate::permit::Permit;
use crate::reseal::Reseal;
use crate::revocation::{Marks, RevocationAct, Scope};
use crate::snapshot::SnapshotError;

stored!(Workload { program, arguments, environment, image });
stored!(BootId { ak_name, reset_count, restart_count });
stored!(PlatformChange { act, platform, label, counts_as, revision });
stored!(ProposedModel { object, model, version, manifest, model_sig, dek_record, publisher, bytes, units, not_after });
stored!(ProposedRaise { object, budget, bytes, releases, platforms, leases, until, statement, signature });
stored!(RaiseAmounts { bytes, releases, platforms, leases });
stored!(ReleasedUnits { count, bytes, digest });
stored!(KeeperMachine { instance, platform, ak_name });
stored!(Joiner { machine, hpke_key, counter_name, counter, pcrs, measurement });
stored!(Custodian { id, key });
stored!(EscrowPlan { number, epoch, threshold, custodians });
stored!(ShareDigests { sealed, check });
stored!(LogPoint { size, root });
stored!(Recovery { joiner, from, set, rollback });
stored!(EpochKeys { epoch, wrap_key, identity_key });
stored!(NextEpoch { instance, ak_name, keys });
stored!(Reseal { instance, ak_name, pcrs, measurement });

/// In JSON, as entries have them.
macro_rules! json {
    ($($type:ident, $what:literal;)*) => {$(
        impl Stored for $type {
            fn store(&self, to: &mut Writer) {
                to.json(self);
            }

            fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
                from.json($what)
            }
        }
    )*};
}

json! {
    AlarmEntry, "alarm";
    Marks, "marks";
    Permit, "permit";
    PlatformAct, "act on a platform";
    RevocationAct, "revocation";
    Revoke, "revoke entry";
    Rollback, "word on rollback";
    Scope, "scope";
    Trust, "tier";
}

/// As their bytes, and back through the check of their length and form.
macro_rules! key {
    ($($type:ident, $bytes:literal, $what:literal;)*) => {$(
        impl Stored for $type {
            fn store(&self, to: &mut Writer) {
                to.put(self.as_bytes());
            }

            fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
                Self::try_from(from.take($bytes)?).map_err(|_| SnapshotError::Malformed { what: $what })
            }
        }
    )*};
}

key! {
    AkName, 34, "name of an attestation key";
    HpkePublicKey, 1665, "wrap key";
    IdentityKey, 97, "identity key";
    LeaseKey, 32, "lease key";
}

impl Stored for Sha256Digest {
    fn store(&self, to: &mut Writer) {
        to.put(self.as_bytes());
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Stored::restore(from).map(Self::from_bytes)
    }
}

impl Stored for UnixTime {
    fn store(&self, to: &mut Writer) {
        self.seconds().store(to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Stored::restore(from).map(Self)
    }
}

impl Stored for String {
    fn store(&self, to: &mut Writer) {
        to.sized(self.as_bytes());
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        from.text("text").map(str::to_owned)
    }
}

impl Stored for Version {
    fn store(&self, to: &mut Writer) {
        to.sized(self.as_str().as_bytes());
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Self::try_from(from.text("version")?).map_err(|_| SnapshotError::Malformed { what: "version" })
    }
}

impl Stored for Arc<Genesis> {
    fn store(&self, to: &mut Writer) {
        to.sized(self.bytes());
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Genesis::parse(from.sized()?).map(Self::new).map_err(|_| SnapshotError::Malformed { what: "genesis" })
    }
}

impl Stored for Arc<Reseal> {
    fn store(&self, to: &mut Writer) {
        Reseal::store(self, to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Reseal::restore(from).map(Self::new)
    }
}

impl Stored for Arc<EscrowPlan> {
    fn store(&self, to: &mut Writer) {
        EscrowPlan::store(self, to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        EscrowPlan::restore(from).map(Self::new)
    }
}

impl Stored for Arc<Recovery> {
    fn store(&self, to: &mut Writer) {
        Recovery::store(self, to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Recovery::restore(from).map(Self::new)
    }
}

impl Stored for Arc<NextEpoch> {
    fn store(&self, to: &mut Writer) {
        NextEpoch::store(self, to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        NextEpoch::restore(from).map(Self::new)
    }
}

impl Stored for Arc<Joiner> {
    fn store(&self, to: &mut Writer) {
        Joiner::store(self, to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Joiner::restore(from).map(Self::new)
    }
}

impl Stored for Machine {
    fn store(&self, to: &mut Writer) {
        match self {
            Self::Tpm(boot) => {
                0u8.store(to);
                boot.store(to);
            }
            Self::Snp { report_id } => {
                1u8.store(to);
                report_id.store(to);
            }
            Self::SnpVtpm { report_id, vtpm } => {
                2u8.store(to);
                report_id.store(to);
                vtpm.store(to);
            }
        }
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        match u8::restore(from)? {
            0 => Stored::restore(from).map(Self::Tpm),
            1 => Ok(Self::Snp { report_id: Stored::restore(from)? }),
            2 => Ok(Self::SnpVtpm { report_id: Stored::restore(from)?, vtpm: Stored::restore(from)? }),
            _ => Err(SnapshotError::Malformed { what: "machine" }),
        }
    }
}
