//! Reading a policy: what is taken, and one refusal for each thing that can be wrong.

use attestation::{Sha256Digest, Trust, UnixTime};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger::names::Name;
use ledger::policy::{LeaseEnd, Lineage, Permitted, Policy, PolicyError, PolicyProblem, ProposerRule, UnitCheck};

use crate::common::authority::Authority;
use crate::support::keys::{Person, ssh_string};
use crate::support::policy_text::{
    PCR_0, PCR_11_GUEST, PCR_11_KEEPER, PUBLISHER_KEY, anchor, first, with_head, witness_vkey, witnesses,
};

const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const ONES: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
const DIGEST: &str = "sha256:4444444444444444444444444444444444444444444444444444444444444444";

/// The refusal of the good policy with one thing changed.
#[track_caller]
fn refusal(from: &str, to: &str) -> PolicyError {
    let text = first();
    assert_eq!(text.matches(from).count(), 1, "{from:?} must stand there exactly once");
    Policy::parse(&text.replace(from, to)).expect_err("must be refused")
}

#[track_caller]
fn refused(from: &str, to: &str, key: &str, code: &str) {
    let error = refusal(from, to);
    assert_eq!((error.key.as_str(), error.code()), (key, code), "{error}");
    assert!(error.to_string().contains(key));
}

#[test]
fn a_policy_says_exactly_what_its_text_says() {
    let text = first();
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(policy.digest(), Sha256Digest::of(text.as_bytes()));
    assert_eq!((policy.lineage(), policy.serial()), (Lineage::Genesis, 1));
    assert_eq!(policy.not_after(), UnixTime(1_803_859_200));
    assert_eq!((policy.approval().threshold, policy.approval().proposer), (2, ProposerRule::MayNotApprove));
    let ids: Vec<&str> = policy.approval().approvers.iter().map(|approver| approver.id.as_str()).collect();
    assert_eq!(ids, ["alice", "bob", "carol"]);
    let (name, rule) = policy.release_rules().first_key_value().unwrap();
    assert_eq!((name.as_str(), rule.lease.seconds(), rule.max_leases), ("minilm", 900, 4));
    assert_eq!((rule.lease_end, rule.unit_check), (LeaseEnd::Drain { seconds: 30 }, UnitCheck::Hashed));
    assert_eq!(rule.models, Permitted::Only(vec![Name::try_from("minilm").unwrap()]));
    assert!(rule.grants(&"header".parse().unwrap()) && rule.grants(&"layer.0".parse().unwrap()));
    assert!(!rule.grants(&"layer.1".parse().unwrap()));
    assert_eq!(rule.guest.pcrs().unwrap().selection().iter().collect::<Vec<_>>(), [0, 11]);
    assert_eq!(policy.trust_anchors().iter().len(), 0);
    assert!(!policy.is_expired(UnixTime(1_803_859_200)) && policy.is_expired(UnixTime(1_803_859_201)));
}

#[test]
fn a_later_policy_names_its_vault_and_the_policy_before() {
    let policy = Policy::parse(&with_head(DIGEST, 2, DIGEST)).unwrap();
    let digest = DIGEST.parse().unwrap();
    assert_eq!(policy.lineage(), Lineage::Successor { vault: digest, serial: 2, prev: digest });
}

#[test]
fn first_and_later_policies_are_not_mixed() {
    for (vault, serial, prev) in
        [("genesis", 2, "none"), ("genesis", 1, DIGEST), (DIGEST, 1, DIGEST), (DIGEST, 0, DIGEST), (DIGEST, 2, "none")]
    {
        let error = Policy::parse(&with_head(vault, serial, prev)).unwrap_err();
        assert_eq!(error.problem, PolicyProblem::LineageMixed, "{vault} {serial} {prev}");
    }
    let error = Policy::parse(&with_head("sha256:44", 2, DIGEST)).unwrap_err();
    assert_eq!((error.key.as_str(), error.code()), ("vault", "policy-digest-malformed"));
}

#[test]
fn a_policy_that_is_too_long_is_refused() {
    let text = format!("{}#{}", first(), "x".repeat(12 << 10));
    assert_eq!(Policy::parse(&text).unwrap_err().problem, PolicyProblem::TooLong { bytes: text.len() });
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    let error = refusal("serial = 1", "serial = = 1");
    assert!(matches!(error.problem, PolicyProblem::NotToml { line: 3, .. }), "{error}");
    assert_eq!(refusal("format = 1", "format = 1\nformat = 1").code(), "policy-not-toml");
}

