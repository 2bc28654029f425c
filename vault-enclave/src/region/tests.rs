use super::*;

#[test]
fn a_region_starts_as_zeros_and_keeps_what_is_written() {
    let mut region = Region::new(100).unwrap();
    assert_eq!(region.bytes(), [0; 100]);
    region.bytes_mut()[99] = 7;
    assert_eq!(region.bytes()[99], 7);
}

#[test]
fn an_empty_or_endless_region_is_refused() {
    assert_eq!(Region::new(0).err(), Some(RegionError::Length(0)));
    assert_eq!(Region::new(usize::MAX).err(), Some(RegionError::Length(u64::MAX)));
}

#[test]
fn a_region_is_locked_undumped_and_empty_after_a_fork() {
    let region = Region::new(1).unwrap();
    let flags = vm_flags(region.bytes().as_ptr().addr());
    for flag in ["lo", "dd", "wf"] {
        assert!(flags.iter().any(|f| f == flag), "{flag} is not among {flags:?}");
    }
}

#[test]
fn weights_are_in_huge_pages_and_in_no_core_dump_or_forked_child() {
    const BYTES: usize = 5 << 20;
    let mut region = WeightRegion::new(BYTES, false).unwrap();
    let start = region.bytes_mut().as_ptr().addr();
    assert!(start.is_multiple_of(HUGE_PAGE_BYTES));
    prefault(region.bytes_mut()).unwrap();
    let flags = vm_flags(start);
    // hg: huge pages are asked for; dd: not dumped; dc: not copied to a child.
    for flag in ["hg", "dd", "dc"] {
        assert!(flags.iter().any(|f| f == flag), "{flag} is not among {flags:?}");
    }
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if enabled.contains("[never]") || enabled.is_empty() {
        eprintln!("skipped: this kernel has no transparent huge pages");
    } else {
        assert!(region.huge_bytes() > 0, "none of it lies in huge pages: {enabled}");
    }
    drop(region);
    assert!(vm_flags(start).iter().all(|flag| flag != "dc"), "it is still mapped");
}

#[test]
fn weights_are_locked_where_that_is_asked_for() {
    let mut region = WeightRegion::new(1, true).unwrap();
    let flags = vm_flags(region.bytes_mut().as_ptr().addr());
    assert!(flags.iter().any(|flag| flag == "lo"), "{flags:?}");
}

#[test]
fn pieces_of_weights_are_apart_join_in_their_order_alone_and_are_wiped_each_by_itself() {
    let mut rest = WeightRegion::new(10, false).unwrap();
    let (mut one, mut two) = (rest.split_to(4), rest.split_to(4));
    one.bytes_mut().copy_from_slice(b"abcd");
    two.bytes_mut().copy_from_slice(b"efgh");
    rest.bytes_mut().copy_from_slice(b"ij");
    let joined = |regions: &[&WeightRegion]| WeightRegion::joined(regions.iter().copied()).map(<[u8]>::to_vec);
    assert_eq!(joined(&[&one, &two, &rest]).as_deref(), Some(b"abcdefghij".as_slice()));
    assert_eq!(joined(&[&two, &rest]).as_deref(), Some(b"efghij".as_slice()));
    assert_eq!(joined(&[]).as_deref(), Some(b"".as_slice()));
    let other = WeightRegion::new(10, false).unwrap();
    for apart in [[&one, &rest], [&two, &one], [&rest, &other]] {
        assert_eq!(joined(&apart), None);
    }
    // What another process of this user would still see, where it could.
    let at = two.bytes_mut().as_ptr().addr() as u64;
    let look = || {
        let mut seen = [0xff; 4];
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut seen, at).unwrap();
        seen
    };
    assert_eq!(look(), *b"efgh");
    drop(two);
    assert_eq!(look(), [0; 4]);
    assert_eq!(joined(&[&one]).as_deref(), Some(b"abcd".as_slice()));
}

#[test]
fn empty_or_endless_weights_are_refused() {
    assert_eq!(WeightRegion::new(0, false).err(), Some(RegionError::Length(0)));
    assert_eq!(WeightRegion::new(usize::MAX, false).err(), Some(RegionError::Length(u64::MAX)));
}

