//! Reading `snp` sections: what is taken, and one refusal for each thing that can be wrong in them.

use attestation::{CrlRule, EvidenceForm, FirmwareVersion, Sha256Digest, TcbVersion};
use ledger::policy::{
    Allowed, GuestRule, KeeperRule, MinTcb, Permitted, PlatformFeature, Policy, PolicyError, SnpRule,
};

use crate::support::policy_text::{ID_KEY, LAUNCH_GUEST, LAUNCH_KEEPER, PCR_0, PCR_11_GUEST, first, paravisor, snp};

const DIGEST: &str = "sha256:4444444444444444444444444444444444444444444444444444444444444444";
/// The two sections that a policy can have, which have the same keys.
const SECTIONS: [&str; 2] = ["keeper.snp", "release.minilm.snp"];

/// The policy with one thing changed in one of its sections, which run from their heading to the next.
#[track_caller]
fn changed(text: &str, section: &str, from: &str, to: &str) -> String {
    let begin = text.find(&format!("[{section}]\n")).expect("the section");
    let end = text[begin..].find("\n[").map_or(text.len(), |end| begin + end + 1);
    // The sections differ in this alone.
    let own = if section == "keeper.snp" { LAUNCH_KEEPER } else { LAUNCH_GUEST };
    let from = &from.replace(LAUNCH_KEEPER, own);
    let (head, body, tail) = (&text[..begin], &text[begin..end], &text[end..]);
    assert_eq!(body.matches(from).count(), 1, "{from:?} must stand in {section} exactly once");
    format!("{head}{}{tail}", body.replace(from, to))
}

#[track_caller]
fn refusal(text: &str) -> (String, &'static str) {
    let error: PolicyError = Policy::parse(text).expect_err("must be refused");
    assert!(error.to_string().contains(&error.key));
    (error.key.clone(), error.code())
}

/// In both sections alike.
#[track_caller]
fn refused(from: &str, to: &str, key: &str, code: &str) {
    for section in SECTIONS {
        let seen = refusal(&changed(&snp(), section, from, to));
        assert_eq!(seen, (format!("{section}.{key}"), code), "{to}");
    }
}

/// The keys of a section, each with its line.
fn lines() -> Vec<(String, String)> {
    let text = snp();
    let section = text.split_once("[keeper.snp]\n").unwrap().1.split("\n[").next().unwrap();
    let lines = section.lines().filter(|line| line.contains(" = "));
    lines.map(|line| (line.split(" = ").next().unwrap().to_owned(), line.to_owned())).collect()
}

fn rule(text: &str) -> SnpRule {
    Policy::parse(text).unwrap().release_rules().values().next().unwrap().guest.snp().unwrap().clone()
}

#[test]
fn a_section_says_exactly_what_its_text_says() {
    let policy = Policy::parse(&snp()).unwrap();
    let KeeperRule::Snp { snp: keeper, tpm } = policy.keeper() else { panic!("an SNP keeper") };
    assert_eq!(keeper.measurements, [[0x66; 48]]);
    assert_eq!((tpm.platforms.clone(), tpm.pcrs.selection().iter().collect::<Vec<_>>()), (Permitted::Any, vec![0, 11]));
    let guest = &policy.release_rules().values().next().unwrap().guest;
    assert_eq!((guest.form(), guest.pcrs(), guest.eks()), (EvidenceForm::Snp, None, None));
    let min_tcb = MinTcb {
        milan: Some(TcbVersion { fmc: None, bootloader: 4, tee: 1, snp: 24, microcode: 219 }),
        genoa: None,
        turin: Some(TcbVersion { fmc: Some(1), bootloader: 2, tee: 1, snp: 4, microcode: 71 }),
    };
    let whole = SnpRule {
        measurements: vec![[0x77; 48]],
        chips: Permitted::Any,
        csps: vec!["CN=cc-us-east-2.amazonaws.com".to_owned()],
        min_tcb,
        vmpl: 0,
        min_report_version: 3,
        crl: CrlRule::Required,
        smt: Allowed::No,
        provisional_firmware: Allowed::No,
        host_data: Some(vec![[0x11; 32]]),
        id_keys: Some(vec![[0x88; 48]]),
        author_keys: Some(vec![[0x88; 48]]),
        min_guest_svn: Some(7),
        min_firmware: Some(FirmwareVersion { major: 1, minor: 55, build: 21 }),
        platform: vec![PlatformFeature::Ecc, PlatformFeature::AliasCheck],
    };
    assert_eq!(guest, &GuestRule::Snp(Box::new(whole)));
    let policy = Policy::parse(&paravisor()).unwrap();
    let guest = &policy.release_rules().values().next().unwrap().guest;
    assert_eq!((guest.form(), guest.eks()), (EvidenceForm::AzureSnpVtpm, None));
    assert_eq!(guest.pcrs().unwrap().selection().iter().collect::<Vec<_>>(), [11]);
}

