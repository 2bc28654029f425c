//! Places that fail or lie, over real HTTP and real files, and what is opened from the next one.

mod cache;
mod scene;
mod server;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{FAILURES_MAX, WARNINGS_MAX, told};
use crate::open::{OpenModelError, UnitSource};
use scene::{Apart, BIG, Scene, Short};
use server::{Behaviour, Server};

const SOON: Duration = Duration::from_millis(500);
const LATE: Duration = Duration::from_secs(60);

#[test]
fn a_model_comes_over_http_in_ranges() {
    let scene = Scene::new();
    let server = Server::start(&scene.sealed, |_| Behaviour::Serve);
    let sources = scene.sources(&[&server.place()], LATE, None);
    assert_eq!(scene.open(&sources, true), Ok(()));
    assert!(sources.used()[0].starts_with("http://127.0.0.1"), "{:?}", sources.used());
    // Around the end of a unit, and in its middle.
    let (unit, length) = (scene.big(), scene.manifest.unit(scene.big()).unwrap().sealed_len());
    let whole = fs::read(scene.sealed.join(ledger::manifest::unit_path(unit))).unwrap();
    for range in [0..1, 70_000..70_001, length - 5..length] {
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut sources.read(unit, range.clone()).unwrap(), &mut read).unwrap();
        assert!(read == whole[range.start as usize..range.end as usize], "{range:?}");
    }
}

#[test]
fn whatever_is_wrong_with_a_place_the_next_one_is_asked() {
    for behaviour in [
        Behaviour::Status(404),
        Behaviour::Status(302),
        Behaviour::Shifted,
        Behaviour::Flipped(30_000),
        Behaviour::Cut(30_000),
        Behaviour::OneByte,
        Behaviour::Stalling(30_000),
        Behaviour::Silent,
    ] {
        for verify_units in [false, true] {
            let scene = Scene::new();
            let server = Server::start(&scene.sealed, move |_| behaviour);
            let good = scene.copy("good");
            let sources = scene.sources(&[&server.place(), &good], SOON, None);
            assert_eq!(scene.open(&sources, verify_units), Ok(()), "{behaviour:?}");
            assert!(scene::delivered(&sources, "good") > 0, "{behaviour:?}");
        }
    }
}

#[test]
fn a_service_without_ranges_gives_what_begins_at_the_start() {
    let scene = Scene::new();
    let server = Server::start(&scene.sealed, |_| Behaviour::Whole);
    let sources = scene.sources(&[&server.place()], LATE, None);
    assert_eq!(scene.open(&sources, true), Ok(()));
    let read = std::io::Read::read_to_end(&mut sources.read(scene.big(), 1..9).unwrap(), &mut Vec::new());
    assert!(read.unwrap_err().to_string().contains("another range"));
}

#[test]
fn what_has_passed_is_not_read_again() {
    let scene = Scene::new();
    // A service that breaks off behind the first pieces of the longest unit, for good.
    let server = Server::start(&scene.sealed, |_| Behaviour::Cut(BIG as u64 / 2));
    let good = scene.copy("good");
    for verify_units in [false, true] {
        let sources = scene.sources(&[&server.place(), &good], LATE, None);
        assert_eq!(scene.open(&sources, verify_units), Ok(()));
        let came = scene::delivered(&sources, "good");
        assert!((BIG as u64 / 4..BIG as u64 * 3 / 4).contains(&came), "{came}");
    }
}

#[test]
fn a_service_that_was_busy_is_asked_again_and_no_other() {
    let scene = Scene::new();
    let busy = |request| if request % 2 == 0 { Behaviour::Status(503) } else { Behaviour::Serve };
    let server = Server::start(&scene.sealed, busy);
    let good = scene.copy("good");
    let sources = scene.sources(&[&server.place(), &good], LATE, None);
    // One after the other, so that each is refused once.
    for unit in 0..4 {
        std::io::Read::read_to_end(&mut sources.read(unit, 0..56).unwrap(), &mut Vec::new()).unwrap();
    }
    assert_eq!((server.requests(), scene::delivered(&sources, "good")), (8, 0));
}

