//! A node gets its part of a model: the keys of its units, and files that hold just its tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use ledger::safetensors::Header;
use vault_enclave::publisher::PublisherSigner;
use vault_tests::memory::{Secrets, children};
use vault_tests::world::{APPROVERS, guest_rule};
use vault_tests::{Running, Swtpm, World, publisher, run, run_ok};

/// A published model, a guest that gets all of it by one rule and one layer by another.
struct Scene {
    world: World,
    guest: Swtpm,
}

/// Files by name.
type Files = BTreeMap<String, Vec<u8>>;

impl Scene {
    fn open() -> Self {
        let scene = Self::empty();
        scene.world.seal("1");
        scene.world.approve(&APPROVERS[..2]);
        scene
    }

    /// Before anything is published.
    fn empty() -> Self {
        let mut guest = None;
        let world = World::before_ceremony(|world, policy| {
            let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &vault_tests::binary("vault-host"));
            let all = guest_rule(&tpm);
            let stage = all.replacen("[release.guest]", "[release.stage]", 1);
            policy.push_str(&stage.replacen("groups = \"any\"", "groups = [\"layer.0\"]", 1));
            policy.push_str(&all);
            guest = Some(tpm);
        });
        world.sign_genesis();
        Self { world, guest: guest.expect("the closure ran") }
    }

    fn place(&self) -> PathBuf {
        let world = self.world.path("");
        let world = world.file_name().expect("the world has a directory").to_string_lossy().into_owned();
        PathBuf::from(format!("/dev/shm/{world}-part"))
    }

    fn command(&self, rule: &str, options: &[&str]) -> Command {
        let mut load = self.world.enclave("load");
        load.args(["demo@1", "--rule", rule, "--tpm", &self.guest.tcti, "--vault"]).arg(self.world.vault());
        load.arg("--into").arg(self.place()).args(options);
        load
    }

    /// What is there while a load with these options holds its lease, and what it said.
    fn load(&self, rule: &str, options: &[&str]) -> (Files, String) {
        let log = self.world.path("load.log");
        // Running adds to what is there.
        let _ = fs::remove_file(&log);
        let mut load = Running::start(&mut self.command(rule, options), &log);
        load.wait_for("ready");
        let (files, said) = (files_of(&self.place()), load.log());
        load.terminate();
        let _ = fs::remove_dir(self.place());
        (files, said)
    }

    /// A load that must fail with this code, and leave nothing.
    fn refused(&self, rule: &str, options: &[&str], code: &str) {
        let (status, said) = run(&mut self.command(rule, options));
        assert!(status != Some(0) && said.contains(code), "{code}: {said}");
        let left = fs::read_dir(self.place()).is_ok_and(|mut entries| entries.next().is_some());
        assert!(!left, "{code}: plaintext is left");
        let _ = fs::remove_dir(self.place());
    }

    /// How many entries of this type the log has.
    fn entries(&self, kind: &str) -> usize {
        run_ok(self.world.vaultctl().args(["log", "show"])).matches(&format!(" {kind} ")).count()
    }
}

fn files_of(dir: &Path) -> Files {
    let files = fs::read_dir(dir).expect("the directory").map(|file| file.expect("the directory").path());
    files
        .map(|file| {
            (file.file_name().expect("a name").to_string_lossy().into_owned(), fs::read(&file).expect("a file"))
        })
        .collect()
}

/// The tensors of a safetensors file.
fn tensors(file: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let header = Header::parse(file, file.len() as u64).expect("a safetensors file");
    let places = header.places().map(|(tensor, place)| {
        let bytes = &file[usize::try_from(place.start).expect("small")..usize::try_from(place.end).expect("small")];
        (tensor.name.clone(), bytes.to_vec())
    });
    places.collect()
}

const MODEL: &str = "model.safetensors";