#[test]
fn what_weakens_when_left_out_is_a_must_and_the_rest_may_be_left_out() {
    let narrowing = ["csps", "host_data", "id_keys", "author_keys", "min_guest_svn", "min_firmware", "platform"];
    let mut left_out = 0;
    for (key, line) in lines() {
        for section in SECTIONS {
            let without = changed(&snp(), section, &format!("{line}\n"), "");
            match key.as_str() {
                // One product of two: the other is refused then.
                "min_tcb.milan" | "min_tcb.turin" => assert!(Policy::parse(&without).is_ok()),
                _ if narrowing.contains(&key.as_str()) => {
                    Policy::parse(&without).unwrap();
                    left_out += 1;
                }
                _ => assert_eq!(refusal(&without), (format!("{section}.{key}"), "policy-key-missing")),
            }
        }
    }
    assert_eq!(left_out, narrowing.len() * SECTIONS.len());
    for section in SECTIONS {
        let of = |product: &str| lines().into_iter().find(|(key, _)| key.ends_with(product)).unwrap().1 + "\n";
        let one = changed(&snp(), section, &of("milan"), "");
        assert_eq!(
            refusal(&changed(&one, section, &of("turin"), "")),
            (format!("{section}.min_tcb"), "policy-key-missing")
        );
        let empty = changed(&changed(&one, section, &of("turin"), ""), section, "vmpl = 0", "vmpl = 0\nmin_tcb = {}");
        assert_eq!(refusal(&empty), (format!("{section}.min_tcb"), "policy-min-tcb-empty"));
        let (head, _) = snp().split_once(&format!("[{section}]")).map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let rest = snp()[head.len()..].split_once("\n[").map(|(_, rest)| format!("[{rest}")).unwrap();
        assert_eq!(refusal(&format!("{head}{rest}")), (section.to_owned(), "policy-key-missing"));
    }
    // Nothing is looked at that is not written.
    let bare = narrowing.iter().fold(snp(), |text, key| {
        let line = lines().into_iter().find(|(name, _)| name == key).unwrap().1;
        changed(&text, "release.minilm.snp", &format!("{line}\n"), "")
    });
    let rule = rule(&bare);
    assert!(rule.csps.is_empty() && rule.platform.is_empty());
    assert_eq!((rule.host_data, rule.id_keys, rule.author_keys), (None, None, None));
    assert_eq!((rule.min_guest_svn, rule.min_firmware), (None, None));
}

#[test]
fn a_value_of_another_type_is_refused_under_every_key() {
    for (key, line) in lines() {
        let wrong = match line.split(" = ").nth(1).unwrap().starts_with('"') {
            true => "1979-05-27",
            false => "\"x\"",
        };
        refused(&line, &format!("{key} = {wrong}"), &key, "policy-wrong-type");
    }
    for part in ["bootloader", "tee", "snp", "microcode"] {
        let (_, milan) = lines().into_iter().find(|(key, _)| key == "min_tcb.milan").unwrap();
        let number = milan.split(&format!("{part} = ")).nth(1).unwrap().split([',', ' ']).next().unwrap().to_owned();
        let with = |value: &str| milan.replace(&format!("{part} = {number}"), &format!("{part} = {value}"));
        let key = format!("min_tcb.milan.{part}");
        refused(&milan, &with("\"4\""), &key, "policy-wrong-type");
        refused(&milan, &with("-1"), &key, "policy-wrong-type");
        refused(&milan, &with("256"), &key, "policy-number-too-large");
        let gone = milan
            .replace(&format!("{part} = {number}"), "")
            .replace("{ ,", "{")
            .replace(", ,", ",")
            .replace(",  }", "}");
        refused(&milan, &gone, &key, "policy-key-missing");
    }
}

