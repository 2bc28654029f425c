//! `examples/shards`, as it stands there: its policy begins a vault, its options seal a model, and each of four machines has its
//! stage of it.

use std::path::Path;

use vault_tests::nodes::{Nodes, eks_line};
use vault_tests::weights::{BY_RANK, Files, safetensors, tensors, those};
use vault_tests::world::{APPROVERS, pcrs_line};
use vault_tests::{Swtpm, World, run, run_ok};

const WEIGHTS: &str = "model.safetensors";
const NODES: [&str; 4] = ["stage-1", "stage-2", "stage-3", "stage-4"];

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shards").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands between two texts.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?} in {text}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end:?} behind {start:?}")).0
}

/// The example with what `ours`, the policy of a test, has in the place of the words in capitals.
fn filled(world: &World, nodes: &[(&str, Swtpm)], ours: &str) -> String {
    let keeper = world.keeper_tpm.as_ref().expect("the keeper's machine is on");
    let mut policy = example("policy.toml").replace("END_OF_POLICY", "2100-01-01T00:00:00Z");
    for name in APPROVERS {
        let key = between(ours, &format!("{{ id = \"{name}\", key = \""), "\"");
        policy = policy.replacen(&format!("{}_KEY", name.to_uppercase()), key, 1);
    }
    let publisher = between(ours, "keys = [\"\"\"", "\"\"\"]");
    policy = policy.replacen("PUBLISHER_KEY", publisher, 1);
    for ((_, tpm), number) in nodes.iter().zip(1..) {
        let line = format!("eks = [\"NODE_{number}\"]");
        assert!(policy.contains(&line), "{line}");
        policy = policy.replacen(&line, &eks_line(tpm), 1);
    }
    let (of_keeper, of_node) = (pcrs_line(&keeper.tcti), pcrs_line(&nodes[0].1.tcti));
    let line = |line: &str| match line {
        line if line.contains("KEEPER_PCR") => of_keeper.clone(),
        line if line.contains("NODE_PCR") => of_node.clone(),
        line => line.to_owned(),
    };
    let lines: Vec<String> = policy.lines().map(line).collect();
    // Whose TPMs are believed: software ones, which no example names.
    let anchors = between(ours, "[[anchors]]", "[keeper]");
    format!("{}\n[[anchors]]{anchors}", lines.join("\n"))
}

/// What the README seals the pipeline with.
fn documented(readme: &str) -> Vec<String> {
    let seal = between(readme, "vault-enclave seal", "```");
    let groups = seal.split("--group '").skip(1).map(|rest| rest.split_once('\'').expect("a quoted expression").0);
    groups.flat_map(|group| ["--group".to_owned(), group.to_owned()]).collect()
}

#[test]
fn the_example_of_a_pipeline_gives_each_of_four_machines_its_stage_and_no_other() {
    let readme = example("README.md");
    let nodes = Nodes::with_policy("llama", &NODES, |world, nodes, policy| *policy = filled(world, nodes, policy));
    let said = run_ok(nodes.world.vaultctl().args(["policy", "check"]).arg(nodes.world.path("policy.toml")));
    assert!(NODES.iter().all(|node| said.contains(node)), "{said}");

    let layers = (0..32).flat_map(|layer| {
        ["input_layernorm", "self_attn.q_proj"].map(|part| (format!("model.layers.{layer}.{part}.weight"), 3000))
    });
    let first = std::iter::once(("model.embed_tokens.weight".to_owned(), 3000));
    let last = ["model.norm.weight", "lm_head.weight"].map(|name| (name.to_owned(), 3000));
    let weights = safetensors(WEIGHTS, &first.chain(layers).chain(last).collect::<Vec<_>>());
    let model = Files::from([(WEIGHTS.to_owned(), weights), ("config.json".to_owned(), b"{}".to_vec())]);
    let options = documented(&readme);
    nodes.publish(&model, &options.iter().map(String::as_str).collect::<Vec<_>>());

    let all = tensors(&model[WEIGHTS]);
    for (number, node) in (1..).zip(NODES) {
        let stage = format!("stage.{number}");
        assert!(readme.contains("--rule stage-2 --group stage.2 --group files"), "as it is asked for here");
        let (files, _) = nodes.load(node, &["--group", &stage, "--group", "files"]);
        assert!(files["config.json"] == model["config.json"]);
        let own = |name: &str| match name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
            Some((layer, _)) => layer.parse::<u32>().expect("a layer") / 8 + 1 == number,
            None if name.contains("embed") => number == 1,
            None => number == 4,
        };
        assert!(tensors(&files[WEIGHTS]) == those(&all, own), "{node}");
        let other = format!("stage.{}", number % 4 + 1);
        nodes.refused(node, &["--group", &other], "(denied)");
        // By the rule of another machine.
        let another = NODES[usize::try_from(number % 4).expect("small")];
        let (code, said) = run(&mut nodes.command_under(node, another, &["--group", &other]));
        assert!(code == Some(3) && said.contains("(denied)"), "{said}");
    }
    let log = nodes.log();
    for code in ["group-not-granted", "platform-not-listed"] {
        assert_eq!(log.matches(code).count(), 4, "{log}");
    }
    assert!(readme.contains("`group-not-granted`") && readme.contains("`platform-not-listed`"));
}

#[test]
fn other_options_of_the_example_are_those_that_tests_seal_with() {
    let readme = example("README.md");
    for option in [r"--group 'expert-$1=\.experts\.(\d+)\.'", "--file-group 'lora.$1=^adapters/([^/]+)/'"] {
        assert!(readme.contains(option), "{option}");
    }
    assert!(readme.contains(&format!("{} '{}'", BY_RANK[0], BY_RANK[1])));
}