#[test]
fn no_key_has_a_default() {
    let text = first();
    for line in text.lines().filter(|line| line.contains(" = ") && !line.starts_with(' ')) {
        if line.contains("\"\"\"") || line.ends_with('[') {
            continue;
        }
        let error = Policy::parse(&text.replacen(line, "", 1)).unwrap_err();
        let key = line.split(" = ").next().unwrap();
        assert_eq!(error.problem, PolicyProblem::KeyMissing, "{line}");
        assert!(error.key == key || error.key.ends_with(&format!(".{key}")), "{error}");
    }
    refused("[audit]\nreaders = \"any\"\n", "", "audit", "policy-key-missing");
}

#[test]
fn an_unknown_key_is_refused_wherever_it_stands() {
    refused("format = 1", "format = 1\nx = 1", "x", "policy-key-unknown");
    refused("threshold = 2", "threshold = 2\nx = 1", "approval.x", "policy-key-unknown");
    refused("id = \"bob\"", "id = \"bob\", x = 1", "approval.approvers[1].x", "policy-key-unknown");
    refused("[keeper]", "[keeper]\nx = 1", "keeper.x", "policy-key-unknown");
    refused("approvals = 2", "approvals = 2\nx = 1", "publish.ours.x", "policy-key-unknown");
    refused("max_leases = 4", "max_leases = 4\nx = 1", "release.minilm.x", "policy-key-unknown");
    refused("[audit]", "[audit]\nx = 1", "audit.x", "policy-key-unknown");
    refused("[audit]", "[quota]\n[audit]", "quota", "policy-key-unknown");
}

#[test]
fn a_value_of_another_type_is_refused() {
    refused("serial = 1", "serial = \"1\"", "serial", "policy-wrong-type");
    refused("serial = 1", "serial = -1", "serial", "policy-wrong-type");
    refused("threshold = 2", "threshold = 2.0", "approval.threshold", "policy-wrong-type");
    refused(
        "proposer_may_approve = false",
        "proposer_may_approve = 0",
        "approval.proposer_may_approve",
        "policy-wrong-type",
    );
    refused("\"2027-03-01T00:00:00Z\"", "2027-03-01T00:00:00Z", "not_after", "policy-wrong-type");
    refused("models = [\"minilm\"]", "models = \"minilm\"", "release.minilm.models", "policy-wrong-type");
    refused("models = [\"minilm\"]", "models = [1]", "release.minilm.models[0]", "policy-wrong-type");
    refused("readers = \"any\"", "readers = \"all\"", "audit.readers", "policy-wrong-type");
    refused("[audit]", "[release]\nx = 1\n[audit]", "release.x", "policy-wrong-type");
}

#[test]
fn any_has_to_be_spelled_out() {
    refused("groups = [\"layer.0\", \"other\"]", "groups = []", "release.minilm.groups", "policy-list-empty");
    refused("groups = [\"layer.0\", \"other\"]", "groups = \"\"", "release.minilm.groups", "policy-wrong-type");
    refused("models = [\"minilm\"]", "models = []", "release.minilm.models", "policy-list-empty");
    refused("readers = \"any\"", "readers = []", "audit.readers", "policy-list-empty");
    let text = first().replace("groups = [\"layer.0\", \"other\"]", "groups = \"any\"");
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(policy.release_rules().values().next().unwrap().groups, Permitted::Any);
}

#[test]
fn only_known_formats_are_read() {
    let error = refusal("format = 1", "format = 2");
    assert_eq!(error.problem, PolicyProblem::FormatUnknown { found: 2 });
}

#[test]
fn names_and_groups_follow_their_grammar() {
    refused("id = \"bob\"", "id = \"Bob\"", "approval.approvers[1].id", "policy-name-malformed");
    refused("models = [\"minilm\"]", "models = [\"a/b\"]", "release.minilm.models[0]", "policy-name-malformed");
    refused("[release.minilm]", "[release.MiniLM]", "release.MiniLM", "policy-name-malformed");
    refused("[publish.ours]", "[publish.\"our own\"]", "publish.our own", "policy-name-malformed");
    refused("\"other\"", "\"other one\"", "release.minilm.groups[1]", "policy-group-malformed");
}

