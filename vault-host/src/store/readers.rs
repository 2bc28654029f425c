//! Whether anybody may read the log: `[audit]` of the policy in force, followed from the entries.
//!
//! A policy can name its readers, but no message of this protocol says who asks. So a log with named readers is not
//! served at all; whoever can read the host's disk still can.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use ledger::policy::{Permitted, Policy};

use super::StoreError;
use super::files::{self, Scratch};

const POLICY_BYTES_MAX: usize = 12 << 10;

/// Follows the policy in force.
#[derive(Debug)]
pub(crate) struct Readers {
    /// The text of the policy in force, so that a start need not look for it in the log.
    path: PathBuf,
    scratch: Scratch,
    anyone: AtomicBool,
}

impl Readers {
    /// Opens the copy at `path`. The second value is false where there is none yet.
    pub(crate) fn open(path: PathBuf, scratch: Scratch) -> Result<(Self, bool), StoreError> {
        let text = files::read(&path, POLICY_BYTES_MAX)?;
        let anyone = text.as_deref().is_some_and(|text| std::str::from_utf8(text).is_ok_and(lets_anyone_read));
        Ok((Self { path, scratch, anyone: AtomicBool::new(anyone) }, text.is_some()))
    }

    /// Whether anybody may.
    pub(crate) fn anyone(&self) -> bool {
        self.anyone.load(Ordering::Acquire)
    }

    /// A policy came into force.
    pub(crate) fn follow(&self, policy: &str) -> Result<(), StoreError> {
        // Closed first: a failed write must not leave a log open that should be closed.
        self.anyone.store(false, Ordering::Release);
        self.scratch.write(&self.path, policy.as_bytes())?;
        self.anyone.store(lets_anyone_read(policy), Ordering::Release);
        Ok(())
    }
}

fn lets_anyone_read(policy: &str) -> bool {
    Policy::parse(policy).is_ok_and(|policy| *policy.readers() == Permitted::Any)
}