#[test]
fn a_place_that_fails_again_and_again_is_left_alone() {
    let scene = Scene::new();
    let server = Server::start(&scene.sealed, |_| Behaviour::Status(404));
    let good = scene.copy("good");
    let sources = scene.sources(&[&server.place(), &good], LATE, None);
    let wrong = OpenModelError::Digest(0);
    for unit in 0..scene.manifest.units().len() as u32 {
        let reader = sources.read(unit, 0..56).unwrap();
        assert_eq!(reader.source, Some(usize::from(unit >= FAILURES_MAX)));
        if reader.source == Some(0) {
            assert!(sources.refused(unit, sources.place(&reader), &wrong));
        }
    }
    // What passes in between makes it good again.
    let sources = scene.sources(&[&server.place(), &good], LATE, None);
    for unit in 0..FAILURES_MAX + 2 {
        let reader = sources.read(unit, 0..56).unwrap();
        assert_eq!(reader.source, Some(0));
        let place = sources.place(&reader);
        sources.refused(unit, place, &wrong);
        sources.passed(unit, 0..1, place);
    }
}

#[test]
fn after_many_warnings_it_is_said_once_that_no_more_come() {
    let said: Vec<String> = (1..WARNINGS_MAX + 9).filter_map(|warnings| told(warnings, "x")).collect();
    assert_eq!(said.len(), WARNINGS_MAX);
    let (last, others) = said.split_last().unwrap();
    assert_eq!(last, "warning: x\nfurther warnings of this load are left out");
    assert!(others.iter().all(|other| other == "warning: x"));
}

#[test]
fn where_no_place_has_a_unit_the_load_fails_and_says_why() {
    let scene = Scene::new();
    let (one, other) = (scene.copy("one"), scene.copy("other"));
    for directory in [&one, &other] {
        fs::remove_file(directory.join(ledger::manifest::unit_path(1))).unwrap();
    }
    let sources = scene.sources(&[&one, &other], LATE, None);
    let said = sources.no_place_left(1, "sealed unit 1: gone").unwrap();
    assert_eq!(said, format!("warning: {}: sealed unit 1: gone; there is no other place to ask", other.display()));
    let sources = scene.sources(&[&one, &other], LATE, None);
    let refused = scene.open(&sources, false).unwrap_err();
    assert!(matches!(refused, OpenModelError::Source { unit: 1, .. }), "{refused:?}");
    assert_eq!(sources.no_place_left(1, "again"), None, "the load has said it");
}

/// 56 bytes for each segment would be a call of their own.
#[test]
fn a_header_is_not_asked_for_again_for_each_segment() {
    let scene = Scene::new();
    let good = scene.copy("good");
    let sources = scene.sources(&[&good], LATE, None);
    let counted =
        Apart { unit: scene.big(), chunks: &sources, headers: &sources, other: 0, asked: AtomicUsize::new(0) };
    assert_eq!(scene.open(&counted, true), Ok(()));
    assert_eq!(counted.asked.load(Ordering::Relaxed), 1, "{counted:?}");
}

/// While a header is on its way its place can fail for another thread, and the chunks then come from the next one: they do not
/// open under that header, which is no fault of theirs.
#[test]
fn chunks_are_not_held_to_a_header_of_another_place() {
    let scene = Scene::new();
    let (forged, good) = (scene.copy("forged"), scene.copy("good"));
    scene.seal_anew(&forged, scene.big());
    let (forged, good) = (scene.sources(&[&forged], LATE, None), scene.sources(&[&good], LATE, None));
    for verify_units in [false, true] {
        // The good one is the last place: blamed for one chunk, it would end the load.
        let mixed = Apart { unit: scene.big(), chunks: &good, headers: &forged, other: 3, asked: AtomicUsize::new(0) };
        assert_eq!(scene.open(&mixed, verify_units), Ok(()));
        assert_eq!(mixed.asked.load(Ordering::Relaxed), 4, "{mixed:?}");
    }
}