#[test]
fn node_gets_the_keys_and_the_tensors_of_its_part_and_no_others() {
    let scene = Scene::open();
    let source = files_of(&scene.world.source());
    let all = tensors(&source[MODEL]);
    let of_layers = |layers: &[&str]| -> BTreeMap<_, _> {
        let own = |name: &str| layers.iter().any(|layer| name.contains(&format!(".layers.{layer}.")));
        all.iter().filter(|(name, _)| own(name)).map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
    };

    // By group: one layer, in a file of its own, and nothing beside it.
    let (files, said) = scene.load("stage", &["--group", "layer.0"]);
    assert_eq!(files.keys().collect::<Vec<_>>(), [MODEL]);
    assert!(tensors(&files[MODEL]) == of_layers(&["0"]));
    assert!(files[MODEL].len() < source[MODEL].len() / 2, "{said}");
    scene.refused("stage", &["--group", "layer.1"], "(denied)");
    scene.refused("stage", &["--rank", "1/3"], "(denied)");

    assert!(run_ok(scene.world.vaultctl().args(["log", "show"])).contains("group-not-granted"));

    // By rank: all of them have all tensors, and the files that are none; layers in the middle are one rank's alone.
    let ranks: Vec<Files> = ["0/2", "1/2"].iter().map(|rank| scene.load("guest", &["--rank", rank]).0).collect();
    let mut together = BTreeMap::new();
    for (files, layers) in ranks.iter().zip([vec!["0"], vec!["1", "2"]]) {
        assert_eq!(files.keys().collect::<Vec<_>>(), source.keys().collect::<Vec<_>>());
        assert!(files.iter().all(|(name, bytes)| name == MODEL || *bytes == source[name]));
        let own = tensors(&files[MODEL]);
        let in_layers: BTreeMap<_, _> = own
            .iter()
            .filter(|(name, _)| name.contains(".layers."))
            .map(|(name, bytes)| (name.clone(), bytes.clone()))
            .collect();
        assert!(in_layers == of_layers(&layers));
        together.extend(own);
    }
    assert!(together == all);
    scene.refused("guest", &["--rank", "0/9"], "rank-too-few-layers");
    scene.refused("guest", &["--rank", "2/2"], "want R/N");
}

#[test]
fn tensors_are_found_by_name_at_the_cost_of_a_release_of_the_headers() {
    let scene = Scene::open();
    let all = tensors(&files_of(&scene.world.source())[MODEL]);
    let (files, said) = scene.load("stage", &["--tensor", "*.layers.0.*q_proj*"]);
    assert!(said.contains("found     1 tensors that match"), "{said}");
    let found = tensors(&files[MODEL]);
    assert!(found.keys().any(|name| name.contains("q_proj")) && found.keys().all(|name| name.contains(".layers.0.")));
    assert!(found.iter().all(|(name, bytes)| all[name] == *bytes));
    // The lease of the headers ended before the one of the tensors began: both are in the log.
    assert_eq!((scene.entries("release"), scene.entries("end")), (2, 2));

    scene.refused("stage", &["--tensor", "*.layers.9.*"], "tensor-not-found");
    scene.refused("stage", &["--tensor", "*.layers.9.*"], "such as");
    // A tensor that is there, and that the rule does not give.
    scene.refused("stage", &["--tensor", "*.layers.1.*"], "(denied)");
    assert_eq!((scene.entries("release"), scene.entries("end")), (5, 5), "no lease of headers is left");
}

#[test]
fn loader_of_a_part_has_the_keys_of_its_units_and_of_no_others() {
    if !rustix::process::geteuid().is_root() {
        // The kernel closes the processes of a vault to their own user.
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI runs this as root");
        println!("skipped: only root can search the memory of a loader");
        return;
    }
    let scene = Scene::empty();
    let (world, vault) = (&scene.world, scene.world.vault_file());
    let pem = fs::read_to_string(world.path("publisher.pem")).expect("the publisher's key");
    let signer = PublisherSigner::from_pem(&pem, &ring::rand::SystemRandom::new()).expect("a key");
    let sealed = world.path("sealed");
    let secrets = publisher::seal_known(&world.source(), &sealed, &vault, &signer);
    run_ok(world.enclave("publish").arg(&sealed).arg("--vault").arg(world.vault()));
    world.approve(&APPROVERS[..2]);
    let manifest = fs::read(sealed.join("manifest.json")).expect("the manifest");
    let manifest = ledger::manifest::Manifest::parse(&manifest).expect("the manifest");

    // A source that takes a request and says nothing: the loader has its keys by then, and waits.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let source = format!("http://{}", silent.local_addr().expect("a port"));
    let mut command = scene.command("stage", &["--group", "layer.0", "--source", &source]);
    let mut load = Running::start(&mut command, &world.path("load.log"));
    let (asked, _) = silent.accept().expect("the loader asks");
    let [loader] = children(load.pid()).try_into().expect("the loader");
    let mut control = Secrets::default();
    control.note("vault id", vault.id().as_bytes());
    assert_eq!(
        control.found_in(loader).expect("root reads any memory"),
        control.names(),
        "the search finds what is there"
    );
    let has = |group: &str| ["layer.0", "header"].contains(&group);
    let own = (0_u32..).zip(manifest.units()).filter(|(_, unit)| has(unit.group.as_str()));
    let own: BTreeSet<String> = own.flat_map(|(index, _)| [0, 1].map(|half| format!("unit {index}/{half}"))).collect();
    assert!(own.len() < secrets.names().len() / 2);
    assert_eq!(secrets.found_in(loader).expect("root reads any memory"), own);

    // Nobody is there any more: the rest comes from the host.
    drop((asked, silent));
    load.wait_for("ready");
    load.terminate();
    let _ = fs::remove_dir(scene.place());
}