#[test]
fn a_mapped_file_has_the_bytes_that_were_written_through_the_mapping() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(10_000).unwrap();
    let mut mapping = FileMapping::new(&file, 10_000, true).unwrap();
    prefault(&mut mapping.bytes_mut()[5_000..]).unwrap();
    mapping.bytes_mut()[9_999] = 42;
    drop(mapping);
    let mut last = [0];
    rustix::io::pread(&file, &mut last, 9_999).unwrap();
    assert_eq!(last, [42]);
}

#[test]
fn an_empty_file_cannot_be_mapped() {
    let file = tempfile::tempfile().unwrap();
    assert_eq!(FileMapping::new(&file, 0, false).err(), Some(RegionError::Length(0)));
}

#[test]
fn a_full_file_system_is_an_error_and_not_a_signal() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let mut mapping = FileMapping::new(&file, 4096, false).unwrap();
    // A file cut short behind our back raises the same signal as a full tmpfs, which a test cannot have for sure.
    file.set_len(0).unwrap();
    assert!(matches!(prefault(mapping.bytes_mut()), Err(RegionError::Prefault(_))));
}

#[test]
fn a_hardened_process_is_closed_to_debuggers_and_dumps_no_core() {
    // In a process of its own: it cannot be undone, and other tests of this one look into it.
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let status = child.args(["--exact", "region::tests::hardened", "--ignored"]).status().unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "run by the test above"]
fn hardened() {
    let before = rustix::process::getrlimit(Resource::Core).maximum;
    harden_process().unwrap();
    assert_eq!(rustix::process::dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
    let limit = rustix::process::getrlimit(Resource::Core);
    if before == Some(0) {
        eprintln!("the hard limit was 0 before: only who has CAP_SYS_RESOURCE can raise it");
        assert!(limit.maximum <= Some(1));
    } else {
        assert_eq!((limit.current, limit.maximum), (Some(1), Some(1)), "0 would not stop a core that is piped");
    }
    // What is executed can be dumped again by itself: only the limit goes with it.
    use std::os::unix::process::ExitStatusExt;
    let dir = tempfile::tempdir().unwrap();
    let mut aborting = std::process::Command::new("sh");
    let status = aborting.args(["-c", "kill -ABRT $$"]).current_dir(dir.path()).status().unwrap();
    assert!(!status.core_dumped(), "{status}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn memory_that_the_kernel_will_not_lock_holds_no_key() {
    // In a process of its own, which gives up the right to lock: it cannot be undone.
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let status = child.args(["--exact", "region::tests::unlockable", "--ignored"]).status().unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "run by the test above"]
fn unlockable() {
    use rustix::thread::{CapabilitySet, CapabilitySets};
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).unwrap();
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Memlock, nothing).unwrap();
    let refused = Region::new(1).err().unwrap();
    assert!(matches!(refused, RegionError::Lock { .. }), "{refused}");
    assert_eq!(refused.code(), "memory-lock");
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let refused = FileMapping::new(&file, 4096, false).unwrap().lock().unwrap_err();
    assert_eq!(refused.code(), "memory-lock");
    assert!(refused.to_string().contains("ulimit -l"), "{refused}");
}

/// A kernel that knows these two calls refuses them to nobody; one that is too old for them does.
#[test]
fn what_an_old_kernel_cannot_do_has_a_code_and_words_of_its_own() {
    let advise = RegionError::Advise(Errno::INVAL);
    assert_eq!(advise.code(), "memory-advise");
    assert!(advise.to_string().contains("core dumps"), "{advise}");
    let harden = RegionError::Harden(Errno::INVAL);
    assert_eq!(harden.code(), "process-harden");
    assert!(harden.to_string().contains("debuggers"), "{harden}");
}

#[test]
fn guest_requests_have_the_layout_of_the_kernel() {
    assert_eq!((size_of::<GuestRequest>(), size_of::<ExtendedRequest>()), (32, 112));
    // _IOWR('S', 1, 32 bytes)
    assert_eq!(guest_opcode(1), 0xc020_5301);
    let null = std::fs::File::open("/dev/null").unwrap();
    let refused = snp_derived_key(&null, 1, &[0; 40], &mut [0; 64]);
    assert_eq!(refused, Err(GuestRequestError { errno: Errno::NOTTY, exit_info: 0 }));
}

/// The flags of the mapping that holds `address`: proc(5), smaps, VmFlags.
fn vm_flags(address: usize) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        if let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-'))
            && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
        {
            inside = (from..to).contains(&address);
        }
        if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
            return flags.split_whitespace().map(String::from).collect();
        }
    }
    Vec::new()
}