#[test]
fn an_unknown_key_is_refused_in_a_section_and_in_a_tcb() {
    refused("vmpl = 0", "vmpl = 0\nx = 1", "x", "policy-key-unknown");
    refused("tee = 1, snp = 24", "tee = 1, x = 1, snp = 24", "min_tcb.milan.x", "policy-key-unknown");
    // Only Turin has this component: a Milan minimum would be compared with nothing.
    refused("{ bootloader = 4", "{ fmc = 1, bootloader = 4", "min_tcb.milan.fmc", "policy-key-unknown");
    refused("{ fmc = 1, ", "{ ", "min_tcb.turin.fmc", "policy-key-missing");
    refused("min_tcb.milan", "min_tcb.rome", "min_tcb.rome", "policy-key-unknown");
    // Case matters: there is one spelling.
    refused("min_tcb.milan", "min_tcb.Milan", "min_tcb.Milan", "policy-key-unknown");
}

#[test]
fn every_value_has_one_spelling() {
    let both = |line: &str, key: &str, code: &str, wrongs: &[&str]| {
        for wrong in wrongs {
            let (name, _) = line.split_once(" = ").unwrap();
            refused(line, &format!("{name} = {wrong}"), key, code);
        }
    };
    let line = |key: &str| lines().into_iter().find(|(name, _)| name == key).unwrap().1;
    let hex96: Vec<String> = ["", &ID_KEY[1..], &format!("{ID_KEY}8"), &"A".repeat(96), &"g".repeat(96)]
        .iter()
        .map(|text| format!("[\"{text}\"]"))
        .collect();
    let hex96: Vec<&str> = hex96.iter().map(String::as_str).collect();
    for key in ["measurements", "id_keys", "author_keys"] {
        both(&line(key), &format!("{key}[0]"), "policy-sha384-malformed", &hex96);
        both(&line(key), key, "policy-list-empty", &["[]"]);
        both(&line(key), key, "policy-wrong-type", &["\"any\""]);
        let twice = format!("[\"{ID_KEY}\", \"{ID_KEY}\"]");
        both(&line(key), &format!("{key}[1]"), "policy-item-repeated", &[&twice]);
    }
    let sha256_of_host_data = format!("[\"{DIGEST}\"]");
    both(
        &line("host_data"),
        "host_data[0]",
        "policy-host-data-malformed",
        &["[\"\"]", "[\"11\"]", &sha256_of_host_data],
    );
    both(&line("host_data"), "host_data", "policy-list-empty", &["[]"]);
    both(&line("chips"), "chips[0]", "policy-digest-malformed", &["[\"11\"]", &format!("[\"{PCR_0}\"]")]);
    both(&line("chips"), "chips", "policy-list-empty", &["[]"]);
    both(&line("chips"), "chips", "policy-wrong-type", &["\"all\""]);
    both(&line("csps"), "csps", "policy-list-empty", &["[]"]);
    both(&line("csps"), "csps", "policy-wrong-type", &["\"any\""]);
    both(&line("csps"), "csps[0]", "policy-wrong-type", &["[1]"]);
    let long = format!("[\"{}\"]", "c".repeat(129));
    let breaks = ["[\"\"]", "[\"CN=a\\nstricter: all\"]", "[\"CN=a\\u202e\"]", &long];
    both(&line("csps"), "csps[0]", "policy-csp-malformed", &breaks);
    both(&line("vmpl"), "vmpl", "policy-number-too-large", &["4", "4294967296"]);
    both(&line("min_report_version"), "min_report_version", "policy-report-version-unknown", &["0", "1", "6"]);
    both(&line("crl"), "crl", "policy-crl-rule-unknown", &["\"\"", "\"Required\"", "\"never\""]);
    both(
        &line("code_covered_by"),
        "code_covered_by",
        "policy-code-cover-unknown",
        &["\"\"", "\"Launch\"", "\"svsm-vtpm\""],
    );
    both(&line("min_guest_svn"), "min_guest_svn", "policy-number-too-large", &["4294967296"]);
    let versions = ["\"\"", "\"1.55\"", "\"1.55.21.0\"", "\"1.055.21\"", "\"1.55.256\"", "\"+1.55.21\"", "\"1.55.x\""];
    both(&line("min_firmware"), "min_firmware", "policy-firmware-version-malformed", &versions);
    let features = ["[\"ECC\"]", "[\"smt\"]", "[\"\"]"];
    both(&line("platform"), "platform[0]", "policy-platform-feature-unknown", &features);
    both(&line("platform"), "platform[1]", "policy-item-repeated", &["[\"ecc\", \"ecc\"]"]);
}