/// Somebody who was granted a unit can seal other bytes for it. They open, and only the publisher's hash tells.
#[test]
fn a_unit_that_was_sealed_anew_is_refused_and_had_from_the_next_place() {
    let scene = Scene::new();
    let (forged, good) = (scene.copy("forged"), scene.copy("good"));
    scene.seal_anew(&forged, scene.big());
    let sources = scene.sources(&[&forged, &good], LATE, None);
    assert_eq!(scene.open(&sources, true), Ok(()));
    assert!(scene::delivered(&sources, "good") >= BIG as u64);
}

/// The same where the place goes away in the middle: the two halves are of two messages, and none of them is the unit.
#[test]
fn halves_of_two_messages_are_never_put_together() {
    let scene = Scene::new();
    let (forged, good) = (scene.copy("forged"), scene.copy("good"));
    scene.seal_anew(&forged, scene.big());
    let server = Server::start(&forged, |_| Behaviour::Cut(BIG as u64 / 2));
    for verify_units in [false, true] {
        let sources = scene.sources(&[&server.place(), &good], LATE, None);
        assert_eq!(scene.open(&sources, verify_units), Ok(()));
    }
}

/// Several threads open and hash one unit: what differs anywhere in it is refused, whichever segment it is in.
#[test]
fn segments_of_one_unit_pass_together_or_come_again_from_the_next_place() {
    let scene = Scene::new();
    let (forged, good) = (scene.copy("forged"), scene.copy("good"));
    scene.seal_anew(&forged, scene.big());
    let sources = scene.sources(&[&good], LATE, None);
    assert_eq!(scene.open(&Short(&sources), true), Ok(()));
    let sources = scene.sources(&[&forged], LATE, None);
    assert_eq!(scene.open(&Short(&sources), true), Err(OpenModelError::Digest(scene.big())));
    let sources = scene.sources(&[&forged, &good], LATE, None);
    assert_eq!(scene.open(&Short(&sources), true), Ok(()));
    assert!(scene::delivered(&sources, "good") >= BIG as u64);
    // A place that breaks off somewhere: its segments and those of the next one are of two messages.
    for cut in [BIG as u64 / 2, 60, 3 << 20] {
        let server = Server::start(&forged, move |_| Behaviour::Cut(cut));
        let sources = scene.sources(&[&server.place(), &good], LATE, None);
        assert_eq!(scene.open(&Short(&sources), true), Ok(()), "{cut}");
    }
}

/// What was forged is in the cache, or the cache keeps it: neither is it opened, nor does it stay.
#[test]
fn no_segment_is_kept_of_a_unit_that_is_not_the_publishers() {
    let scene = Scene::new();
    let (forged, good) = (scene.copy("forged"), scene.copy("good"));
    scene.seal_anew(&forged, scene.big());
    let plenty = || Some(scene.cache("cache", 1 << 30));
    let sources = scene.sources(&[&forged, &good], LATE, plenty());
    assert_eq!(scene.open(&Short(&sources), true), Ok(()));
    drop(sources);
    let sources = scene.sources(&[&good], LATE, plenty());
    assert_eq!(scene.open(&Short(&sources), true), Ok(()));
    assert_eq!(scene::delivered(&sources, "good"), 0, "all of it was kept, as it was signed");
    drop(sources);
    // Not hashed where it was kept: whoever was granted the unit can have put it there.
    fs::remove_dir_all(scene.path("cache")).unwrap();
    let sources = scene.sources(&[&forged], LATE, plenty());
    scene.world.open_from(&sources, &scene.manifest, &scene.keys, false, "forged-opened").unwrap();
    drop(sources);
    let sources = scene.sources(&[&good], LATE, plenty());
    assert_eq!(scene.open(&Short(&sources), true), Ok(()));
    assert!(scene::delivered(&sources, "good") >= BIG as u64);
}
