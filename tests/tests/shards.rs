//! Parts of a model for machines of their own: a machine has the keys of its part, and opens no byte of another.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use attestation::LeaseKey;
use ledger::entry::{Entry, Release};
use ledger::manifest::{Manifest, Selection, unit_path};
use ledger::names::{Group, Name};
use ledger::vault_file::VaultFile;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use vault_enclave::agent::attester::{AgentIdentity, TpmAgent};
use vault_enclave::agent::remote::{Hosts, RemoteError};
use vault_enclave::agent::session::{Granted, Session, Wanted};
use vault_enclave::open::{
    Destination, Directory, GrantedModel, LocalUnits, OpenModelError, ReadBy, SourceError, UnitSource,
};
use vault_enclave::place::{Facts, judge};
use vault_proto::convert::{ChallengeFor, ChallengeRequest, ModelName};
use vault_tests::memory::key_memory;
use vault_tests::nodes::{Nodes, sealed_unit};
use vault_tests::serve::is_root;
use vault_tests::thief::{chunks_of, context_of, try_all};
use vault_tests::weights::{self, BY_RANK, BYTES, Files, of_ranks, safetensors, sharded_state, tensors, those};
use vault_tests::{Running, run_ok};

const WEIGHTS: &str = "model.safetensors";

/// Eight layers, two for each stage of a pipeline of four; the first has the embedding, the last the head.
fn pipeline() -> Files {
    let layers = (0..8).flat_map(|layer| {
        ["self_attn.q_proj", "mlp.up_proj"].map(|part| (format!("model.layers.{layer}.{part}.weight"), BYTES))
    });
    let all = std::iter::once(("model.embed_tokens.weight".to_owned(), BYTES)).chain(layers);
    let all: Vec<_> = all.chain([("lm_head.weight".to_owned(), BYTES)]).collect();
    let config = br#"{"num_hidden_layers":8}"#.to_vec();
    Files::from([(WEIGHTS.to_owned(), safetensors(WEIGHTS, &all)), ("config.json".to_owned(), config)])
}

const STAGES: [&str; 8] = [
    "--group",
    r"stage.1=embed_tokens|layers\.[01]\.",
    "--group",
    r"stage.2=layers\.[23]\.",
    "--group",
    r"stage.3=layers\.[45]\.",
    "--group",
    r"stage.4=layers\.[67]\.|lm_head",
];

/// An agent within this process: attested by a software TPM, by the same steps as a loader's.
struct Agent {
    identity: AgentIdentity,
    vault: VaultFile,
    hosts: Hosts,
    rule: Name,
    manifest: Manifest,
}

impl Agent {
    async fn new(nodes: &Nodes, rule: &str) -> Self {
        let tcti = nodes.tpm(rule).tcti.parse().expect("a TPM");
        let tpm = TpmAgent::establish(tcti, None).expect("a TPM that answers");
        let identity = AgentIdentity { tpm: Some(tpm), chip: None, event_log: PathBuf::new() };
        let hosts = Hosts { addresses: vec![nodes.world.url()], ca: None };
        let name = ModelName { model: "demo".parse().expect("a name"), version: "1".parse().expect("a version") };
        let manifest = hosts.connect().await.expect("the host").manifest(name).await.expect("a manifest");
        Self { identity, vault: nodes.world.vault_file(), hosts, rule: rule.parse().expect("a name"), manifest }
    }

    /// Asks for groups. The lease key is one that lies in no key memory.
    async fn ask(&self, groups: &[&str]) -> Result<Granted, RemoteError> {
        let groups = groups.iter().map(|group| Group::try_from((*group).to_owned()).expect("a group"));
        let selection = Selection::Groups(groups.collect());
        let remote = self.hosts.connect().await.expect("the host");
        let id = self.manifest.id();
        let request = ChallengeRequest {
            rule: self.rule.clone(),
            model: id.model.clone(),
            version: id.version.clone(),
            action: ChallengeFor::Load(selection.clone()),
            tpm: self.identity.tpm_identity(),
            forms: self.identity.forms(),
        };
        let challenge = remote.challenge(request).await?;
        let wanted = Wanted {
            vault: &self.vault,
            rule: &self.rule,
            model: &id.model,
            version: &id.version,
            manifest: &self.manifest,
            selection: &selection,
            workload: None,
        };
        let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(pair.as_ref()).expect("a key");
        let lease = LeaseKey::try_from(pair.public_key().as_ref()).expect("32 bytes");
        let attester = self.identity.open().expect("its TPM");
        let rng = SystemRandom::new();
        let (session, request) = Session::start(&wanted, challenge, &attester, lease, &rng).expect("evidence");
        drop(attester);
        Ok(session.accept(remote.release(request).await?).expect("a grant that is ours"))
    }