#[test]
fn every_known_value_is_taken() {
    let with = |from: &str, to: &str| rule(&changed(&snp(), "release.minilm.snp", from, to));
    let all: Vec<String> = PlatformFeature::ALL.iter().map(|(_, name)| format!("{name:?}")).collect();
    let features: Vec<_> = PlatformFeature::ALL.iter().map(|(feature, _)| *feature).collect();
    let taken = with("platform = [\"ecc\", \"alias-check\"]", &format!("platform = [{}]", all.join(", ")));
    assert_eq!(taken.platform, features);
    for (feature, name) in PlatformFeature::ALL {
        assert_eq!(feature.to_string(), name);
    }
    for version in 2..=5 {
        let taken = with("min_report_version = 3", &format!("min_report_version = {version}"));
        assert_eq!(taken.min_report_version, version);
    }
    for vmpl in 0..=3 {
        assert_eq!(with("vmpl = 0", &format!("vmpl = {vmpl}")).vmpl, vmpl);
    }
    assert_eq!(with("crl = \"required\"", "crl = \"if-present\"").crl, CrlRule::IfPresent);
    assert_eq!(with("smt = false", "smt = true").smt, Allowed::Yes);
    let taken = with("provisional_firmware = false", "provisional_firmware = true");
    assert_eq!(taken.provisional_firmware, Allowed::Yes);
    let listed = with("chips = \"any\"", &format!("chips = [\"{DIGEST}\"]"));
    let csp = attestation::csp_platform("CN=cc-us-east-2.amazonaws.com");
    assert!(listed.permits_platform(DIGEST.parse().unwrap()) && listed.permits_platform(csp));
    assert!(!listed.permits_platform(Sha256Digest::of(b"")));
    let genoa = "min_tcb.genoa = { bootloader = 255, tee = 0, snp = 0, microcode = 0 }\nvmpl = 0";
    assert_eq!(with("vmpl = 0", genoa).min_tcb.genoa.unwrap().bootloader, 255);
}

#[test]
fn keys_of_a_proof_that_is_not_required_are_unknown() {
    let guest = |require: &str, to: &str| snp().replace(&format!("require = [\"{require}\"]\nlease"), to);
    let pcrs = format!("require = [\"snp\"]\npcrs = {{ 11 = [\"{PCR_11_GUEST}\"] }}\nlease");
    assert_eq!(refusal(&guest("snp", &pcrs)), ("release.minilm.pcrs".to_owned(), "policy-key-unknown"));
    let eks = "require = [\"snp\"]\neks = \"any\"\nlease";
    assert_eq!(refusal(&guest("snp", eks)), ("release.minilm.eks".to_owned(), "policy-key-unknown"));
    let eks = paravisor().replace("lease = \"15m\"", "eks = \"any\"\nlease = \"15m\"");
    assert_eq!(refusal(&eks), ("release.minilm.eks".to_owned(), "policy-key-unknown"));
    // A rule and a keeper that only ask for a TPM have no section.
    let section = format!("\n[release.minilm.snp]\nmeasurements = [\"{LAUNCH_GUEST}\"]\n\n[audit]");
    let text = first().replace("\n[audit]", &section);
    assert_eq!(refusal(&text), ("release.minilm.snp".to_owned(), "policy-key-unknown"));
    let text =
        first().replace("\n[publish", &format!("\n[keeper.snp]\nmeasurements = [\"{LAUNCH_KEEPER}\"]\n\n[publish"));
    assert_eq!(refusal(&text), ("keeper.snp".to_owned(), "policy-key-unknown"));
    // A keeper of this version counts in a TPM, whatever it has to prove.
    for (line, key) in [("eks = \"any\"\n\n[keeper.snp]", "keeper.eks"), ("pcrs = { 0 =", "keeper.pcrs")] {
        let to = if key == "keeper.eks" { "\n[keeper.snp]" } else { "# { 0 =" };
        assert_eq!(refusal(&snp().replacen(line, to, 1)), (key.to_owned(), "policy-key-missing"));
    }
}

