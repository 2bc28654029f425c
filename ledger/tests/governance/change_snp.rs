//! The difference of two `snp` sections in words: every key, in both directions.

use ledger::policy::{Policy, describe_change};

use crate::support::policy_text::{
    ID_KEY, LAUNCH_GUEST, LAUNCH_KEEPER, PCR_0, PCR_11_GUEST, PCR_11_KEEPER, first, paravisor, snp,
};

const DIGEST: &str = "sha256:4444444444444444444444444444444444444444444444444444444444444444";
const CSPS: &str = "csps = [\"CN=cc-us-east-2.amazonaws.com\"]";

fn described(old: &str, new: &str) -> Vec<String> {
    describe_change(&Policy::parse(old).unwrap(), &Policy::parse(new).unwrap())
}

/// One change in the section of the keeper, or of the rule, loosens; taking it back tightens. `KEY` in the words is the
/// section.
#[track_caller]
fn looser(from: &str, to: &str, said: &str, taken_back: &str) {
    let text = snp();
    assert_eq!(text.matches(from).count(), 2, "{from:?} must stand in both sections once");
    let first = text.find(from).unwrap();
    let second = text.rfind(from).unwrap();
    for (at, section) in [(first, "keeper.snp"), (second, "release.minilm.snp")] {
        let changed = format!("{}{to}{}", &text[..at], &text[at + from.len()..]);
        assert_eq!(described(&text, &changed), [format!("LOOSER: {}", said.replace("KEY", section))]);
        assert_eq!(described(&changed, &text), [format!("stricter: {}", taken_back.replace("KEY", section))]);
    }
}

#[test]
fn every_loosening_of_a_section_is_named_and_so_is_its_opposite() {
    let listed = [
        ("host_data", PCR_0, PCR_11_KEEPER),
        ("id_keys", ID_KEY, LAUNCH_GUEST),
        ("author_keys", ID_KEY, LAUNCH_KEEPER),
    ];
    for (key, one, other) in listed {
        let line = format!("{key} = [\"{one}\"]");
        looser(
            &line,
            &format!("{key} = [\"{one}\", \"{other}\"]"),
            &format!("KEY.{key} also allows {other}"),
            &format!("KEY.{key} no longer allows {other}"),
        );
        looser(
            &format!("{line}\n"),
            "",
            &format!("KEY.{key} is no longer looked at"),
            &format!("KEY.{key} is looked at: {one}"),
        );
    }
    looser(
        CSPS,
        &CSPS.replace(']', ", \"CN=other\"]"),
        "KEY.csps also allows \"CN=other\"",
        "KEY.csps no longer allows \"CN=other\"",
    );
    let (milan, at) = ("bootloader = 4, tee = 1, snp = 24, microcode = 219", "bootloader=4 tee=1 snp=24 microcode=219");
    for (part, number) in [("bootloader", 4), ("tee", 1), ("snp", 24), ("microcode", 219)] {
        let lower = |text: &str, equals: &str| {
            text.replace(&format!("{part}{equals}{number}"), &format!("{part}{equals}{}", number - 1))
        };
        let (to, below) = (lower(milan, " = "), lower(at, "="));
        let said = format!("KEY.min_tcb.milan is {below}, before {at}");
        looser(milan, &to, &said, &format!("KEY.min_tcb.milan is {at}, before {below}"));
    }
    looser(
        "vmpl = 0\n",
        "vmpl = 0\nmin_tcb.genoa = { bootloader = 1, tee = 2, snp = 3, microcode = 4 }\n",
        "KEY.min_tcb also takes Genoa, from bootloader=1 tee=2 snp=3 microcode=4 on",
        "KEY.min_tcb no longer takes Genoa",
    );
    looser(
        "min_report_version = 3",
        "min_report_version = 2",
        "KEY.min_report_version is 2, before 3",
        "KEY.min_report_version is 3, before 2",
    );
    looser(
        "crl = \"required\"",
        "crl = \"if-present\"",
        "KEY.crl no longer needs a revocation list",
        "KEY.crl needs a revocation list",
    );
    looser("smt = false", "smt = true", "KEY.smt is allowed", "KEY.smt is no longer allowed");
    looser(
        "provisional_firmware = false",
        "provisional_firmware = true",
        "KEY.provisional_firmware is allowed",
        "KEY.provisional_firmware is no longer allowed",
    );
    looser(
        "min_guest_svn = 7",
        "min_guest_svn = 6",
        "KEY.min_guest_svn is 6, before 7",
        "KEY.min_guest_svn is 7, before 6",
    );
    looser("min_guest_svn = 7\n", "", "KEY.min_guest_svn is gone, before 7", "KEY.min_guest_svn is 7");
    looser(
        "\"1.55.21\"",
        "\"1.54.99\"",
        "KEY.min_firmware is 1.54.99, before 1.55.21",
        "KEY.min_firmware is 1.55.21, before 1.54.99",
    );
    looser(
        "min_firmware = \"1.55.21\"\n",
        "",
        "KEY.min_firmware is gone, before 1.55.21",
        "KEY.min_firmware is 1.55.21",
    );
    looser(
        "[\"ecc\", \"alias-check\"]",
        "[\"ecc\"]",
        "KEY.platform no longer needs alias-check",
        "KEY.platform also needs alias-check",
    );
}

