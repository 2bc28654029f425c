//! An entry has one spelling, and nothing else is one.

use ledger::entry::{BootId, ENTRY_BYTES_MAX, Entry, EntryError, Machine};

const D: &str = "sha256:4444444444444444444444444444444444444444444444444444444444444444";
const D2: &str = "sha256:5555555555555555555555555555555555555555555555555555555555555555";

/// One good entry of each type, as FORMAT.md §8 spells them.
pub fn samples() -> Vec<String> {
    let key = base64_of(32);
    let (session, ak_name) = (base64_of(16), "AAtERERERERERERERERERERERERERERERERERERERERERA==");
    let (wrap_key, identity_key) = (base64_of(1665), identity_key());
    let (pcr, digest) = ("ab".repeat(32), "cd".repeat(48));
    vec![
        format!(
            r#"{{"v":1,"type":"genesis","time":5,"anti_rollback":"counter","seal_to":"tpm","policy":"text","instance":"{key}","wrap_key":"{wrap_key}","identity_key":"{identity_key}","log_key":"{key}","platform":"{D}","ak_name":"{ak_name}"}}"#
        ),
        r#"{"v":1,"type":"start","time":5,"run":"000102030405060708090a0b0c0d0e0f","version":"0.1.0","tier":"emulated","time_source":"host clock"}"#.to_owned(),
        format!(
            r#"{{"v":1,"type":"propose","time":5,"action":"policy","object":"{D}","policy":"a\nb","statement":"{{}}\n","signature":"sig"}}"#
        ),
        format!(
            r#"{{"v":1,"type":"propose","time":5,"action":"model","object":"{D}","model":"minilm","version":"1.0","manifest":"{D}","model_sig":"{D}","dek_record":"{D}","publisher":"{D}","bytes":90,"units":8,"not_after":9}}"#
        ),
        r#"{"v":1,"type":"approve","time":5,"statement":"{}","signature":"sig"}"#.to_owned(),
        format!(r#"{{"v":1,"type":"approve","time":5,"statement":"{{}}","signature":"sig","evidence":"{D}","binding":"{D2}"}}"#),
        format!(r#"{{"v":1,"type":"policy","time":5,"proposal":3,"object":"{D}","serial":2}}"#),
        format!(r#"{{"v":1,"type":"model","time":5,"proposal":3,"object":"{D}","model":"minilm","version":"1.0"}}"#),
        format!(
            r#"{{"v":1,"type":"release","time":5,"rule":"minilm","model":"minilm","version":"1.0","policy":"{D}","manifest":"{D}","units":{{"count":2,"bytes":90,"digest":"{D}"}},"session":"{session}","hpke_key":"{D}","lease":"{D}","lease_key":"{key}","issued":5,"renew_by":905,"platform":"{D}","ak_name":"{ak_name}","reset_count":1,"restart_count":2,"tier":"hardware","evidence":"{D}","binding":"{D2}"}}"#
        ),
        format!(
            r#"{{"v":1,"type":"renew","time":5,"renewals":[{{"lease":"{D}","issued":4,"renew_by":904,"evidence":"{D}","binding":"{D2}"}}]}}"#
        ),
        format!(r#"{{"v":1,"type":"end","time":5,"lease":"{D}","cause":"agent"}}"#),
        format!(
            r#"{{"v":1,"type":"deny","time":5,"code":"pcr-mismatch","action":"load","rule":"minilm","model":"minilm","version":"1.0","platform":"{D}","evidence":"{D}"}}"#
        ),
        r#"{"v":1,"type":"deny-summary","time":5,"since":4,"counts":{"a":1,"b":2}}"#.to_owned(),
        format!(
            r#"{{"v":1,"type":"propose","time":5,"action":"platform","object":"{D}","act":"add","platform":"{D2}","label":"gpu-7","counts_as":"hardware","revision":3,"statement":"{{}}\n","signature":"sig"}}"#
        ),
        format!(r#"{{"v":1,"type":"platform","time":5,"proposal":3,"object":"{D}","act":"remove","platform":"{D2}"}}"#),
        format!(
            r#"{{"v":1,"type":"propose","time":5,"action":"reseal","object":"{D}","instance":"{key}","ak_name":"{ak_name}","pcrs":{{"4":"{pcr}","11":"{pcr}"}},"statement":"{{}}\n","signature":"sig"}}"#
        ),
        format!(
            r#"{{"v":1,"type":"propose","time":5,"action":"reseal","object":"{D}","instance":"{key}","ak_name":"{ak_name}","pcrs":{{"0":"{pcr}"}},"measurement":"{digest}","statement":"{{}}\n","signature":"sig"}}"#
        ),
        format!(r#"{{"v":1,"type":"reseal","time":5,"proposal":3,"object":"{D}","present":"{D2}"}}"#),
        format!(r#"{{"v":1,"type":"resealed","time":5,"object":"{D}"}}"#),
        format!(
            r#"{{"v":1,"type":"propose","time":5,"action":"budget","object":"{D}","budget":"daily","bytes":0,"releases":1,"platforms":0,"leases":2,"until":9,"statement":"{{}}\n","signature":"sig"}}"#
        ),
        format!(r#"{{"v":1,"type":"budget","time":5,"proposal":3,"object":"{D}","budget":"daily"}}"#),
        r#"{"v":1,"type":"clock","time":5,"unmeasured":4}"#.to_owned(),
        format!(r#"{{"v":1,"type":"alarm","time":5,"lease":"{D}","rules":["bait","night"]}}"#),
        format!(r#"{{"v":1,"type":"alarm","time":5,"lease":"{D}","rules":["image"],"measurement":"{D2}"}}"#),
        format!(
            r#"{{"v":1,"type":"propose","time":5,"action":"revocation","object":"{D}","revocation":{{"act":"revoke","serial":1,"scope":{{"by":"model","model":"minilm"}}}},"statement":"{{}}","signature":"sig"}}"#
        ),
        r#"{"v":1,"type":"extend","time":5,"extension":{"v":1,"not_before":4,"until":9,"leases":{"by":"all"}},"approvals":[{"statement":"{}","signature":"sig"}],"leases":2}"#.to_owned(),
        format!(r#"{{"v":1,"type":"revoke","time":5,"proposal":3,"object":"{D}","act":"revoke","leases":2}}"#),
        format!(
            r#"{{"v":1,"type":"propose","time":5,"action":"key-epoch","object":"{D}","epoch":2,"instance":"{key}","ak_name":"{ak_name}","wrap_key":"{wrap_key}","identity_key":"{identity_key}","statement":"{{}}\n","signature":"sig"}}"#
        ),
        format!(
            r#"{{"v":1,"type":"key-epoch","time":5,"proposal":3,"object":"{D}","epoch":2,"wrap_key":"{wrap_key}","identity_key":"{identity_key}","signature":"{}","records":"{D2}"}}"#,
            base64_of(96)
        ),
        format!(
            r#"{{"v":1,"type":"upgrade","time":5,"from":{{"version":"0.1.0","fold":3,"digest":"{D}"}},"to":{{"version":"0.2.0","fold":4,"digest":"{D2}"}},"fold":3}}"#
        ),
        r#"{"v":1,"type":"upgrade","time":5,"to":{"version":"0.2.0","fold":4},"fold":3}"#.to_owned(),
    ]
}

/// The fields that say which machine it was: of a TPM, of an SNP guest, and of one with a virtual TPM.
fn machines() -> [String; 3] {
    let report_id = format!(r#""report_id":"{}","#, base64_of(32));
    let ak_name = "AAtERERERERERERERERERERERERERERERERERERERERERA==";
    let boot = format!(r#""ak_name":"{ak_name}","reset_count":1,"restart_count":2,"#);
    [boot.clone(), report_id.clone(), report_id + &boot]
}

fn base64_of(bytes: usize) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(vec![7; bytes])
}

fn identity_key() -> String {
    use base64::Engine;
    let mut point = vec![7; 97];
    point[0] = 4;
    base64::engine::general_purpose::STANDARD.encode(point)
}

#[track_caller]
fn refusal(text: &str) -> EntryError {
    Entry::parse(text.as_bytes()).expect_err(text)
}

#[test]
fn every_type_comes_back_as_its_exact_bytes() {
    for text in samples() {
        let entry = Entry::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(String::from_utf8(entry.encode().unwrap()).unwrap(), text);
        assert_eq!(entry.time().seconds(), 5);
        assert!(text.contains(&format!(r#""type":"{}""#, entry.type_name())));
    }
}

/// The release of [`samples`] with other fields of the machine.
fn release_of(machine: &str) -> String {
    let [tpm, ..] = machines();
    let sample = &samples()[8];
    assert_eq!(sample.matches(&tpm).count(), 1);
    sample.replace(&tpm, machine)
}

#[test]
fn a_release_says_which_machine_it_was_in_one_of_three_forms() {
    let ak_name = [[0, 0x0b].as_slice(), &[0x44; 32]].concat();
    let boot = BootId { ak_name: ak_name.as_slice().try_into().unwrap(), reset_count: 1, restart_count: 2 };
    let report_id = [7; 32];
    let meant = [Machine::Tpm(boot), Machine::Snp { report_id }, Machine::SnpVtpm { report_id, vtpm: boot }];
    for (text, meant) in machines().iter().map(|machine| release_of(machine)).zip(meant) {
        let Entry::Release(release) = Entry::parse(text.as_bytes()).unwrap() else { panic!("not a release") };
        assert_eq!(release.machine, meant);
        assert_eq!(String::from_utf8(Entry::Release(release).encode().unwrap()).unwrap(), text);
    }
}

#[test]
fn a_release_with_part_of_a_machine_or_none_is_refused() {
    let [tpm, snp, both] = machines();
    let part = |machine: &str, field: &str| {
        let at = machine.find(&format!("\"{field}\"")).unwrap();
        let end = at + machine[at..].find(',').unwrap() + 1;
        format!("{}{}", &machine[..at], &machine[end..])
    };
    for whole in [&tpm, &both] {
        for field in ["ak_name", "reset_count", "restart_count"] {
            let said = refusal(&release_of(&part(whole, field))).to_string();
            assert!(said.contains("together"), "{field}: {said}");
        }
    }
    assert!(refusal(&release_of("")).to_string().contains("which machine"));
    // In another order, twice, with something else in it, or with nothing: none of it is a second spelling.
    assert_eq!(refusal(&release_of(&(tpm.clone() + &snp))), EntryError::NotCanonical);
    for (machine, code) in [
        (snp.clone() + &snp, "entry-malformed"),
        (snp.clone() + r#""chip":1,"#, "entry-malformed"),
        (snp.replace(&base64_of(32), &base64_of(31)), "entry-malformed"),
        (snp.replace(&base64_of(32), &base64_of(33)), "entry-malformed"),
        (snp.replace(&format!("\"{}\"", base64_of(32)), "null") + &tpm, "entry-malformed"),
        (snp.clone() + r#""reset_count":null,"#, "entry-not-canonical"),
    ] {
        assert_eq!(refusal(&release_of(&machine)).code(), code, "{machine}");
    }
}

#[test]
fn a_release_says_in_one_form_what_a_revocation_finds_it_by() {
    let release = &samples()[8];
    let with = |marks: &str| release.replace(r#","evidence":"#, &format!(r#","marks":{marks},"evidence":"#));
    let (launch, pcr) = ("55".repeat(48), "66".repeat(32));
    for marks in [
        "{}".to_owned(),
        r#"{"groups":["header","layer.0"]}"#.to_owned(),
        format!(r#"{{"groups":["header"],"launch":"{launch}","pcrs":{{"4":"{pcr}","11":"{pcr}"}}}}"#),
    ] {
        let text = with(&marks);
        let entry = Entry::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(String::from_utf8(entry.encode().unwrap()).unwrap(), text);
    }
    for (marks, code) in [
        ("null".to_owned(), "entry-not-canonical"),
        (r#"{"more":1}"#.to_owned(), "entry-malformed"),
        (r#"{"groups":["b","a"]}"#.to_owned(), "entry-not-canonical"),
        (r#"{"groups":["a","a"]}"#.to_owned(), "entry-not-canonical"),
        (r#"{"groups":["a b"]}"#.to_owned(), "entry-malformed"),
        (r#"{"launch":null}"#.to_owned(), "entry-malformed"),
        (format!(r#"{{"launch":"{pcr}"}}"#), "entry-malformed"),
        (format!(r#"{{"pcrs":{{"11":"{pcr}","4":"{pcr}"}}}}"#), "entry-not-canonical"),
        (r#"{"pcrs":{}}"#.to_owned(), "entry-malformed"),
    ] {
        assert_eq!(refusal(&with(&marks)).code(), code, "{marks}");
    }
}

#[test]
fn a_genesis_says_what_its_root_is_sealed_to() {
    let genesis = &samples()[0];
    let both = genesis.replace(r#""seal_to":"tpm""#, r#""seal_to":"snp,tpm""#);
    let Entry::Genesis(entry) = Entry::parse(both.as_bytes()).unwrap() else { panic!("not a genesis") };
    assert_eq!(Entry::Genesis(entry).encode().unwrap(), both.as_bytes());
}

#[test]
fn pcrs_of_a_reseal_have_one_spelling() {
    let samples = samples();
    let reseal = samples.iter().find(|text| text.contains(r#""action":"reseal""#)).unwrap();
    for (from, to, code) in [
        (r#""4":"ab"#, r#""04":"ab"#, "entry-malformed"),
        (r#""4":"ab"#, r#""24":"ab"#, "entry-malformed"),
        (r#""4":"ab"#, r#""x":"ab"#, "entry-malformed"),
        (r#""4":"ab"#, r#""4":"a"#, "entry-malformed"),
        (r#""4":"ab"#, r#""4":"AB"#, "entry-not-canonical"),
        (r#""4":"ab"#, r#""12":"ab"#, "entry-not-canonical"),
        (r#""4":"ab"#, r#""11":"ab"#, "entry-not-canonical"),
        (r#","statement""#, r#","measurement":null,"statement""#, "entry-malformed"),
    ] {
        assert_eq!(reseal.matches(from).count(), 1, "{from}");
        assert_eq!(refusal(&reseal.replacen(from, to, 1)).code(), code, "{to}");
    }
}

#[test]
fn unknown_fields_are_refused_in_every_type() {
    for text in samples() {
        let more = text.replacen(r#""time":5"#, r#""time":5,"x":1"#, 1);
        assert_eq!(refusal(&more).code(), "entry-malformed", "{more}");
    }
}

#[test]
fn repeated_fields_are_refused_in_every_type() {
    for text in samples() {
        let twice = text.replacen(r#""time":5"#, r#""time":5,"time":5"#, 1);
        assert!(matches!(refusal(&twice), EntryError::Malformed(_)), "{twice}");
    }
    let counts = r#"{"v":1,"type":"deny-summary","time":5,"since":4,"counts":{"a":1,"a":2}}"#;
    assert_eq!(refusal(counts), EntryError::NotCanonical);
}

#[test]
fn missing_fields_are_refused_in_every_type() {
    for text in samples() {
        let fewer = text.replacen(r#""time":5,"#, "", 1);
        assert!(matches!(refusal(&fewer), EntryError::Malformed(_)), "{fewer}");
    }
    let half = samples()[5].replace(&format!(r#","binding":"{D2}""#), "");
    assert!(refusal(&half).to_string().contains("together"));
}

#[test]
fn another_version_is_refused_whatever_it_holds() {
    for text in samples() {
        let later = text.replacen(r#""v":1"#, r#""v":2,"new":[1]"#, 1);
        assert_eq!(refusal(&later), EntryError::UnknownVersion { found: 2 });
    }
    assert_eq!(refusal(r#"{"v":0}"#), EntryError::UnknownVersion { found: 0 });
}

#[test]
fn an_unknown_type_is_refused() {
    let refused = refusal(r#"{"v":1,"type":"forget","time":5,"lease":{"a":[1]}}"#);
    assert_eq!(refused, EntryError::UnknownType { found: "forget".to_owned() });
    let long = format!(r#"{{"v":1,"type":"{}"}}"#, "x".repeat(1000));
    assert_eq!(refusal(&long), EntryError::UnknownType { found: "x".repeat(32) });
}

#[test]
fn any_other_spelling_is_refused() {
    let end = &samples()[10];
    for (from, to) in [
        (r#""time":5"#, r#""time": 5"#),
        (r#""cause""#, r#" "cause""#),
        (r#""agent""#, r#""\u0061gent""#),
        (r#""cause""#, r#""\u0063ause""#),
    ] {
        assert_eq!(refusal(&end.replacen(from, to, 1)), EntryError::NotCanonical, "{to}");
    }
    for around in [format!("{end}\n"), format!(" {end}")] {
        assert_eq!(refusal(&around), EntryError::NotCanonical);
    }
    let moved = format!(r#"{{"v":1,"type":"end","lease":"{D}","time":5,"cause":"agent"}}"#);
    assert_eq!(refusal(&moved), EntryError::NotCanonical);
    let nothing = samples()[4].replacen("\"sig\"", "\"sig\",\"evidence\":null", 1);
    assert_eq!(refusal(&nothing), EntryError::NotCanonical);
    let array =
        samples()[8].replace(&format!(r#"{{"count":2,"bytes":90,"digest":"{D}"}}"#), &format!(r#"[2,90,"{D}"]"#));
    assert_eq!(refusal(&array), EntryError::NotCanonical);
}

#[test]
fn version_and_type_come_first() {
    for text in [
        format!(r#"{{"type":"end","v":1,"time":5,"lease":"{D}","cause":"agent"}}"#),
        format!(r#"{{"v":1,"time":5,"type":"end","lease":"{D}","cause":"agent"}}"#),
        "{}".to_owned(),
        "[]".to_owned(),
        String::new(),
        "null".to_owned(),
        r#"{"v":1}"#.to_owned(),
        r#"{"v":"1","type":"end"}"#.to_owned(),
    ] {
        assert_eq!(refusal(&text).code(), "entry-malformed", "{text}");
    }
    assert_eq!(Entry::parse(b"{\"v\":1,\xff").unwrap_err().code(), "entry-malformed");
}

#[test]
fn fields_of_another_form_are_refused() {
    let release = &samples()[8];
    for (from, to) in [
        (r#""time":5"#, r#""time":-5"#),
        (r#""time":5"#, r#""time":5.0"#),
        (r#""rule":"minilm""#, r#""rule":"Mini LM""#),
        (r#""version":"1.0""#, r#""version":"""#),
        (r#""policy":"sha256:44"#, r#""policy":"sha256:AB"#),
        (r#""tier":"hardware""#, r#""tier":"Hardware""#),
        (r#""session":"Bw"#, r#""session":"B!"#),
        (r#""session":"Bw"#, r#""session":"BwcH"#),
        (r#""ak_name":"AAt"#, r#""ak_name":"AAx"#),
        (r#""reset_count":1"#, r#""reset_count":4294967296"#),
    ] {
        assert_eq!(release.matches(from).count(), 1, "{from}");
        assert_eq!(refusal(&release.replacen(from, to, 1)).code(), "entry-malformed", "{to}");
    }
    // Padding bits that are not zero would be a second spelling of the same bytes.
    let padded = release.replacen("Bw==\",\"hpke_key", "Bx==\",\"hpke_key", 1);
    assert_ne!(&padded, release);
    assert_eq!(refusal(&padded).code(), "entry-malformed");
    let start = &samples()[1];
    assert_eq!(refusal(&start.replace("0e0f", "0E0F")), EntryError::NotCanonical);
    assert_eq!(refusal(&start.replace("0e0f", "0e")).code(), "entry-malformed");
}

#[test]
fn an_entry_has_a_limit_in_both_directions() {
    let policy = |len: usize| {
        format!(
            r#"{{"v":1,"type":"propose","time":5,"action":"policy","object":"{D}","policy":"{}","statement":"","signature":""}}"#,
            "x".repeat(len)
        )
    };
    let fits = ENTRY_BYTES_MAX - policy(0).len();
    let Entry::Propose(mut propose) = Entry::parse(policy(fits).as_bytes()).unwrap() else { panic!("not a proposal") };
    assert_eq!(refusal(&policy(fits + 1)), EntryError::TooLong { bytes: ENTRY_BYTES_MAX + 1 });
    if let ledger::entry::Proposal::Policy(proposed) = &mut propose.proposal {
        proposed.signature.push('x');
    }
    assert_eq!(Entry::Propose(propose).encode(), Err(EntryError::TooLong { bytes: ENTRY_BYTES_MAX + 1 }));
}
