//! The forge: hardware in software, whose every field can be changed.
//!
//! TPMs come from the forge of the attestation tests, as it is. SEV-SNP is here: certificates and revocation lists like AMD's
//! ([`amd`]), reports ([`report`], in Azure's frame [`azure`]), a chip and its guests ([`platform`]), derived keys ([`derived_key`]), the file tree through
//! which Linux hands out reports ([`tsm`], on [`fuse`] or, where that cannot be had, in [`plain`] files), the sockets beside it ([`serve`]), and AMD's key server ([`kds`]).
//!
//! It encodes by itself, from the specifications; nothing of the verifier is used, so that an error there cannot cancel out.
//! What it signs says `SOFT TEST ONLY`, rests on keys that lie in this tree, and can be trusted only as `emulated`.

pub mod amd;
pub mod azure;
mod der;
pub mod derived_key;
pub mod fuse;
pub mod kds;
pub mod keys;
pub mod plain;
pub mod platform;
pub mod report;
pub mod serve;
pub mod tsm;

#[allow(missing_docs, clippy::new_without_default, reason = "the forge of the attestation tests, included as it is")]
#[path = "../../attestation/tests/common/mod.rs"]
mod soft_tpm;

pub use soft_tpm::{attest, authority, eventlog, public, tpm};
