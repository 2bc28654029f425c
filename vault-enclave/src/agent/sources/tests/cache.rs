//! A cache of ciphertext: filled, used, bounded, damaged, shared.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ledger::manifest::{Selection, unit_path};

use super::super::cache::Cache;
use super::scene::{BIG, Scene, delivered};
use super::server::{Behaviour, Server};
use super::{LATE, SOON};

const PLENTY: u64 = 1 << 30;

/// The units that are there, by the names of their files.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut entries: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "cob")).collect();
    entries.sort();
    entries
}

fn bytes(directory: &Path) -> u64 {
    entries(directory).iter().map(|entry| fs::metadata(entry).unwrap().len()).sum()
}

/// Nothing but units and the lock.
fn is_tidy(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().count() == entries(directory).len() + 1
}

#[test]
fn what_was_loaded_once_comes_from_the_cache_the_next_time() {
    let scene = Scene::new();
    let (server, dir) = (Server::start(&scene.sealed, |_| Behaviour::Serve), scene.path("cache"));
    for verify_units in [false, true] {
        let sources = scene.sources(&[&server.place()], LATE, Some(scene.cache("cache", PLENTY)));
        assert_eq!(scene.open(&sources, verify_units), Ok(()));
        drop(sources);
        let units = scene.manifest.units().len();
        assert_eq!((entries(&dir).len(), bytes(&dir), is_tidy(&dir)), (units, scene.sealed_bytes(), true));
        let before = server.requests();
        let sources = scene.sources(&[&server.place()], LATE, Some(scene.cache("cache", PLENTY)));
        assert_eq!(scene.open(&sources, verify_units), Ok(()));
        assert_eq!(server.requests(), before, "all of it is here");
        assert_eq!(sources.used().len(), 1);
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&entries(&dir)[0])), (0o700, 0o600));
    // Under the digest that the publisher signed, and the same bytes.
    let digest = scene.manifest.sealed(scene.big()).unwrap().sha256;
    let entry = dir.join(format!("{}.cob", hex::encode(digest.as_bytes())));
    assert!(fs::read(entry).unwrap() == fs::read(scene.sealed.join(unit_path(scene.big()))).unwrap());
}

#[test]
fn a_damaged_unit_is_removed_and_fetched_anew() {
    let scene = Scene::new();
    let (good, dir) = (scene.copy("good"), scene.path("cache"));
    let load = || {
        let sources = scene.sources(&[&good], LATE, Some(scene.cache("cache", PLENTY)));
        assert_eq!(scene.open(&sources, false), Ok(()));
        delivered(&sources, "good")
    };
    assert!(load() >= scene.sealed_bytes());
    for damage in [
        |file: &mut Vec<u8>| file[BIG - 5] ^= 1,
        |file: &mut Vec<u8>| file[3] ^= 1,
        |file: &mut Vec<u8>| file.truncate(100),
        |file: &mut Vec<u8>| file.push(0),
    ] {
        let largest = entries(&dir).into_iter().max_by_key(|entry| fs::metadata(entry).unwrap().len()).unwrap();
        let whole = fs::read(&largest).unwrap();
        let mut damaged = whole.clone();
        damage(&mut damaged);
        fs::write(&largest, damaged).unwrap();
        let came = load();
        assert!(came > 0 && came < scene.sealed_bytes(), "{came}");
        // What passed before the fault did not come again, so it may take one load more until the unit is here.
        load();
        assert!(fs::read(&largest).unwrap() == whole, "it is back");
        assert_eq!(load(), 0);
    }
}

#[test]
fn what_a_place_had_wrong_does_not_stay() {
    let scene = Scene::new();
    let server = Server::start(&scene.sealed, |_| Behaviour::Flipped(30_000));
    let good = scene.copy("good");
    let sources = scene.sources(&[&server.place(), &good], SOON, Some(scene.cache("cache", PLENTY)));
    assert_eq!(scene.open(&sources, true), Ok(()));
    drop(sources);
    let sources = scene.sources(&[&good], LATE, Some(scene.cache("cache", PLENTY)));
    assert_eq!(scene.open(&sources, true), Ok(()));
    assert_eq!(delivered(&sources, "good"), 0);
}

