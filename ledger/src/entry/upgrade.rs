//! The entry about the program that a keeper runs.

use attestation::{Sha256Digest, UnixTime};
use serde::{Deserialize, Serialize};

use crate::names::Version;

/// What a keeper runs, by its own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Version.
    pub version: Version,
    /// The newest fold that it knows: [`FOLD_NUMBER`](crate::snapshot::FOLD_NUMBER).
    pub fold: u32,
    /// SHA-256 of its file, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Sha256Digest>,
}

/// The keeper that has just started runs another program than it last said, or the first that it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// When.
    pub time: UnixTime,
    /// What it ran before, where it ever said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Program>,
    /// What it runs.
    pub to: Program,
    /// The fold that whoever reads the log from here on must know.
    pub fold: u32,
}