    fn units_of(&self, group: &str) -> Vec<u32> {
        let units = (0_u32..).zip(self.manifest.units());
        units.filter(|(_, unit)| unit.group.as_str() == group).map(|(index, _)| index).collect()
    }
}

fn labels(release: &Release) -> Vec<&str> {
    let groups = release.marks.as_ref().and_then(|marks| marks.groups()).expect("few groups are listed");
    groups.iter().map(Group::as_str).collect()
}

/// Serves a unit's ciphertext in the place of another's.
struct Swapped<'a> {
    sealed: &'a Path,
    asked: u32,
    served: u32,
}

impl UnitSource for Swapped<'_> {
    type Reader = std::io::Take<File>;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<Self::Reader, SourceError> {
        let unit = if unit == self.asked { self.served } else { unit };
        let mut file = File::open(self.sealed.join(unit_path(unit)))?;
        file.seek(SeekFrom::Start(range.start))?;
        Ok(std::io::Read::take(file, range.end - range.start))
    }
}

fn destination(into: &Path) -> Destination {
    let place = judge(&Facts::gather(into).expect("a directory"), 0, true).expect("any place will do");
    Destination::new(Directory::open(into).expect("a directory"), place).expect("an empty directory")
}

#[tokio::test]
async fn stage_2_of_4_opens_no_byte_of_the_others_with_its_real_keys() {
    let nodes = Nodes::open(&[("stage-2", &["stage.2"]), ("stage-3", &["stage.3"])]);
    let model = pipeline();
    let sealed = nodes.publish(&model, &STAGES);
    let agent = Agent::new(&nodes, "stage-2").await;
    assert!(key_memory().is_empty(), "no key is in this process");
    let granted = agent.ask(&["stage.2"]).await.expect("its own stage");
    assert_eq!(labels(&granted.release), ["header", "stage.2"]);

    // What it was given are the keys of its stage and of the header, and those lie in its memory.
    let [own] = agent.units_of("stage.2")[..] else { panic!("a stage is one run of tensors") };
    let units: Vec<u32> = granted.keys.units().iter().collect();
    assert_eq!(units, [agent.units_of("header"), vec![own]].concat());
    let Ok([memory]) = <[Vec<u8>; 1]>::try_from(key_memory()) else { panic!("its keys alone are in key memory") };
    let keys: Vec<Vec<u8>> = memory.chunks(32).map(<[u8]>::to_vec).collect();
    assert_eq!(keys.len(), units.len());

    // With each of them, in the context of each unit, on every chunk of all ciphertext.
    let contexts: Vec<_> =
        (0_u32..).zip(agent.manifest.units()).map(|(unit, _)| context_of(&agent.manifest, unit)).collect();
    let mut tried = 0;
    for (unit, plan) in (0_u32..).zip(agent.manifest.units()) {
        let message = sealed_unit(&sealed, unit);
        let opened = try_all(&keys, &contexts, &message);
        if units.contains(&unit) {
            let from = usize::try_from(plan.offset).expect("small");
            let plain = &model[WEIGHTS][from..from + usize::try_from(plan.length).expect("small")];
            assert!((opened.commitments, opened.chunks) == (1, chunks_of(&message)), "unit {unit}");
            assert!(opened.bytes == plain, "unit {unit} is what was sealed");
        } else {
            assert_eq!((opened.commitments, opened.chunks), (0, 0), "unit {unit} of {}", plan.group);
            tried += chunks_of(&message);
        }
    }
    let foreign = ["stage.1", "stage.3", "stage.4", "files"].map(|group| agent.units_of(group)).concat();
    let foreign_chunks: usize = foreign.iter().map(|unit| chunks_of(&sealed_unit(&sealed, *unit))).sum();
    assert!(tried == foreign_chunks && tried > 20, "{tried} chunks");

    // By our own code: its stage, and where the host gives another stage's units for it, nothing. No hash is compared, so
    // that keys are all there is between.
    let part = GrantedModel { manifest: &agent.manifest, keys: &granted.keys, verify_units: false };
    let into = tempfile::tempdir().expect("a directory");
    let local = LocalUnits::new(&sealed, &agent.manifest, ReadBy::PageCache).expect("the sealed model");
    let opened = part.open(&local, destination(into.path()), 2, &|_| {}).expect("its own stage");
    let files = weights::read(into.path());
    let is_own = |name: &str| name.contains("layers.2.") || name.contains("layers.3.");
    assert_eq!(files.keys().collect::<Vec<_>>(), [WEIGHTS]);
    assert!(tensors(&files[WEIGHTS]) == those(&tensors(&model[WEIGHTS]), is_own));
    opened.wipe().expect("it is ours");
    let [other] = agent.units_of("stage.3")[..] else { panic!("a stage is one run of tensors") };
    let length = |unit| agent.manifest.unit(unit).expect("a unit").length;
    assert_eq!(length(own), length(other), "nothing but keys tells them apart");
    let swapped = Swapped { sealed: &sealed, asked: own, served: other };
    let refused =
        part.open(&swapped, destination(into.path()), 2, &|_| {}).map(drop).expect_err("another's ciphertext");
    assert!(matches!(refused, OpenModelError::Unit { unit, .. } if unit == own), "{refused}");
    assert_eq!(refused.code(), "key-commitment");
    assert!(weights::read(into.path()).is_empty());

    // Asked for another stage, alone or with its own, the keeper refuses, and the log says why.
    for groups in [["stage.3"].as_slice(), &["stage.2", "stage.3"], &["files"]] {
        let Err(RemoteError::Call(refused)) = agent.ask(groups).await else { panic!("{groups:?} are granted") };
        assert!(refused.is_refusal() && refused.code() == "denied", "{refused}");
    }
    let other = Agent::new(&nodes, "stage-3").await;
    let third = other.ask(&["stage.3"]).await.expect("its own stage");
    assert_eq!(labels(&third.release), ["header", "stage.3"]);
    // The rule of another machine, as everybody who reads the policy knows it.
    let claimed = Agent { rule: "stage-3".parse().expect("a name"), ..agent };
    assert!(claimed.ask(&["stage.3"]).await.is_err_and(|refused| matches!(refused, RemoteError::Call(_))));

    // What everybody can read of it.
    let log = nodes.log();
    for (group, rule) in [("stage.2", "stage-2"), ("stage.3", "stage-3")] {
        let release = format!("under {rule}; group {group};");
        assert_eq!(log.matches(&release).count(), 1, "{release} in {log}");
    }
    assert_eq!(log.matches("group-not-granted").count(), 3, "{log}");
    assert!(log.contains("platform-not-listed"), "{log}");
    let entry = Entry::parse(&third.entry).expect("an entry");
    assert!(matches!(entry, Entry::Release(release) if labels(&release) == ["header", "stage.3"]));
}

