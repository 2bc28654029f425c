//! A search for known keys in the memory of other processes, and the key memory of this one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// Half a key of 32 bytes: half of it is half of its strength, so none may stay.
const HALF: usize = 16;
/// Bytes that are read at a time.
const READ: usize = 1 << 20;

/// Known secrets, by halves.
#[derive(Default)]
pub struct Secrets(Vec<(String, [u8; HALF])>);

impl Secrets {
    /// Looks for every 16 bytes of `secret`.
    pub fn note(&mut self, name: &str, secret: &[u8]) {
        let (halves, rest) = secret.as_chunks::<HALF>();
        assert!(!halves.is_empty() && rest.is_empty(), "{name} has {} bytes", secret.len());
        self.0.extend(halves.iter().enumerate().map(|(index, half)| (format!("{name}/{index}"), *half)));
    }

    /// Their names.
    pub fn names(&self) -> BTreeSet<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The names of those that lie somewhere in memory that process `pid` can write.
    ///
    /// # Errors
    /// Where its memory can't be read: the processes of a vault are closed to all but root.
    pub fn found_in(&self, pid: u32) -> io::Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let mut starts = [false; 256];
        self.0.iter().for_each(|(_, half)| starts[usize::from(half[0])] = true);
        for (from, to) in writable(pid)? {
            each_read(pid, from, to, |bytes| {
                for window in bytes.windows(HALF).filter(|window| starts[usize::from(window[0])]) {
                    found.extend(self.0.iter().filter(|(_, half)| half == window).map(|(name, _)| name.clone()));
                }
            })?;
        }
        Ok(found)
    }
}

/// The processes that a process started, as the kernel lists them.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let listed = threads.map(|thread| fs::read_to_string(thread.expect("it runs").path().join("children")));
    let listed = listed.map(Result::unwrap_or_default).collect::<String>();
    listed.split_whitespace().map(|pid| pid.parse().expect("a process id")).collect()
}

/// What lies in the key memory of this process, one for each key or set of keys: pages that are locked and that a forked
/// child does not get are used for nothing else (glibc 2.41 keeps the state of its random numbers in pages that a child does
/// not get, and does not lock them). A test learns by this what `vault_enclave` generated, which shows its keys to nobody.
pub fn key_memory() -> Vec<Vec<u8>> {
    let own = std::process::id();
    let maps = fs::read_to_string("/proc/self/smaps").expect("a process can read about itself");
    let (mut keys, mut range) = (Vec::new(), None);
    for line in maps.lines() {
        if let Some(found) = address_range(line) {
            range = Some(found);
        } else if line.starts_with("VmFlags:")
            && ["wf", "lo"].iter().all(|is| line.split_whitespace().any(|flag| flag == *is))
        {
            let (from, to) = range.expect("a range comes before its flags");
            let mut bytes = Vec::new();
            each_read(own, from, to, |read| bytes.extend_from_slice(read)).expect("our own memory");
            // The rest of the last page was never written.
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).next_multiple_of(HALF);
            bytes.truncate(end);
            keys.push(bytes);
        }
    }
    keys
}

/// Calls `take` with overlapping parts, so that what lies across two reads is seen.
fn each_read(pid: u32, from: u64, to: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut buffer = vec![0; READ];
    let mut at = from;
    while at < to {
        let wanted = READ.min(usize::try_from(to - at).expect("at most the length of the buffer counts"));
        // Pages of a device, and those that were unmapped meanwhile, can't be read.
        let Ok(bytes) = memory.read_at(&mut buffer[..wanted], at) else { return Ok(()) };
        take(&buffer[..bytes]);
        if bytes < HALF {
            return Ok(());
        }
        at += if at + bytes as u64 == to { bytes } else { bytes - HALF + 1 } as u64;
    }
    Ok(())
}

fn writable(pid: u32) -> io::Result<Vec<(u64, u64)>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let writable =
        maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|mode| mode.starts_with("rw")));
    Ok(writable.filter_map(address_range).collect())
}

fn address_range(line: &str) -> Option<(u64, u64)> {
    let (from, to) = line.split_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}