#[test]
fn launch_digests_and_chips_are_named_one_by_one() {
    let section = |key: &str| format!("{key}.snp.measurements");
    for (key, own, other) in [("keeper", LAUNCH_KEEPER, PCR_0), ("release.minilm", LAUNCH_GUEST, PCR_0)] {
        let other = format!("{other}{}", &other[..32]);
        let more = snp().replace(&format!("[\"{own}\"]"), &format!("[\"{own}\", \"{other}\"]"));
        assert_eq!(described(&snp(), &more), [format!("LOOSER: {} also allows {other}", section(key))]);
        assert_eq!(described(&more, &snp()), [format!("stricter: {} no longer allows {other}", section(key))]);
    }
    let listed = snp().replace("chips = \"any\"", &format!("chips = [\"{DIGEST}\"]"));
    assert_eq!(
        described(&snp(), &listed),
        [
            format!("stricter: keeper.snp.chips is {DIGEST}, before any"),
            format!("stricter: release.minilm.snp.chips is {DIGEST}, before any"),
        ]
    );
    assert_eq!(described(&listed, &snp())[1], format!("LOOSER: release.minilm.snp.chips is any, before {DIGEST}"));
}

#[test]
fn a_higher_number_does_not_make_up_for_a_lower_one() {
    let (from, to) = ("bootloader = 4, tee = 1", "bootloader = 3, tee = 9");
    let said = described(&snp(), &snp().replace(from, to));
    assert_eq!(said.len(), 2);
    assert!(said.iter().all(|line| line.starts_with("LOOSER: ")), "{said:?}");
    // Looser in one part, whichever way: nobody approves it as a tightening.
    assert!(described(&snp().replace(from, to), &snp()).iter().all(|line| line.starts_with("LOOSER: ")));
}

#[test]
fn another_level_is_neither() {
    let said = described(&snp(), &snp().replace("vmpl = 0", "vmpl = 2"));
    assert_eq!(said, ["changed: keeper.snp.vmpl is 2, before 0", "changed: release.minilm.snp.vmpl is 2, before 0"]);
}

#[test]
fn what_is_proved_comes_and_goes() {
    let said = described(&first(), &snp());
    let new = |digit: &str| {
        let digest = digit.repeat(96);
        format!(
            "launch digests {digest}, chips any, clouds' keys \"CN=cc-us-east-2.amazonaws.com\", Milan from TCB bootloader=4 \
             tee=1 snp=24 microcode=219, Turin from TCB fmc=1 bootloader=2 tee=1 snp=4 microcode=71, VMPL 0, report \
             version from 3, revocation list required, smt = false, provisional_firmware = false, HOST_DATA {PCR_0}, ID keys \
             {ID_KEY}, author keys {ID_KEY}, guest SVN from 7, firmware from 1.55.21, platform ecc and alias-check"
        )
    };
    assert_eq!(
        said,
        [
            "LOOSER: keeper.require no longer has tpm".to_owned(),
            "LOOSER: release.minilm.require no longer has tpm".to_owned(),
            "LOOSER: release.minilm.pcrs is gone: no PCR is checked".to_owned(),
            "LOOSER: release.minilm.eks is gone, before any".to_owned(),
            "stricter: keeper.require also has snp".to_owned(),
            format!("stricter: keeper.snp is new: {}", new("6")),
            "stricter: release.minilm.require also has snp".to_owned(),
            format!("stricter: release.minilm.snp is new: {}", new("7")),
        ]
    );
    let back = described(&snp(), &first());
    assert!(back.contains(&"LOOSER: keeper.snp is gone: no report is checked".to_owned()), "{back:?}");
    assert!(back.contains(&"LOOSER: release.minilm.snp is gone: no report is checked".to_owned()), "{back:?}");
    assert!(back.contains(&"stricter: release.minilm.eks is new: any".to_owned()), "{back:?}");
}

#[test]
fn what_covers_the_code_is_said() {
    let said = described(&snp(), &paravisor());
    let cover = "release.minilm.snp.code_covered_by is";
    assert_eq!(
        said[0],
        format!("LOOSER: {cover} paravisor-vtpm: the launch digest need no longer cover what is booted")
    );
    // An image of one's own could else come in with it, unseen.
    let values = format!("stricter: release.minilm.pcrs is new: PCR 11 = {PCR_11_GUEST}");
    assert!(said.contains(&values), "{said:?}");
    let back = described(&paravisor(), &snp());
    assert!(back.contains(&format!("stricter: {cover} launch: the launch digest covers what is booted")), "{back:?}");
}
