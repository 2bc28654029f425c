//! Versions of a model that take each other's place under a command, files that it needs no more, and several models.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use vault_tests::serve::{STRANGER, is_root, run_as, wait_until, with_mount, with_script};
use vault_tests::{Running, Swtpm, World, run, run_ok};

fn signal(running: &Running, name: &str) {
    run_ok(Command::new("sh").args(["-c", &format!("kill -{name} {}", running.pid())]));
}

/// `demo@1` and `demo@2`, whose configurations say which they are.
fn publish_two(world: &World) {
    let config = world.source().join("config.json");
    fs::write(&config, "{\"version\": \"one\"}").expect("it is ours");
    world.publish("1");
    fs::write(&config, "{\"version\": \"two\"}").expect("it is ours");
}

fn start(world: &World, guest: &Swtpm, options: &[&str], script: &str, log: &str) -> Running {
    Running::start(&mut run_as(world, guest, options, script), &world.path(log))
}

/// Leases that the log has an end of.
fn ended(world: &World) -> usize {
    run_ok(world.vaultctl().args(["log", "show"])).lines().filter(|line| line.contains(" end ")).count()
}

#[test]
fn another_version_takes_the_place_of_one_and_a_failed_one_changes_nothing() {
    if !is_root() {
        return;
    }
    let (world, guest) = World::open_with_guest();
    publish_two(&world);
    let follow = world.path("version");
    fs::write(&follow, "1\n").expect("it is ours");
    let options = ["--follow", follow.to_str().expect("a path"), "--on-swap", "USR1"];
    let script = "exec 3<\"$1/config.json\"; trap 'cat \"$1/config.json\"; echo \" seen\"' USR1; \
                  trap 'cat <&3; echo \" held\"; exec 3<&-' USR2; echo started; while :; do sleep 0.05; done";
    let mut running = start(&world, &guest, &options, script, "swap.log");
    running.wait_for("started");

    // One that is not there is not loaded, and what is there stays.
    fs::write(&follow, "demo@3\n").expect("it is ours");
    running.wait_for("warning: the version that is there stays");
    signal(&running, "USR1");
    running.wait_for("\"one\"} seen");

    // One that is there takes its place in one step; who has the old one open keeps it.
    world.publish("2");
    fs::write(&follow, "demo@2\n").expect("it is ours");
    running.wait_for("\"two\"} seen");
    assert_eq!(ended(&world), 0);
    assert!(!running.log().contains("is used no more"), "it is open");
    signal(&running, "USR2");
    running.wait_for("\"one\"} held");
    running.wait_for("demo@1 is used no more: wiped");
    wait_until("its lease is ended", || ended(&world) == 1);
    running.terminate();
    assert_eq!((ended(&world), with_mount(&world.path("weights")).len()), (2, 0));

    // A command that can't is started again. It begins with what the file names.
    let options = ["--follow", follow.to_str().expect("a path")];
    let script = "cat \"$1/config.json\"; echo \" read\"; while :; do sleep 0.05; done";
    let mut running = start(&world, &guest, &options, script, "restart.log");
    running.wait_for("\"two\"} read");
    fs::write(&follow, "1").expect("it is ours");
    running.wait_for("\"one\"} read");
    wait_until("the lease of the other is ended", || ended(&world) == 3);
    assert_eq!(running.terminate(), Some(128 + 15));
    assert_eq!(ended(&world), 4);
}