#[test]
fn a_tpm_that_nothing_binds_to_the_report_proves_nothing() {
    let both = snp().replace("[keeper]\nrequire = [\"snp\"]", "[keeper]\nrequire = [\"snp\", \"tpm\"]");
    assert_eq!(refusal(&both), ("keeper.require".to_owned(), "policy-keeper-tpm-unbound"));
    let key = "release.minilm.snp.code_covered_by".to_owned();
    let unbound = paravisor().replace("\"paravisor-vtpm\"", "\"launch\"");
    assert_eq!(refusal(&unbound), (key.clone(), "policy-guest-tpm-unbound"));
    // The launch digest of a paravisor says nothing of what it boots.
    let uncovered = changed(&snp(), "release.minilm.snp", "\"launch\"", "\"paravisor-vtpm\"");
    assert_eq!(refusal(&uncovered), (key, "policy-code-not-covered"));
    let keeper = changed(&snp(), "keeper.snp", "\"launch\"", "\"paravisor-vtpm\"");
    assert_eq!(refusal(&keeper), ("keeper.snp.code_covered_by".to_owned(), "policy-code-cover-unknown"));
    let pcrs = format!("pcrs = {{ 11 = [\"{PCR_11_GUEST}\"] }}\nlease");
    let without = paravisor().replace(&pcrs, "lease");
    assert_eq!(refusal(&without), ("release.minilm.pcrs".to_owned(), "policy-key-missing"));
}

#[test]
fn no_launch_digest_of_a_guest_is_a_keepers() {
    let key = "release.minilm.snp.measurements".to_owned();
    for text in [snp(), paravisor()] {
        let section = "release.minilm.snp";
        for list in [format!("\"{LAUNCH_KEEPER}\""), format!("\"{LAUNCH_GUEST}\", \"{LAUNCH_KEEPER}\"")] {
            let same = changed(&text, section, &format!("\"{LAUNCH_GUEST}\""), &list);
            assert_eq!(refusal(&same), (key.clone(), "policy-keeper-same-launch"));
        }
        let more = changed(
            &text,
            "keeper.snp",
            &format!("\"{LAUNCH_KEEPER}\""),
            &format!("\"{LAUNCH_KEEPER}\", \"{LAUNCH_GUEST}\""),
        );
        assert_eq!(refusal(&more), (key.clone(), "policy-keeper-same-launch"));
    }
}

#[test]
fn a_keeper_proves_what_it_asks_of_others() {
    let (tpm, snp) = (first(), snp());
    let rules = |text: &str| {
        let at = text.find("[release.minilm]").unwrap();
        text[at..text.find("[audit]").unwrap()].to_owned()
    };
    let key = "release.minilm.require".to_owned();
    let mixed = tpm.replace(&rules(&tpm), &rules(&snp));
    assert_eq!(refusal(&mixed), (key.clone(), "policy-proof-not-of-keeper"));
    let mixed = tpm.replace(&rules(&tpm), &rules(&paravisor()));
    assert_eq!(refusal(&mixed), (key.clone(), "policy-proof-not-of-keeper"));
    let mixed = snp.replace(&rules(&snp), &rules(&tpm));
    assert_eq!(refusal(&mixed), (key, "policy-proof-not-of-keeper"));
}