#[test]
fn nothing_stands_in_a_list_twice() {
    refused("\"other\"", "\"layer.0\"", "release.minilm.groups[1]", "policy-item-repeated");
    refused("\"llama\"", "\"minilm\"", "publish.ours.models[1]", "policy-item-repeated");
    let twice = format!("pcrs = {{ 0 = [\"{PCR_0}\", \"{PCR_0}\"], 11 = [\"{PCR_11_GUEST}\"] }}");
    let once = format!("pcrs = {{ 0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_GUEST}\"] }}");
    refused(&once, &twice, "release.minilm.pcrs.0[1]", "policy-item-repeated");
}

#[test]
fn a_time_has_one_spelling() {
    for wrong in [
        "2027-03-01",
        "2027-03-01T00:00:00",
        "2027-03-01T00:00:00+00:00",
        "2027-03-01T00:00:00.0Z",
        "2027-03-01t00:00:00z",
        "2027-02-30T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "tomorrow",
        "",
    ] {
        refused("2027-03-01T00:00:00Z", wrong, "not_after", "policy-not-after-malformed");
    }
}

#[test]
fn a_threshold_is_neither_zero_nor_out_of_reach() {
    refused("threshold = 2", "threshold = 0", "approval.threshold", "policy-threshold-zero");
    // Three approvers, one of whom proposes and does not count.
    refused("threshold = 2", "threshold = 3", "approval.threshold", "policy-threshold-unreachable");
    let proposer_counts = first().replace("proposer_may_approve = false", "proposer_may_approve = true");
    assert!(Policy::parse(&proposer_counts.replace("threshold = 2", "threshold = 3")).is_ok());
    // A revocation has one of its own. Left out, it takes no fewer than a policy.
    let revoke = |n: u32| first().replace("threshold = 2", &format!("threshold = 2\nrevoke_threshold = {n}"));
    let parsed = |text: &str| Policy::parse(text).map(|policy| policy.approval().revoke_threshold);
    assert_eq!(parsed(&first()), Ok(2));
    assert_eq!([1, 3].map(|n| parsed(&revoke(n)).unwrap()), [1, 3]);
    for (n, code) in [(0, "policy-threshold-zero"), (4, "policy-threshold-unreachable")] {
        let error = parsed(&revoke(n)).unwrap_err();
        assert_eq!((error.key.as_str(), error.code()), ("approval.revoke_threshold", code));
    }
    let error = Policy::parse(&proposer_counts.replace("threshold = 2", "threshold = 4")).unwrap_err();
    assert_eq!(error.problem, PolicyProblem::ThresholdUnreachable { threshold: 4, approvers: 3 });
    refused("approvals = 2", "approvals = 0", "publish.ours.approvals", "policy-threshold-zero");
    refused("approvals = 2", "approvals = 4", "publish.ours.approvals", "policy-threshold-unreachable");
    assert!(Policy::parse(&first().replace("approvals = 2", "approvals = 3")).is_ok());
}

#[test]
fn one_person_does_not_count_twice() {
    let [alice, bob] = [1, 2].map(|seed| Person::new(seed).key_line());
    refused(&bob, &alice, "approval.approvers[1].key", "policy-key-repeated");
    refused(&bob, &format!("{alice} another comment"), "approval.approvers[1].key", "policy-key-repeated");
    refused("id = \"bob\"", "id = \"alice\"", "approval.approvers[1].id", "policy-id-repeated");
    let readers = format!("readers = [{{ id = \"a\", key = \"{alice}\" }}, {{ id = \"b\", key = \"{alice}\" }}]");
    refused("readers = \"any\"", &readers, "audit.readers[1].key", "policy-key-repeated");
}

#[test]
fn only_keys_that_can_be_verified_are_taken() {
    let bob = Person::new(2).key_line();
    let key = "approval.approvers[1].key";
    for wrong in ["", "ssh-ed25519", "ssh-ed25519 AAAA", &format!(" {bob}"), &format!("{bob}\\n{bob}"), &bob[..60]] {
        refused(&bob, wrong, key, "policy-ssh-key-malformed");
    }
    // The algorithm in front must be that of the key.
    refused(&bob, &bob.replace("ssh-ed25519", "ecdsa-sha2-nistp256"), key, "policy-ssh-key-malformed");
    let rsa = include_str!("data/rsa.pub").trim();
    refused(&bob, rsa, key, "policy-ssh-key-unsupported");
    refused(&bob, include_str!("data/ecdsa521.pub").trim(), key, "policy-ssh-key-unsupported");
    // The neutral point, for which anybody signs.
    let blob = [ssh_string(b"ssh-ed25519"), ssh_string(&[vec![1], vec![0; 31]].concat())].concat();
    refused(&bob, &format!("ssh-ed25519 {}", STANDARD.encode(blob)), key, "policy-ssh-key-weak");
    for taken in [include_str!("data/ecdsa256.pub"), include_str!("data/ecdsa384.pub")] {
        Policy::parse(&first().replace(&bob, taken.trim())).unwrap();
    }
}

