//! Sources that die, are slow or lie, and loaders that are killed: a clear word, nothing half-written that can be read, and a
//! retry that goes on.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use vault_tests::sealed::{loader, text};
use vault_tests::serve::wait_until;
use vault_tests::web::Behaviour;
use vault_tests::{Sealed, Web, signal};

const UNIT: &str = "units/00002.cob";

#[test]
fn source_that_dies_is_slow_or_lies_in_the_middle_of_a_unit_is_left_there_and_named() {
    let scene = Sealed::open();
    for (behaviour, words) in
        [(Behaviour::Dies, "cut short"), (Behaviour::Wrong, ": chunk "), (Behaviour::Trickles, "too slow")]
    {
        let web = Web::start(&scene.sealed, move |_| behaviour);
        let said = scene.loads(&["--source", &web.url("127.0.0.1")]);
        assert!(said.contains("going on from the vault's host") && said.contains(words), "{behaviour:?}: {said}");
    }
    // What comes behind the range is not read: there is nothing to say.
    for announced in [false, true] {
        let web = Web::start(&scene.sealed, move |_| Behaviour::TooMuch { announced });
        let said = scene.loads(&["--source", &web.url("127.0.0.1")]);
        assert!(!said.contains("warning") && !web.ranges().is_empty(), "{said}");
    }
}

#[test]
fn retry_of_a_failed_load_asks_for_what_the_cache_has_not_and_for_nothing_else() {
    let scene = Sealed::open();
    scene.host_loses_units();
    let cache = scene.world.path("cache");
    let dying = Web::start(&scene.sealed, |path| if path == UNIT { Behaviour::Dies } else { Behaviour::Serve });
    let options = |web: &Web| {
        let url = web.url("127.0.0.1");
        ["--cache", text(&cache), "--cache-size", "1G", "--source", &url].map(str::to_owned)
    };
    let load = |web: &Web| {
        let mut load = scene.command(&[]);
        load.args(options(web));
        load
    };
    scene.refused_by(&mut load(&dying), "sealed unit 2");
    scene.assert_no_lease();
    let good = Web::start(&scene.sealed, |_| Behaviour::Serve);
    scene.loads_by(&mut load(&good));
    let asked: Vec<String> = good.ranges().into_iter().map(|(path, _)| path).collect();
    assert!(!asked.is_empty() && asked.iter().all(|path| path == UNIT), "{asked:?}");
}

#[test]
fn loader_or_load_that_is_killed_on_its_way_leaves_nothing_that_can_be_read() {
    let scene = Sealed::open();
    let web = Web::start(&scene.sealed, |path| if path == UNIT { Behaviour::Stops } else { Behaviour::Serve });
    let mut command = scene.command(&["--source", &web.url("127.0.0.1")]);
    let asked = |times: usize| {
        wait_until("the unit is asked for", || web.ranges().iter().filter(|(path, _)| path == UNIT).count() >= times);
    };

    let load = scene.start(&mut command);
    asked(1);
    assert!(
        !scene.modes().is_empty() && scene.modes().iter().all(|mode| *mode == 0),
        "nobody reads what has not passed"
    );
    signal(loader(load.pid()), Signal::KILL);
    let (code, said) = load.wait();
    assert!(code == Some(1) && said.contains("loader-died"), "{code:?} {said}");
    assert!(!scene.has_files(), "{said}");
    scene.assert_no_lease();

    // Nobody wipes after one that was killed itself. What it leaves is hidden, and a retry says so.
    let load = scene.start(&mut command);
    asked(2);
    let loader = loader(load.pid());
    load.kill();
    wait_until("the loader is gone", || !Path::new(&format!("/proc/{loader}")).exists());
    let left = scene.modes();
    assert!(!left.is_empty() && left.iter().all(|mode| *mode == 0), "{left:?}");
    let (code, said) = vault_tests::run(&mut scene.command(&[]));
    assert!(code != Some(0) && said.contains("destination-left-behind"), "{said}");
    fs::remove_dir_all(scene.place()).expect("it is ours");
    scene.loads(&[]);
}