#[test]
fn files_are_dropped_when_the_server_has_read_them_and_come_again_for_a_worker() {
    if !is_root() {
        return;
    }
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    let ready = world.path("ready");
    let ready = format!("file:{}", ready.display());
    let options = ["--drop-after", &ready, "--reload-on", "USR2"];
    let list = "$(ls -A \"$1\" | wc -l) files";
    let script = format!(
        "exec 3<\"$1/config.json\"; trap \"echo {list}\" USR1; trap 'exec 3<&-' HUP; \
         trap \"sha256sum $1/model.safetensors; touch $2; echo again\" USR2; touch \"$2\"; echo started; \
         while :; do sleep 0.05; done",
        list = list.replace('"', "\\\"").replace("$(", "\\$(")
    );
    let mut command = run_as(&world, &guest, &options, &script);
    let mut running = Running::start(command.arg(world.path("ready")), &world.path("drop.log"));
    running.wait_for("still use the files");
    signal(&running, "USR1");
    let files = fs::read_dir(world.source()).expect("the source").count();
    running.wait_for(&format!("{files} files"));
    signal(&running, "HUP");
    running.wait_for("the files are dropped");
    signal(&running, "USR1");
    running.wait_for("0 files");
    assert_eq!(ended(&world), 0, "the command has the weights: its lease goes on");

    // A worker that starts again finds them, and they go again.
    signal(&running, "USR2");
    running.wait_for("again");
    let source = run_ok(Command::new("sha256sum").arg(world.source().join("model.safetensors")));
    let digest = source.split(' ').next().expect("a digest");
    assert!(running.log().contains(digest), "{}", running.log());
    wait_until("they are dropped again", || running.log().matches("the files are dropped").count() == 2);
    wait_until("the first lease is ended", || ended(&world) == 1);
    running.terminate();
    assert_eq!(ended(&world), 2);
}

/// The capabilities that the unit in `examples` leaves to `run`.
fn capabilities_of_the_unit() -> String {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/weightvault-run.service");
    let unit = fs::read_to_string(unit).expect("the example");
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("it has a set");
    set.split(' ').map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase())).collect()
}

#[test]
fn unit_of_the_examples_leaves_run_what_it_needs() {
    if !is_root() {
        return;
    }
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    fs::set_permissions(world.path("."), fs::Permissions::from_mode(0o711)).expect("it is ours");
    let ready = world.path("ready.d");
    fs::create_dir(&ready).expect("it is ours");
    fs::set_permissions(&ready, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let ready = ready.join("ready");
    let (stranger, file) = (STRANGER.to_string(), format!("file:{}", ready.display()));
    let user = format!("{stranger}:{stranger}");
    let script = "test -s \"$1/model.safetensors\" && touch \"$2\" && \
                  while test -e \"$1/config.json\"; do sleep 0.05; done; id -u";
    let run_it = run_as(&world, &guest, &["--user", &user, "--drop-after", &file], script);
    let mut bound = Command::new("setpriv");
    bound.arg(format!("--bounding-set=-all{}", capabilities_of_the_unit())).arg(run_it.get_program());
    let (code, said) = run(bound.args(run_it.get_args()).arg(&ready));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the files are dropped") && said.lines().any(|line| line == stranger), "{said}");
}

#[test]
fn several_models_have_places_and_leases_of_their_own() {
    if !is_root() {
        return;
    }
    let (world, guest) = World::open_with_guest();
    publish_two(&world);
    world.publish("2");
    let place = |version: u32| world.path(&format!("weights-{version}"));
    let command = |models: &[String], script: &str| {
        let mut command = world.enclave("run");
        command.args(models.iter().flat_map(|model| ["--model", model.as_str()]));
        with_script(&mut command, &world, &guest, script);
        command.args([place(1), place(2)]);
        run(&mut command)
    };
    let of = |version: u32| format!("demo@{version}={}", place(version).display());
    let script = "grep -c one \"$1/config.json\" && grep -c two \"$2/config.json\" && exit 7";
    let (code, said) = command(&[of(1), of(2)], script);
    assert_eq!(code, Some(7), "{said}");
    assert_eq!(said.matches("released  demo@").count(), 2, "{said}");
    assert_eq!(ended(&world), 2);

    // Where one of them can't be had, no command starts and nothing is left of the other.
    let (code, said) = command(&[of(1), of(3)], "echo started");
    assert_eq!(code, Some(125), "{said}");
    assert!(!said.contains("started") && said.contains("released  demo@1"), "{said}");
    assert_eq!(ended(&world), 3);
    let (code, said) = command(&[of(1), format!("{}/inside", of(1).replace("@1", "@2"))], "true");
    assert!(code == Some(125) && said.contains("paths-overlap"), "{said}");
    let (code, said) = command(&[of(1), format!("{},group=layer.0", of(2))], "ls \"$2\" && exit 7");
    assert_eq!(code, Some(7), "{said}");
}
