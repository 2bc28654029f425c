use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::place::{Facts, judge};

fn open(directory: &Path) -> Result<Destination, DestinationError> {
    let place = judge(&Facts::gather(directory).unwrap(), 0, true).unwrap();
    Destination::new(Directory::open(directory)?, place)
}

#[test]
fn a_directory_that_others_may_write_to_is_refused_unless_they_take_nothing_away_there() {
    let directory = tempfile::tempdir().unwrap();
    let with = |mode| {
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        open(directory.path()).map(drop)
    };
    for mode in [0o777, 0o770, 0o702] {
        assert_eq!(with(mode), Err(DestinationError::OthersWrite { mode }));
    }
    for mode in [0o700, 0o755, 0o1777] {
        assert_eq!(with(mode), Ok(()));
    }
}

#[test]
fn what_a_killed_load_left_is_told_from_what_somebody_put_there() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, mode| {
        let path = directory.path().join(name);
        std::fs::write(&path, "plaintext").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let refused = || open(directory.path()).map(drop).map_err(|error| (error.code(), error));
    let left = Err(("destination-left-behind", DestinationError::LeftBehind));
    write("unfinished", 0);
    assert_eq!(refused(), left);
    write("finished", 0o400);
    assert_eq!(refused(), left);
    write("notes", 0o600);
    assert_eq!(refused(), Err(("destination-not-empty", DestinationError::NotEmpty)));
    assert_eq!(std::fs::read(directory.path().join("notes")).unwrap(), b"plaintext");
}

#[test]
fn a_directory_is_this_users_or_roots() {
    let access = |uid| Access { uid, mode: 0o700, own_mount: true };
    assert_eq!(access(1000).check(1000), Ok(()));
    assert_eq!(access(0).check(1000), Ok(()));
    let refused = access(1001).check(1000).unwrap_err();
    assert_eq!((refused.code(), refused), ("destination-other-owner", DestinationError::OtherOwner { uid: 1001 }));
}

#[test]
fn a_volume_in_memory_may_be_everybodys() {
    let volume = Access { uid: 0, mode: 0o777, own_mount: true };
    assert_eq!(volume.check(1000), Ok(()));
    let refused = Access { own_mount: false, ..volume }.check(1000).unwrap_err();
    assert_eq!(refused.code(), "destination-others-write");
}

#[test]
fn a_link_in_the_place_of_the_directory_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (real, link) = (directory.path().join("real"), directory.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    assert!(matches!(open(&link).map(drop), Err(DestinationError::Directory { action: "open", .. })));
}
