//! The forge: a TPM vendor and TPMs in software, whose every field can be changed.
#![allow(unreachable_pub, reason = "the same files serve crates of several kinds")]

pub mod attest;
pub mod authority;
pub mod eventlog;
pub mod public;
pub mod tpm;
