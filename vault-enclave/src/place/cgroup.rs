//! What the cgroups of this process let it have: version 2, and the memory controller of version 1.

use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// Where version 2 is mounted beside controllers of version 1.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
const MEMORY_1: &str = "/sys/fs/cgroup/memory";

/// Memory that a cgroup has left, with its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupMemory {
    /// Bytes that may still be charged to it.
    pub free: u64,
    /// Which.
    pub directory: PathBuf,
}

/// A version of the interface: where it may be mounted, and the names of its files.
struct Interface {
    roots: &'static [&'static str],
    max: &'static str,
    current: &'static str,
    /// Counters of `memory.stat` whose sum is page cache, which goes before anybody is refused memory. A tmpfs is not in them.
    cache: [&'static str; 2],
}

const VERSION_2: Interface = Interface {
    roots: &[ROOT, UNIFIED],
    max: "memory.max",
    current: "memory.current",
    cache: ["active_file", "inactive_file"],
};
const VERSION_1: Interface = Interface {
    roots: &[MEMORY_1],
    max: "memory.limit_in_bytes",
    current: "memory.usage_in_bytes",
    cache: ["total_active_file", "total_inactive_file"],
};

/// The cgroup of this process, and all above it, with the least memory left; `None` where none has a limit. `cgroup` is
/// `/proc/self/cgroup`.
pub(super) fn least_memory(cgroup: &str) -> Option<CgroupMemory> {
    let of = |interface: &Interface, path: Option<&str>| -> Vec<CgroupMemory> {
        let directories = path.map(|path| directories(interface.roots, path)).unwrap_or_default();
        directories.iter().filter_map(|directory| interface.memory(directory)).collect()
    };
    let all = of(&VERSION_2, version_2(cgroup)).into_iter().chain(of(&VERSION_1, memory_1(cgroup)));
    all.min_by_key(|memory| memory.free)
}

/// Whether one of them may not swap.
pub(super) fn never_swaps(cgroup: &str) -> bool {
    let directories = version_2(cgroup).map(|path| directories(VERSION_2.roots, path)).unwrap_or_default();
    directories.iter().any(|directory| number(directory, "memory.swap.max") == Some(0))
}

impl Interface {
    fn memory(&self, directory: &Path) -> Option<CgroupMemory> {
        let (max, current) = (number(directory, self.max)?, number(directory, self.current)?);
        let stat = std::fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
        let used = current.saturating_sub(self.cache(&stat));
        Some(CgroupMemory { free: max.saturating_sub(used), directory: directory.to_owned() })
    }

    fn cache(&self, stat: &str) -> u64 {
        let counters = stat.lines().filter_map(|line| line.split_once(' '));
        let cache = counters.filter(|(name, _)| self.cache.contains(name));
        cache.filter_map(|(_, bytes)| bytes.parse::<u64>().ok()).sum()
    }
}

/// A line of cgroups(7), `/proc/PID/cgroup`: `0::/path`.
fn version_2(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// `4:memory:/path`; other controllers may share the hierarchy.
fn memory_1(cgroup: &str) -> Option<&str> {
    let fields = cgroup.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    let mut paths = fields.filter_map(|fields| match *fields.as_slice() {
        [_, controllers, path] if controllers.split(',').any(|controller| controller == "memory") => Some(path),
        _ => None,
    });
    paths.next()?.strip_prefix('/')
}

/// The directory below each root, and all above it, innermost first. Seen from another cgroup namespace a path may start
/// with `..`, and a container may see only its own group, as the root: then that is all there is to read.
fn directories(roots: &'static [&'static str], path: &str) -> Vec<PathBuf> {
    let path = if path.split('/').any(|part| part == "..") { "" } else { path };
    let of = |root| Path::new(root).join(path).ancestors().map(Path::to_owned).collect::<Vec<_>>();
    roots.iter().flat_map(|root| of(root).into_iter().filter(move |directory| directory.starts_with(root))).collect()
}

/// `None` where the file is absent, as at the root, or says `max`.
fn number(directory: &Path, name: &str) -> Option<u64> {
    std::fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_looked_at_up_to_the_root() {
        let both = "12:cpu,memory:/old/one\n0::/user.slice/a.scope\n";
        assert_eq!(version_2(both), Some("user.slice/a.scope"));
        assert_eq!(memory_1(both), Some("old/one"));
        assert_eq!((version_2("12:memory:/old\n"), memory_1("0::/a\n3:cpu:/memory\n")), (None, None));
        let paths = directories(&[ROOT], "user.slice/a.scope");
        let paths: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/sys/fs/cgroup/user.slice/a.scope", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"]);
        assert_eq!(directories(&[MEMORY_1], "../other"), [PathBuf::from(MEMORY_1)]);
    }

    #[test]
    fn page_cache_is_no_use_of_memory_and_a_tmpfs_is() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        assert_eq!(VERSION_2.memory(directory.path()), None);
        write("memory.current", "90\n");
        write("memory.max", "max\n");
        assert_eq!(VERSION_2.memory(directory.path()), None, "no limit");
        write("memory.max", "100\n");
        write("memory.stat", "anon 10\nfile 70\nshmem 40\ninactive_anon 50\nactive_file 10\ninactive_file 20\n");
        let free = VERSION_2.memory(directory.path()).unwrap().free;
        assert_eq!(free, 100 - (90 - 30));
        write("memory.current", "200\n");
        assert_eq!(VERSION_2.memory(directory.path()).unwrap().free, 0);
    }
}
