//! What the end-to-end tests share: real processes on real software TPMs, and guests out of the forge.
//!
//! [`World`] is a vault that went through its whole ceremony: keeper and host are the workspace's own binaries, the
//! keeper's TPM is a swtpm process, approvers sign with `ssh-keygen`. Guests are either swtpm processes too, or TPMs of
//! the forge, whose every field a test can change; the world's policy names both their authorities as `emulated`.

pub mod attack;
pub mod candidate;
pub mod epoch;
pub mod escrow;
pub mod fleet;
pub mod forge;
pub mod golden;
pub mod guest;
pub mod knife;
pub mod long_log;
pub mod memory;
pub mod newcomer;
pub mod nodes;
pub mod process;
pub mod publisher;
pub mod python;
pub mod raw_tpm;
pub mod reader;
pub mod relay;
pub mod sealed;
pub mod serve;
pub mod soft_snp;
pub mod thief;
pub mod two;
pub mod web;
pub mod weights;
pub mod witnesses;
pub mod world;

pub use guest::Guest;
pub use process::{Boot, Running, Swtpm, binary, run, run_ok, signal};
pub use sealed::Sealed;
pub use soft_snp::SoftSnp;
pub use web::Web;
pub use witnesses::Witnesses;
pub use world::World;