#[test]
fn publisher_keys_are_pem_and_distinct() {
    let one = format!("keys = [\"\"\"{PUBLISHER_KEY}\"\"\"]");
    refused(&one, "keys = [\"AAAA\"]", "publish.ours.keys[0]", "policy-publisher-key-refused");
    refused(&one, "keys = []", "publish.ours.keys", "policy-list-empty");
    // The same key in another spelling of its text.
    let twice = format!("keys = [\"\"\"{PUBLISHER_KEY}\"\"\", \"\"\"{}\"\"\"]", PUBLISHER_KEY.trim_end());
    refused(&one, &twice, "publish.ours.keys[1]", "policy-key-repeated");
}

#[test]
fn anchors_are_named_certificates_of_authorities() {
    let (one, two) = (Authority::root("one"), Authority::root("two"));
    let with = |anchors: &[String]| Policy::parse(&(first() + &anchors.concat()));
    let refusal = |anchors: &[String]| {
        let error = with(anchors).unwrap_err();
        (error.key.clone(), error.code())
    };
    let good = anchor("ci-tpm", Trust::Emulated, &one);
    let policy = with(&[good.clone(), anchor("vendor", Trust::Hardware, &two)]).unwrap();
    let names: Vec<_> = policy
        .trust_anchors()
        .iter()
        .map(|(anchor, _)| anchor)
        .map(|anchor| (anchor.name.as_str(), anchor.trust))
        .collect();
    assert_eq!(names, [("ci-tpm", Trust::Emulated), ("vendor", Trust::Hardware)]);
    let guest = |policy: &Policy| policy.release_rules().values().next().unwrap().guest.clone();
    assert!(policy.can_yield(&guest(&policy), Trust::Hardware));
    let first = Policy::parse(&first()).unwrap();
    // Makers of TPMs are built in, as hardware.
    assert!(!first.can_yield(&guest(&first), Trust::Emulated) && first.can_yield(&guest(&first), Trust::Hardware));

    let change = |from: &str, to: &str| refusal(&[good.replace(from, to)]);
    assert_eq!(change("\"ci-tpm\"", "\"CI\""), ("anchors[0].name".to_owned(), "policy-name-malformed"));
    assert_eq!(change("\"emulated\"", "\"mock\""), ("anchors[0].trust".to_owned(), "policy-trust-unknown"));
    assert_eq!(change("CERTIFICATE", "X"), ("anchors[0].certificate".to_owned(), "policy-anchor-refused"));
    assert_eq!(change("trust", "x = 1\ntrust"), ("anchors[0].x".to_owned(), "policy-key-unknown"));
    let same_name = refusal(&[good.clone(), anchor("ci-tpm", Trust::Emulated, &two)]);
    assert_eq!(same_name, ("anchors[1].name".to_owned(), "policy-id-repeated"));
    // Whose trust would count?
    let same_key = refusal(&[good, anchor("vendor", Trust::Hardware, &one)]);
    assert_eq!(same_key, ("anchors[1].certificate".to_owned(), "policy-anchor-refused"));
}

#[test]
fn proofs_are_known_and_at_least_one() {
    let (keeper, rule) = ("[keeper]\nrequire = [\"tpm\"]", "groups = [\"layer.0\", \"other\"]\nrequire = [\"tpm\"]");
    refused(keeper, "[keeper]\nrequire = []", "keeper.require", "policy-list-empty");
    refused(keeper, "[keeper]\nrequire = [\"tdx\"]", "keeper.require[0]", "policy-proof-unknown");
    refused(keeper, "[keeper]\nrequire = [\"snp\"]", "keeper.snp", "policy-key-missing");
    refused(keeper, "[keeper]\nrequire = [\"snp\", \"tpm\"]", "keeper.require", "policy-keeper-tpm-unbound");
    let with = |list: &str| format!("groups = \"any\"\nrequire = {list}");
    refused(rule, &with("[]"), "release.minilm.require", "policy-list-empty");
    refused(rule, &with("[\"tpm\", \"tpm\"]"), "release.minilm.require[1]", "policy-item-repeated");
    refused(rule, &with("[\"TPM\"]"), "release.minilm.require[0]", "policy-proof-unknown");
}

