//! The entry that stands before a release that rings.

use attestation::{Sha256Digest, UnixTime};
use serde::{Deserialize, Serialize};

use crate::names::Name;

/// The release behind this entry rings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlarmEntry {
    /// When: the time of the release.
    pub time: UnixTime,
    /// Lease id of the release.
    pub lease: Sha256Digest,
    /// The alarm rules that ring for it, ascending.
    pub rules: Vec<Name>,
    /// Where one of them is `new-measurement`, and only there: what was measured
    /// ([`Shown::measurement`](crate::decide::Shown::measurement)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measurement: Option<Sha256Digest>,
}