/// Options of groups.
fn groups<'a>(labels: &[&'a str]) -> Vec<&'a str> {
    labels.iter().flat_map(|label| ["--group", *label]).collect()
}

/// All files, and of the weights the tensors whose names `have` says so of.
fn is_part(files: &Files, model: &Files, have: impl Fn(&str) -> bool) -> bool {
    let same = |name: &String| name == WEIGHTS || files[name] == model[name];
    files.keys().eq(model.keys())
        && files.keys().all(same)
        && tensors(&files[WEIGHTS]) == those(&tensors(&model[WEIGHTS]), have)
}

#[test]
fn machines_of_a_mixture_have_the_experts_that_policy_gives_them_and_no_others() {
    let nodes = Nodes::open(&[
        ("even", &["other", "files", "expert-0", "expert-2"]),
        ("odd", &["other", "files", "expert-1", "expert-3"]),
    ]);
    let layer = |layer: u32| {
        let experts = (0..4).map(move |expert| format!("model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"));
        std::iter::once(format!("model.layers.{layer}.mlp.router.weight")).chain(experts)
    };
    let names = (0..3).flat_map(layer).chain(["lm_head.weight".to_owned()]);
    let weights = safetensors(WEIGHTS, &names.map(|name| (name, BYTES)).collect::<Vec<_>>());
    let model = Files::from([(WEIGHTS.to_owned(), weights), ("config.json".to_owned(), b"{}".to_vec())]);
    nodes.publish(&model, &["--group", r"expert-$1=\.experts\.(\d+)\."]);
    for (node, experts, others) in [("even", [0, 2], [1, 3]), ("odd", [1, 3], [0, 2])] {
        let own = experts.map(|expert| format!("expert-{expert}"));
        let (files, _) = nodes.load(node, &groups(&["other", "files", &own[0], &own[1]]));
        let foreign = |name: &str| others.iter().any(|expert| name.contains(&format!(".experts.{expert}.")));
        assert!(is_part(&files, &model, |name| !foreign(name)), "{node}: {:?}", files.keys());
        // One alone: its tensors of all layers, nothing beside them.
        let (files, _) = nodes.load(node, &groups(&[&own[1]]));
        let is_one = |name: &str| name.contains(&format!(".experts.{}.", experts[1]));
        assert_eq!(files.keys().collect::<Vec<_>>(), [WEIGHTS]);
        assert!(tensors(&files[WEIGHTS]) == those(&tensors(&model[WEIGHTS]), is_one), "{node}");
        for expert in others {
            let said = nodes.refused(node, &groups(&["other", &format!("expert-{expert}")]), "(denied)");
            assert!(said.contains("vaultctl explain"), "{said}");
        }
        // All of it is more than it may have, too.
        nodes.refused(node, &[], "(denied)");
    }
    let said = nodes.refused("even", &groups(&["expert-9"]), "select-no-such-group");
    assert!(said.contains("expert-0, expert-1, expert-2, expert-3"), "{said}");
    assert_eq!(nodes.log().matches("group-not-granted").count(), 6);
}