#[test]
fn a_pcr_set_that_a_blank_machine_fulfils_is_refused() {
    let guest = format!("pcrs = {{ 0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_GUEST}\"] }}");
    let key = "release.minilm.pcrs";
    let refused_set = |set: &str, code| refused(&guest, &format!("pcrs = {{ {set} }}"), key, code);
    refused_set("", "policy-pcr-set-empty");
    refused_set(&format!("0 = [\"{ZERO}\"]"), "policy-pcrs-all-zero");
    refused_set(&format!("0 = [\"{PCR_0}\", \"{ZERO}\"], 11 = [\"{ZERO}\"]"), "policy-pcrs-all-zero");
    refused_set(&format!("17 = [\"{ONES}\"], 18 = [\"{ONES}\"]"), "policy-pcrs-all-ones");
    refused_set(&format!("0 = [\"{ZERO}\"], 17 = [\"{ONES}\"]"), "policy-pcrs-blank");
    refused_set(&format!("16 = [\"{PCR_0}\"]"), "policy-pcrs-only-resettable");
    refused_set(&format!("16 = [\"{PCR_0}\"], 23 = [\"{PCR_0}\"]"), "policy-pcrs-only-resettable");
    // An intruder extends PCR 16 as he likes: it adds nothing to a blank set.
    refused_set(&format!("0 = [\"{ZERO}\"], 16 = [\"{PCR_0}\"]"), "policy-pcrs-all-zero");
    // One PCR that stays at zero is common; the others hold the boot.
    let text = first().replace(&guest, &format!("pcrs = {{ 5 = [\"{ZERO}\"], 11 = [\"{PCR_11_GUEST}\"] }}"));
    Policy::parse(&text).unwrap();
    let keeper = format!("pcrs = {{ 0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_KEEPER}\"] }}");
    refused(&keeper, &format!("pcrs = {{ 0 = [\"{ZERO}\"] }}"), "keeper.pcrs", "policy-pcrs-all-zero");
}

#[test]
fn pcr_indices_and_values_have_one_spelling() {
    let guest = format!("pcrs = {{ 0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_GUEST}\"] }}");
    for index in ["24", "00", "-1", "x"] {
        let set = format!("pcrs = {{ {index} = [\"{PCR_0}\"], 11 = [\"{PCR_11_GUEST}\"] }}");
        refused(&guest, &set, &format!("release.minilm.pcrs.{index}"), "policy-pcr-index-unknown");
    }
    for value in ["", &PCR_0[1..], &format!("{PCR_0}1"), &"A".repeat(64), &"g".repeat(64)] {
        let set = format!("pcrs = {{ 0 = [\"{value}\"], 11 = [\"{PCR_11_GUEST}\"] }}");
        refused(&guest, &set, "release.minilm.pcrs.0[0]", "policy-pcr-value-malformed");
    }
    let empty = format!("pcrs = {{ 0 = [], 11 = [\"{PCR_11_GUEST}\"] }}");
    refused(&guest, &empty, "release.minilm.pcrs.0", "policy-list-empty");
}

#[test]
fn a_machine_that_is_granted_keys_cannot_pose_as_a_keeper() {
    let guest = format!("pcrs = {{ 0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_GUEST}\"] }}");
    for overlapping in [
        format!("0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_KEEPER}\"]"),
        format!("0 = [\"{PCR_0}\"]"),
        format!("0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_GUEST}\", \"{PCR_11_KEEPER}\"]"),
        format!("4 = [\"{PCR_11_GUEST}\"]"),
    ] {
        let set = format!("pcrs = {{ {overlapping} }}");
        refused(&guest, &set, "release.minilm.pcrs", "policy-keeper-not-disjoint");
    }
    // What differs in a PCR alone that any program can reset is the same machine a moment later.
    for resettable in [16, 23] {
        let with = |value: &str| format!("pcrs = {{ 0 = [\"{PCR_0}\"], {resettable} = [\"{value}\"] }}");
        let keeper = format!("pcrs = {{ 0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_KEEPER}\"] }}");
        let text = first().replace(&keeper, &with(PCR_11_KEEPER)).replace(&guest, &with(PCR_11_GUEST));
        let error = Policy::parse(&text).unwrap_err();
        assert_eq!((error.key.as_str(), error.problem), ("release.minilm.pcrs", PolicyProblem::KeeperNotDisjoint));
    }
}