#[test]
fn the_bound_holds_and_what_was_not_used_for_the_longest_time_goes() {
    let scene = Scene::new();
    let (good, dir) = (scene.copy("good"), scene.path("cache"));
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    let all = scene.sealed_bytes();
    let half = all / 2;
    // Two units of other models, half as large as this one each; the first is the older one.
    for (name, days) in [("old", 2), ("new", 1)] {
        let file = fs::File::create(dir.join(format!("{name}.cob"))).unwrap();
        file.set_len(half).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).unwrap();
    }
    let load = |bound| {
        let sources = scene.sources(&[&good], LATE, Some(scene.cache("cache", bound)));
        assert_eq!(scene.open(&sources, false), Ok(()));
    };
    load(all + half);
    assert!(!dir.join("old.cob").exists() && dir.join("new.cob").exists());
    assert_eq!((bytes(&dir), is_tidy(&dir)), (all + half, true));
    // Less than the model: what is there of it stays, what does not fit is not kept, and the load is as good.
    load(all - 1);
    assert!(!dir.join("new.cob").exists());
    fs::remove_dir_all(&dir).unwrap();
    load(all - 1);
    assert!(bytes(&dir) < all && bytes(&dir) > 0, "{}", bytes(&dir));
    load(0);
    assert!(is_tidy(&dir));
}

#[test]
fn what_somebody_reads_or_has_reserved_is_left_alone() {
    let scene = Scene::new();
    let (good, dir) = (scene.copy("good"), scene.path("cache"));
    let all = scene.sealed_bytes();
    let first = scene.cache("cache", all);
    // Another agent that loads the same meanwhile: all room is the first one's.
    let second = scene.sources(&[&good], LATE, Some(scene.cache("cache", all)));
    assert_eq!(scene.open(&second, false), Ok(()));
    drop(second);
    assert!(entries(&dir).is_empty());
    let sources = scene.sources(&[&good], LATE, Some(first));
    assert_eq!(scene.open(&sources, false), Ok(()));
    drop(sources);
    assert_eq!(bytes(&dir), all);

    let largest = entries(&dir).into_iter().max_by_key(|entry| fs::metadata(entry).unwrap().len()).unwrap();
    let reader = fs::File::open(&largest).unwrap();
    reader.lock_shared().unwrap();
    let nothing = scene.manifest.select(&Selection::Units(vec![0])).unwrap();
    drop(Cache::open(&dir, 0, &scene.manifest, &nothing).unwrap());
    drop(reader);
    // What was asked for, and what is read.
    assert!(largest.exists());
    assert!(Cache::open(&dir, 1, &scene.manifest, &nothing).is_ok());
}

#[test]
fn what_a_killed_agent_left_goes() {
    let scene = Scene::new();
    let dir = scene.path("cache");
    drop(scene.cache("cache", PLENTY));
    for name in ["dead.part", "dead.room"] {
        fs::File::create(dir.join(name)).unwrap().set_len(PLENTY).unwrap();
    }
    let good = scene.copy("good");
    let sources = scene.sources(&[&good], LATE, Some(scene.cache("cache", PLENTY)));
    assert_eq!(scene.open(&sources, false), Ok(()));
    drop(sources);
    assert_eq!((bytes(&dir), is_tidy(&dir)), (scene.sealed_bytes(), true));
}

#[test]
fn a_directory_that_others_write_to_is_refused_and_a_link_in_it_is_not_followed() {
    let scene = Scene::new();
    let (dir, units) = (scene.path("cache"), scene.manifest.select(&Selection::All).unwrap());
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Cache::open(&dir, PLENTY, &scene.manifest, &units).err().unwrap();
    assert_eq!(refused.code(), "cache-directory");
    let nowhere = Cache::open(&scene.path("none").join("cache"), PLENTY, &scene.manifest, &units).err().unwrap();
    assert_eq!(nowhere.code(), "cache-directory");
    assert!(nowhere.next_step().unwrap().ends_with("one that is not there yet and whose parent is"), "{nowhere}");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    let precious = scene.path("precious");
    fs::write(&precious, b"mine").unwrap();
    let digest = scene.manifest.sealed(scene.big()).unwrap().sha256;
    symlink(&precious, dir.join(format!("{}.part", hex::encode(digest.as_bytes())))).unwrap();
    let good = scene.copy("good");
    let sources = scene.sources(&[&good], LATE, Some(scene.cache("cache", PLENTY)));
    assert_eq!(scene.open(&sources, false), Ok(()));
    assert_eq!(fs::read(&precious).unwrap(), b"mine");
}
