//! What processes take: time of CPUs, and memory.
//!
//! Memory is what `/proc/PID/status` says (proc(5)): RssAnon and RssFile, without RssShmem, where the weights are that a tmpfs
//! holds. An agent is two processes for a while. What is their own is added up; of files they have mapped the same program and
//! libraries, so those count once, as of the one that has more of them. They are looked at every 20 ms, and the most counts.
//! VmHWM has no gaps, and cannot tell the weights apart: it is taken where nothing is shared, and set back before
//! (`clear_refs`).

use crate::Result;
use std::fs;

/// CPU of all threads that a process has (proc(5), `schedstat`: nanoseconds on the CPU come first).
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that ended meanwhile has no file any more.
        let Ok(stat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanoseconds += stat.split_whitespace().next().and_then(|first| first.parse::<f64>().ok()).unwrap_or_default();
    }
    Ok(nanoseconds / 1e9)
}

/// Resident memory of an agent or a host, all of its processes, in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Resident {
    /// Its own, and what it has mapped of files, its program included.
    pub(super) own: f64,
    /// RssShmem.
    pub(super) shared: f64,
    /// VmHWM: the most that all of it came to.
    pub(super) peak: f64,
}

/// The most memory that a process and those that it started were seen to take.
pub(super) struct Watch {
    pid: u32,
    pub(super) most: Resident,
}

impl Watch {
    /// From now on.
    pub(super) fn of(pid: u32) -> Self {
        // Where that is not allowed, its peak is that of its life.
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        Self { pid, most: Resident::default() }
    }

    /// Looks.
    pub(super) fn look(&mut self) {
        let statuses = family(self.pid).into_iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/status")));
        let now = resident(&statuses.filter_map(|status| status.ok()).collect::<Vec<_>>());
        let Resident { own, shared, peak } = &mut self.most;
        (*own, *shared, *peak) = (own.max(now.own), shared.max(now.shared), peak.max(now.peak));
    }
}

/// A process and all below it.
fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<u32> =
            children.flat_map(|line| line.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
        found.extend(children);
        next += 1;
    }
    found
}

/// Of processes that have the same files mapped.
fn resident(statuses: &[String]) -> Resident {
    let mib = |name: &str| {
        let of = move |status: &String| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
        };
        statuses.iter().map(of).collect::<Vec<_>>()
    };
    let sum = |name: &str| mib(name).iter().sum::<f64>();
    let mapped = mib("RssFile").into_iter().fold(0.0, f64::max);
    Resident { own: sum("RssAnon") + mapped, shared: sum("RssShmem"), peak: sum("VmHWM") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_told_apart_and_a_program_counts_once() {
        let one = "VmHWM:\t 9216 kB\nVmRSS:\t 8192 kB\nRssAnon:\t 1024 kB\nRssFile:\t 2048 kB\nRssShmem:\t 5120 kB\n"
            .to_owned();
        assert_eq!(resident(std::slice::from_ref(&one)), Resident { own: 3.0, shared: 5.0, peak: 9.0 });
        let other = "VmHWM:\t 4096 kB\nRssAnon:\t 1024 kB\nRssFile:\t 3072 kB\nRssShmem:\t 0 kB\n".to_owned();
        assert_eq!(resident(&[one, other]), Resident { own: 5.0, shared: 5.0, peak: 13.0 });
        assert_eq!(resident(&[]), Resident::default());
    }

    #[test]
    fn a_process_and_its_children_count() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = family(std::process::id());
        let mut watch = Watch::of(child.id());
        watch.look();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&std::process::id()) && found.contains(&child.id()));
        assert!(watch.most.own > 0.0 && watch.most.shared == 0.0);
        assert!(cpu_seconds(std::process::id()).unwrap() > 0.0);
    }
}