#[test]
fn platforms_are_digests() {
    let rule = "eks = \"any\"\nlease";
    refused(rule, "eks = [\"abc\"]\nlease", "release.minilm.eks[0]", "policy-digest-malformed");
    refused(rule, "eks = []\nlease", "release.minilm.eks", "policy-list-empty");
    let policy = Policy::parse(&first().replace(rule, &format!("eks = [\"{DIGEST}\"]\nlease"))).unwrap();
    let platforms = &policy.release_rules().values().next().unwrap().guest.eks().unwrap();
    assert!(platforms.permits(&DIGEST.parse().unwrap()) && !platforms.permits(&Sha256Digest::of(b"")));
}

#[test]
fn leases_are_between_a_minute_and_a_week() {
    let key = "release.minilm.lease";
    for (text, seconds) in [("59s", 59), ("0m", 0), ("169h", 608_400), ("8d", 691_200)] {
        let error = refusal("lease = \"15m\"", &format!("lease = \"{text}\""));
        assert_eq!(error.problem, PolicyProblem::LeaseOutOfBounds { seconds }, "{text}");
        assert_eq!(error.key, key);
    }
    for wrong in ["15", "m", "", "15 m", "015m", "+15m", "-15m", "1.5h", "15M", "15w", "ä", "99999999999999999999s"] {
        refused("lease = \"15m\"", &format!("lease = \"{wrong}\""), key, "policy-duration-malformed");
    }
    for (text, seconds) in [("60s", 60), ("7d", 604_800), ("24h", 86_400)] {
        let policy = Policy::parse(&first().replace("lease = \"15m\"", &format!("lease = \"{text}\""))).unwrap();
        assert_eq!(policy.release_rules().values().next().unwrap().lease.seconds(), seconds);
    }
}

#[test]
fn a_lease_ends_or_drains() {
    for wrong in ["", "End", "drain", "drain 0s", "drain 61m", "drain 2h", "drain30s", "drain  30s", "kill"] {
        let to = format!("on_lease_end = \"{wrong}\"");
        refused("on_lease_end = \"drain 30s\"", &to, "release.minilm.on_lease_end", "policy-lease-end-malformed");
    }
    let policy = Policy::parse(&first().replace("\"drain 30s\"", "\"end\"")).unwrap();
    assert_eq!(policy.release_rules().values().next().unwrap().lease_end, LeaseEnd::End);
}

#[test]
fn at_least_one_lease_can_run() {
    let key = "release.minilm.max_leases";
    refused("max_leases = 4", "max_leases = 0", key, "policy-max-leases-out-of-bounds");
    refused("max_leases = 4", "max_leases = 4294967296", key, "policy-max-leases-out-of-bounds");
}

#[test]
fn a_policy_without_rules_releases_and_publishes_nothing() {
    let text = first();
    let from = text.find("[publish.ours]").unwrap();
    let to = text.find("[audit]").unwrap();
    let policy = Policy::parse(&format!("{}{}", &text[..from], &text[to..])).unwrap();
    assert!(policy.publish_rules().is_empty() && policy.release_rules().is_empty());
}

#[test]
fn witnesses_are_named_with_their_quorum_and_how_many_may_be_faulty() {
    let good = witnesses();
    let policy = Policy::parse(&(first() + &good)).unwrap();
    let witnesses = policy.witnesses().unwrap();
    assert_eq!((witnesses.witnesses().len(), witnesses.quorum(), witnesses.faulty()), (3, 2, 0));
    let refused = |from: &str, to: &str, key: &str, code: &str| {
        assert_eq!(good.matches(from).count(), 1, "{from}");
        let error = Policy::parse(&(first() + &good.replace(from, to))).unwrap_err();
        assert_eq!((error.key.as_str(), error.code()), (key, code), "{error}");
    };
    refused("quorum = 2\n", "", "witnesses.quorum", "policy-key-missing");
    refused("faulty = 0\n", "", "witnesses.faulty", "policy-key-missing");
    refused("faulty = 0", "faulty = 1", "witnesses.quorum", "witness-quorum-too-small");
    refused("quorum = 2", "quorum = 4", "witnesses.quorum", "witness-quorum-unreachable");
    refused("quorum = 2", "quorum = 1", "witnesses.quorum", "witness-quorum-too-small");
    refused("witness.example/1+", "witness.example/9+", "witnesses.keys[0]", "policy-witness-key");
    let [first_key, second_key] = [1, 2].map(witness_vkey);
    refused(&second_key, &first_key, "witnesses.keys[1]", "policy-item-repeated");
    refused("keys =", "keyes =", "witnesses.keys", "policy-key-missing");
    refused("quorum =", "more = 1\nquorum =", "witnesses.more", "policy-key-unknown");
}
