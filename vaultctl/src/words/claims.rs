//! What verified evidence shows.

use std::collections::BTreeMap;
use std::fmt;

use attestation::{Claims, Sha256Digest, Trust};
use serde::Serialize;

use crate::print::span;

/// Claims of a TPM, verified.
#[derive(Debug, Clone, Serialize)]
pub struct ClaimsReport {
    tier: Trust,
    anchor: String,
    platform: Sha256Digest,
    ak_name: String,
    pcrs: BTreeMap<u32, String>,
    reset_count: u32,
    restart_count: u32,
    clock_ms: u64,
}

impl ClaimsReport {
    /// What the proof rests on.
    pub fn tier(&self) -> Trust {
        self.tier
    }
}

impl From<&Claims> for ClaimsReport {
    fn from(claims: &Claims) -> Self {
        Self {
            tier: claims.trust(),
            anchor: claims.anchor().to_owned(),
            platform: claims.platform(),
            ak_name: hex::encode(claims.ak_name().as_bytes()),
            pcrs: claims.pcrs().iter().map(|(index, value)| (*index, hex::encode(value))).collect(),
            reset_count: claims.reset_count(),
            restart_count: claims.restart_count(),
            clock_ms: claims.clock(),
        }
    }
}

impl fmt::Display for ClaimsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tier:      {}", tier_in_words(self.tier))?;
        writeln!(f, "anchor:    {}", self.anchor)?;
        writeln!(f, "platform:  {}", self.platform)?;
        writeln!(f, "AK name:   {}", self.ak_name)?;
        let powered = span(self.clock_ms / 1_000);
        writeln!(f, "boot:      reset {}, restart {}, TPM powered {powered}", self.reset_count, self.restart_count)?;
        self.pcrs.iter().try_for_each(|(index, value)| writeln!(f, "PCR {index:>2}:    {value}"))
    }
}

/// The tier, and what it does not prove.
pub fn tier_in_words(tier: Trust) -> &'static str {
    match tier {
        Trust::Emulated => "EMULATED (a software TPM: proves nothing about hardware)",
        Trust::Hardware => "hardware",
    }
}
