//! Whether this process is in a user namespace of its own (user_namespaces(7)), in which it may seem to be more than it is.

/// Whether capabilities are those of the machine.
pub(crate) fn is_initial() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| maps_everybody(&map))
}

/// Whether a file with this owner is root's. In a namespace that does not know root, its files are of the user that stands
/// for all unknown ones.
pub(crate) fn is_root(uid: u32) -> bool {
    uid == 0 || (!is_initial() && uid == overflow_uid())
}

/// As whom the kernel shows everybody whom the namespace does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What stands for those whom this namespace does not know; `None` where it knows everybody.
pub(crate) fn unknown() -> Option<Unknown> {
    (!is_initial()).then(|| Unknown { uid: overflow_uid(), gid: overflow_id("gid") })
}

/// The first namespace maps every user id to itself.
fn maps_everybody(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn overflow_uid() -> u32 {
    overflow_id("uid")
}

fn overflow_id(kind: &str) -> u32 {
    const DEFAULT: u32 = 65_534;
    let file = std::fs::read_to_string(format!("/proc/sys/kernel/overflow{kind}"));
    file.ok().and_then(|uid| uid.trim().parse().ok()).unwrap_or(DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_namespace_is_told_from_the_first_one() {
        assert!(maps_everybody("         0          0 4294967295\n"));
        for other in ["1000 1000 1\n", "0 1000 1\n", "0 0 4294967295\n1 1 1\n", ""] {
            assert!(!maps_everybody(other), "{other:?}");
        }
    }

    #[test]
    fn where_everybody_is_known_nobody_is_root() {
        assert!(is_root(0));
        assert_eq!(is_root(overflow_uid()), !is_initial());
        assert!(!is_root(1));
        assert_eq!(unknown().is_none(), is_initial());
    }
}