#[test]
fn adapter_of_one_customer_goes_to_its_machine_and_the_base_to_all() {
    let base = ["files", "layer.0", "layer.1", "other"];
    let nodes = Nodes::open(&[("acme", &[base.as_slice(), &["lora.acme"]].concat()), ("plain", &base)]);
    let weights = ["model.embed.weight", "model.layers.0.q_proj.weight", "model.layers.1.q_proj.weight"];
    let weights = safetensors(WEIGHTS, &weights.map(|name| (name.to_owned(), BYTES)));
    let mut model = Files::from([(WEIGHTS.to_owned(), weights), ("config.json".to_owned(), b"{}".to_vec())]);
    for customer in ["acme", "zeta"] {
        let path = format!("adapters/{customer}/adapter_model.safetensors");
        let lora = [("base_model.model.layers.0.q_proj.lora_A.weight".to_owned(), BYTES)];
        model.insert(path.clone(), safetensors(&path, &lora));
        model.insert(format!("adapters/{customer}/adapter_config.json"), format!("{{\"for\":\"{customer}\"}}").into());
    }
    nodes.publish(&model, &["--file-group", "lora.$1=^adapters/([^/]+)/"]);
    let without = |customers: &[&str]| -> Files {
        let is_theirs =
            |path: &String| customers.iter().any(|customer| path.starts_with(&format!("adapters/{customer}/")));
        model.iter().filter(|(path, _)| !is_theirs(path)).map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
    };
    let with_acme = [base.as_slice(), &["lora.acme"]].concat();
    assert!(nodes.load("acme", &groups(&with_acme)).0 == without(&["zeta"]));
    // The adapter alone, with its configuration: for a machine that has the base already.
    let (files, _) = nodes.load("acme", &groups(&["lora.acme"]));
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        ["adapters/acme/adapter_config.json", "adapters/acme/adapter_model.safetensors"]
    );
    assert!(files.iter().all(|(path, bytes)| model[path] == *bytes));
    assert!(nodes.load("plain", &groups(&base)).0 == without(&["acme", "zeta"]));
    nodes.refused("plain", &groups(&with_acme), "(denied)");
    nodes.refused("plain", &groups(&["lora.acme"]), "(denied)");
    nodes.refused("acme", &groups(&["lora.zeta"]), "(denied)");
    assert_eq!(nodes.log().matches("group-not-granted").count(), 3);
}

#[test]
fn each_rank_of_a_sharded_state_has_its_own_files() {
    let nodes = Nodes::open(&[("zero", &["files", "rank-0"]), ("one", &["files", "rank-1"])]);
    let model = sharded_state();
    nodes.publish(&model, &BY_RANK);
    for (node, own, other) in [("zero", 0, 1), ("one", 1, 3)] {
        assert!(nodes.load(node, &["--rank", &format!("{own}/4")]).0 == of_ranks(&model, &[own]));
        let mut alone = of_ranks(&model, &[own]);
        alone.remove("config.json");
        assert!(nodes.load(node, &groups(&[&format!("rank-{own}")])).0 == alone);
        nodes.refused(node, &["--rank", &format!("{other}/4")], "(denied)");
        nodes.refused(node, &groups(&[&format!("rank-{other}")]), "(denied)");
    }
    let said = nodes.refused("zero", &["--rank", "0/2"], "rank-other-count");
    assert!(said.contains("are for 4 ranks"), "{said}");
    assert_eq!(nodes.log().matches("group-not-granted").count(), 4);
}

