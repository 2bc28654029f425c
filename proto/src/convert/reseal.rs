//! The keeper's boot states: proposed, and what its root is sealed to.

use std::collections::BTreeMap;

use ledger::reseal::Reseal;

use super::evidence::{quoted_pcrs, wire_pcr};
use super::{Fault, WireError, bytes, exact, key, text};
use crate::limits::{APPROVAL_BYTES_MAX, SSHSIG_BYTES_MAX};
use crate::v1;

/// A proposed boot state with its proposer's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResealSubmission {
    /// The boot state.
    pub reseal: Reseal,
    /// Approval statement with action `propose-reseal`, exact bytes.
    pub statement: Vec<u8>,
    /// Armored SSHSIG.
    pub signature: String,
}

/// What a keeper says that its root is sealed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperSealing {
    /// PCRs of the present boot state.
    pub present: BTreeMap<u32, [u8; 32]>,
    /// The boot state to come, if any.
    pub next: Option<NextSealing>,
}

/// What a keeper says of the boot state to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextSealing {
    /// Its PCRs.
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// Whether the record for it is written.
    pub written: bool,
}

impl TryFrom<v1::SubmitResealRequest> for ResealSubmission {
    type Error = WireError;

    fn try_from(request: v1::SubmitResealRequest) -> Result<Self, WireError> {
        let measurement = match request.measurement.as_slice() {
            [] => None,
            digest => Some(exact("malformed-measurement", digest)?),
        };
        let reseal = Reseal {
            instance: exact("malformed-instance", &request.instance)?,
            ak_name: key("malformed-ak-name", &request.ak_name)?,
            pcrs: quoted_pcrs(request.pcrs)?.into_iter().collect(),
            measurement,
        };
        let statement = bytes("malformed-statement", request.statement, APPROVAL_BYTES_MAX)?;
        let signature = text("malformed-signature", request.signature, SSHSIG_BYTES_MAX)?;
        Ok(Self { reseal, statement, signature })
    }
}

impl From<ResealSubmission> for v1::SubmitResealRequest {
    fn from(submission: ResealSubmission) -> Self {
        let ResealSubmission { reseal, statement, signature } = submission;
        Self {
            instance: reseal.instance.to_vec(),
            ak_name: reseal.ak_name.as_bytes().to_vec(),
            pcrs: reseal.pcrs.into_iter().map(wire_pcr).collect(),
            measurement: reseal.measurement.map(Vec::from).unwrap_or_default(),
            statement,
            signature,
        }
    }
}

impl TryFrom<v1::KeeperSealing> for KeeperSealing {
    type Error = WireError;

    fn try_from(sealing: v1::KeeperSealing) -> Result<Self, WireError> {
        let next = match (sealing.next.is_empty(), sealing.next_written) {
            (true, false) => None,
            (true, true) => return Err(WireError::new("malformed-next-written", Fault::Unexpected)),
            (false, written) => Some(NextSealing { pcrs: quoted_pcrs(sealing.next)?.into_iter().collect(), written }),
        };
        Ok(Self { present: quoted_pcrs(sealing.present)?.into_iter().collect(), next })
    }
}

impl From<KeeperSealing> for v1::KeeperSealing {
    fn from(sealing: KeeperSealing) -> Self {
        let (next, next_written) = sealing.next.map_or_else(Default::default, |next| (next.pcrs, next.written));
        Self {
            present: sealing.present.into_iter().map(wire_pcr).collect(),
            next: next.into_iter().map(wire_pcr).collect(),
            next_written,
        }
    }
}