/// The files of each rank in its directory.
fn in_directories(model: &Files, ranks: &[u32]) -> Files {
    let of_rank = |rank: &u32| {
        let rank = *rank;
        of_ranks(model, &[rank]).into_iter().map(move |(path, bytes)| (format!("rank{rank}/{path}"), bytes))
    };
    ranks.iter().flat_map(of_rank).collect()
}

#[test]
fn ranks_of_one_guest_share_one_report_one_lease_and_the_keys_of_their_union() {
    let nodes = Nodes::open(&[("half", &["files", "rank-0", "rank-1"])]);
    let model = sharded_state();
    nodes.publish(&model, &BY_RANK);
    let both = ["--rank", "1/4", "--rank", "0/4"];
    let mut load = Running::start(&mut nodes.command("half", &both), &nodes.world.path("ranks.log"));
    load.wait_for("ready");
    // Together, as the workers of one server read them: every name says whose file it is.
    assert!(weights::read(&nodes.place()) == of_ranks(&model, &[0, 1]));
    let leases = run_ok(nodes.world.vaultctl().args(["--json", "leases"]));
    let leases: serde_json::Value = serde_json::from_str(&leases).expect("JSON");
    let [lease] = leases["leases"].as_array().expect("a list").as_slice() else { panic!("one lease: {leases}") };
    // Four files of the two ranks, each with its header, and the configuration.
    assert_eq!(lease["units"], 9, "{lease}");
    load.terminate();
    let _ = std::fs::remove_dir(nodes.place());
    let log = nodes.log();
    assert_eq!((log.matches(" release ").count(), log.matches(" end ").count()), (1, 1), "{log}");
    assert!(log.contains("under half; groups files, rank-0, rank-1;"), "{log}");

    // Or each in a directory of its own, under one lease all the same. None of it is left behind.
    let apart = [both.as_slice(), &["--rank-dirs"]].concat();
    assert!(nodes.load("half", &apart).0 == in_directories(&model, &[0, 1]));
    assert_eq!(nodes.log().matches(" release ").count(), 2);
    if is_root() {
        let mut run = nodes.world.enclave("run");
        run.args(["demo@1", "--rule", "half", "--tpm", &nodes.tpm("half").tcti, "--vault"]).arg(nodes.world.vault());
        run.arg("--at").arg(nodes.world.path("weights")).args(&apart);
        let script = "cd \"$1\" && find . -type f | sort && cmp rank0/config.json rank1/config.json && echo same";
        let said = run_ok(run.args(["--", "sh", "-c", script, "sh"]).arg(nodes.world.path("weights")));
        let listed: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("./")).collect();
        assert_eq!(listed, in_directories(&model, &[0, 1]).into_keys().collect::<Vec<_>>(), "{said}");
        assert!(said.contains("\nsame"), "{said}");
        assert_eq!(nodes.log().matches(" release ").count(), 3);
    }

    // What one of them may not have, none has.
    nodes.refused("half", &["--rank", "0/4", "--rank", "2/4"], "(denied)");
    nodes.refused("half", &["--rank", "0/4", "--rank", "0/4"], "rank-twice");
    nodes.refused("half", &["--rank", "0/4", "--rank", "1/8"], "rank-other-number");
}

#[test]
fn ranks_that_split_layers_have_smaller_files_and_share_what_both_need() {
    let groups: Vec<String> = (0..8).map(|layer| format!("layer.{layer}")).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).chain(["files", "other"]).collect();
    let nodes = Nodes::open(&[("all", &groups)]);
    let model = pipeline();
    nodes.publish(&model, &[]);
    let (files, _) = nodes.load("all", &["--rank", "0/4", "--rank", "3/4", "--rank-dirs"]);
    let all = tensors(&model[WEIGHTS]);
    for (rank, layers) in [(0, [0, 1]), (3, [6, 7])] {
        // The first and the last also have what is in no layer.
        let own = |name: &str| {
            !name.contains(".layers.") || layers.iter().any(|layer| name.contains(&format!(".layers.{layer}.")))
        };
        assert!(tensors(&files[&format!("rank{rank}/{WEIGHTS}")]) == those(&all, own), "rank {rank}");
        assert!(files[&format!("rank{rank}/config.json")] == model["config.json"]);
    }
    assert_eq!(files.len(), 4, "{:?}", files.keys());
    assert_eq!(nodes.log().matches(" release ").count(), 1);
}
