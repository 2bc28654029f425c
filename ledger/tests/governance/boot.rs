//! Rules on the events of a boot: how they are written, what a change of them means, and what is decided by them.

use attestation::{EventLog, EventLogError, Sha256Digest};
use ledger::decide::{DenialReason, decide};
use ledger::policy::{BootMismatch, Permitted, Policy, PolicyError, SecureBoot, describe_change};

use crate::common::eventlog::{Boot, ROOT_HASH};
use crate::support::evidence::Guest;
use crate::support::policy_text::{PCR_0, PCR_11_GUEST, first};
use crate::support::world::{World, rule};

const OTHER_ROOT: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn section() -> String {
    let (image, initrd) = (Sha256Digest::of(b"kernel"), Sha256Digest::of(b"initrd"));
    format!(
        "[release.minilm.boot]\nsecure_boot = true\nimages = [\"{image}\"]\n\
         command_lines = [\"quiet roothash={{verity_root_hash}}\"]\ninitrds = [\"{initrd}\"]\n\
         verity_root_hashes = [\"{ROOT_HASH}\"]\n"
    )
}

/// The good policy, whose rule asks for events and leaves their PCRs open.
fn with_boot(text: String) -> String {
    let pcrs = format!("pcrs = {{ 0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_GUEST}\"] }}");
    assert_eq!(text.matches(&pcrs).count(), 1);
    let pcr_0 = hex::encode(Boot::default().pcrs()[0]);
    let open =
        format!("pcrs = {{ 0 = [\"{pcr_0}\"], 4 = \"any\", 7 = \"any\", 9 = \"any\", 11 = [\"{PCR_11_GUEST}\"] }}");
    text.replace(&pcrs, &open).replace("\n[audit]", &format!("\n{}\n[audit]", section()))
}

fn good() -> String {
    with_boot(first())
}

#[track_caller]
fn changed(from: &str, to: &str) -> String {
    let text = good();
    assert_eq!(text.matches(from).count(), 1, "{from:?} must stand there exactly once");
    text.replace(from, to)
}

#[track_caller]
fn refused(from: &str, to: &str, key: &str, code: &str) {
    let error: PolicyError = Policy::parse(&changed(from, to)).expect_err("must be refused");
    assert_eq!((error.key.as_str(), error.code()), (key, code), "{error}");
}

const KEY: &str = "release.minilm.boot";

#[test]
fn a_section_says_exactly_what_its_text_says() {
    let policy = Policy::parse(&good()).unwrap();
    let pcrs = policy.release_rules().values().next().unwrap().guest.pcrs().unwrap().clone();
    let boot = pcrs.boot().unwrap();
    assert_eq!((boot.secure_boot, boot.pcrs().iter().collect::<Vec<_>>()), (SecureBoot::Required, vec![4, 7, 9]));
    assert_eq!(boot.images, Permitted::Only(vec![Sha256Digest::of(b"kernel")]));
    let lines = boot.command_lines.as_ref().unwrap();
    assert_eq!(lines.lines, [format!("quiet roothash={ROOT_HASH}")]);
    assert_eq!(lines.initrds, [Sha256Digest::of(b"initrd")]);
    assert_eq!(pcrs.selection().iter().collect::<Vec<_>>(), [0, 4, 7, 9, 11]);
    assert_eq!(pcrs.open().iter().copied().collect::<Vec<_>>(), [4, 7, 9]);
}

#[test]
fn no_key_of_a_section_has_a_default_and_none_is_idle() {
    for line in section().lines().skip(1) {
        let key = line.split(" = ").next().unwrap();
        refused(&format!("{line}\n"), "", &format!("{KEY}.{key}"), "policy-key-missing");
    }
    let lines = "command_lines = [\"quiet roothash={verity_root_hash}\"]\n";
    let closed =
        good().replace("9 = \"any\"", &format!("9 = [\"{PCR_0}\"]")).replace(lines, "command_lines = \"any\"\n");
    assert_eq!(Policy::parse(&closed).unwrap_err().code(), "policy-key-unknown");
    refused("secure_boot = true", "secure_boot = \"any\"", "release.minilm.boot.secure_boot", "policy-wrong-type");
    let initrd = format!("initrds = [\"{}\"]", Sha256Digest::of(b"initrd"));
    refused(&initrd, "initrds = \"any\"", "release.minilm.boot.initrds", "policy-wrong-type");
    refused(&initrd, "initrds = []", "release.minilm.boot.initrds", "policy-list-empty");
    assert!(Policy::parse(&changed(&initrd, "initrds = \"none\"")).is_ok());
}

#[test]
fn pcrs_of_the_events_are_quoted_and_no_other_is_open() {
    refused("4 = \"any\", ", "", KEY, "policy-boot-pcr-not-quoted");
    refused("7 = \"any\", ", "", KEY, "policy-boot-pcr-not-quoted");
    refused("9 = \"any\", ", "", KEY, "policy-boot-pcr-not-quoted");
    refused("9 = \"any\"", "8 = \"any\", 9 = \"any\"", "release.minilm.pcrs.8", "policy-pcr-open");
    refused("secure_boot = true", "secure_boot = false", "release.minilm.pcrs.7", "policy-pcr-open");
    let pcr_0 = format!("0 = [\"{}\"], 4", hex::encode(Boot::default().pcrs()[0]));
    refused(&pcr_0, "4", "release.minilm.pcrs", "policy-boot-firmware-open");
    let images = format!("images = [\"{}\"]", Sha256Digest::of(b"kernel"));
    // Whatever kernel it is could measure the listed command line itself.
    let lines = good().replace(&images, "images = \"any\"").replace("4 = \"any\", ", "");
    let error = Policy::parse(&lines).unwrap_err();
    assert_eq!((error.key.as_str(), error.code()), (KEY, "policy-boot-images-open"));
    assert!(Policy::parse(&lines.replace("7 =", &format!("4 = [\"{PCR_0}\"], 7 ="))).is_ok());
    // Secure boot by keys of the machine's own.
    let start = lines.find("command_lines").unwrap();
    let end = start + lines[start..].find("\n\n").unwrap();
    let secure = format!("{}command_lines = \"any\"{}", &lines[..start], &lines[end..]).replace("9 = \"any\", ", "");
    assert_eq!(Policy::parse(&secure).unwrap_err().code(), "policy-boot-images-open");
    assert!(Policy::parse(&secure.replace("7 = \"any\"", &format!("7 = [\"{PCR_0}\"]"))).is_ok());
    let open = first().replace(&format!("11 = [\"{PCR_11_GUEST}\"]"), "11 = \"any\"");
    assert_eq!(Policy::parse(&open).unwrap_err().code(), "policy-pcr-open");
}

#[test]
fn a_section_that_asks_for_nothing_or_cannot_be_met_is_refused() {
    let heading = "[release.minilm.boot]\n";
    let (head, rest) = good().split_once(heading).map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let (_, tail) = rest.split_once("\n[audit]").unwrap();
    let empty = "secure_boot = false\nimages = \"any\"\ncommand_lines = \"any\"\n";
    let error = Policy::parse(&format!("{head}{heading}{empty}\n[audit]{tail}")).unwrap_err();
    assert_eq!((error.key.as_str(), error.code()), (KEY, "policy-boot-empty"));

    let line = "quiet roothash={verity_root_hash}";
    let at = "release.minilm.boot.command_lines[0]";
    for malformed in ["quiét roothash={verity_root_hash}", "", &"a".repeat(2049)] {
        refused(line, malformed, at, "policy-command-line-malformed");
    }
    refused(line, "quiet", at, "policy-verity-root-missing");
    refused(line, &format!("{line} usrhash={OTHER_ROOT}"), at, "policy-verity-root-missing");
    refused(
        &format!("verity_root_hashes = [\"{ROOT_HASH}\"]"),
        "verity_root_hashes = \"any\"",
        at,
        "policy-verity-root-missing",
    );
    let listed = format!("[\"{ROOT_HASH}\"]");
    let roots = "release.minilm.boot.verity_root_hashes";
    for malformed in ["aa", &ROOT_HASH.to_uppercase(), &ROOT_HASH[1..]] {
        refused(&listed, &format!("[\"{malformed}\"]"), &format!("{roots}[0]"), "policy-verity-root-malformed");
    }
    let two = format!("[\"{ROOT_HASH}\", \"{OTHER_ROOT}\"]");
    let text = changed(&listed, &two).replace(line, &format!("quiet roothash={ROOT_HASH}"));
    let error = Policy::parse(&text).unwrap_err();
    assert_eq!((error.key, error.problem.code()), (format!("{roots}[1]"), "policy-verity-root-unused"));
    let many: Vec<String> = (0..65).map(|n| format!("\"quiet{n} roothash={{verity_root_hash}}\"")).collect();
    let many = changed(&format!("[\"{line}\"]"), &format!("[{}]", many.join(", ")));
    assert_eq!(Policy::parse(&many).unwrap_err().code(), "policy-command-lines-too-many");
}

fn described(old: &str, new: &str) -> Vec<String> {
    describe_change(&Policy::parse(old).unwrap(), &Policy::parse(new).unwrap())
}

/// One change loosens; taking it back tightens.
#[track_caller]
fn looser(from: &str, to: &str, said: &str, taken_back: &str) {
    let new = changed(from, to);
    assert_eq!(described(&good(), &new), [format!("LOOSER: {said}")]);
    assert_eq!(described(&new, &good()), [format!("stricter: {taken_back}")]);
}

#[test]
fn every_loosening_of_a_section_is_named_and_so_is_its_opposite() {
    let other = Sha256Digest::of(b"other");
    let image = format!("images = [\"{}\"", Sha256Digest::of(b"kernel"));
    looser(
        &image,
        &format!("{image}, \"{other}\""),
        &format!("release.minilm.boot.images also has {other}"),
        &format!("release.minilm.boot.images no longer has {other}"),
    );
    let initrd = format!("initrds = [\"{}\"", Sha256Digest::of(b"initrd"));
    looser(
        &initrd,
        &format!("{initrd}, \"{other}\""),
        &format!("release.minilm.boot.initrds also has {other}"),
        &format!("release.minilm.boot.initrds no longer has {other}"),
    );
    let line = "\"quiet roothash={verity_root_hash}\"";
    looser(
        line,
        &format!("{line}, \"debug roothash={{verity_root_hash}}\""),
        &format!("release.minilm.boot.command_lines also has \"debug roothash={ROOT_HASH}\""),
        &format!("release.minilm.boot.command_lines no longer has \"debug roothash={ROOT_HASH}\""),
    );
    let roots = changed(&format!("[\"{ROOT_HASH}\"]"), &format!("[\"{ROOT_HASH}\", \"{OTHER_ROOT}\"]"));
    let said = described(&good(), &roots);
    assert!(said.contains(&format!("LOOSER: {KEY}.verity_root_hashes also has {OTHER_ROOT}")), "{said:?}");
    assert!(
        said.contains(&format!("LOOSER: {KEY}.command_lines also has \"quiet roothash={OTHER_ROOT}\"")),
        "{said:?}"
    );

    let pinned = |text: &str| text.replace("7 = \"any\"", &format!("7 = [\"{PCR_0}\"]"));
    let unasked = pinned(&good()).replace("secure_boot = true", "secure_boot = false");
    assert_eq!(described(&pinned(&good()), &unasked), [format!("LOOSER: {KEY} no longer asks for secure boot")]);
    assert_eq!(described(&unasked, &pinned(&good())), [format!("stricter: {KEY} asks for secure boot")]);
    let any = "LOOSER: release.minilm.pcrs.7 is any: only the events in it are asked";
    assert_eq!(described(&pinned(&good()), &good()), [any]);
    assert_eq!(
        described(&good(), &pinned(&good())),
        [format!("stricter: release.minilm.pcrs.7 is {PCR_0}, before any")]
    );

    let all_pinned = ["4", "7", "9"]
        .iter()
        .fold(good(), |text, pcr| text.replace(&format!("{pcr} = \"any\""), &format!("{pcr} = [\"{PCR_0}\"]")));
    let without = all_pinned.replace(&section(), "");
    let gone = format!("LOOSER: {KEY} is gone: no event of the boot is checked");
    assert_eq!(described(&all_pinned, &without), [gone]);
    let new = described(&without, &all_pinned);
    assert!(
        new[0].starts_with(&format!("stricter: {KEY} is new: boot: secure_boot = true, images sha256:")),
        "{new:?}"
    );
    let words = described(&first().replace("[release.minilm]", "[release.before]"), &good());
    assert!(words.iter().any(|line| line.contains("PCR 9 = any") && line.contains(ROOT_HASH)), "{words:?}");
}

/// Events in the place of a value say `LOOSER`, and then which: an initrd of one's own could come in with the command line of
/// before, and nobody who signs would see it.
#[test]
fn events_that_take_the_place_of_a_value_are_shown_with_their_initrds() {
    let start = good().find("command_lines").unwrap();
    let end = start + good()[start..].find("\n\n").unwrap();
    let closed = format!("{}command_lines = \"any\"{}", &good()[..start], &good()[end..]);
    let closed = closed.replace("9 = \"any\"", &format!("9 = [\"{PCR_0}\"]"));
    let initrd = Sha256Digest::of(b"initrd");
    assert_eq!(
        described(&closed, &good()),
        [
            "LOOSER: release.minilm.pcrs.9 is any: only the events in it are asked".to_owned(),
            format!("stricter: {KEY}.command_lines is \"quiet roothash={ROOT_HASH}\", initrds {initrd}, before any"),
        ]
    );
    assert_eq!(
        described(&good(), &closed),
        [
            format!("LOOSER: {KEY}.command_lines is any, before \"quiet roothash={ROOT_HASH}\", initrds {initrd}"),
            format!("stricter: release.minilm.pcrs.9 is {PCR_0}, before any"),
        ]
    );
}

fn world() -> World {
    World::with_policy(with_boot).opened().published()
}

/// A guest that measured this boot.
fn guest(world: &World, boot: &Boot) -> Guest {
    let mut guest = Guest::of(world);
    for index in [0, 4, 7, 9] {
        guest.tpm.pcrs[index] = boot.pcrs()[index];
    }
    guest.pcrs = vec![0, 4, 7, 9, 11];
    guest
}

/// What is decided on a load with the log of this boot, which the guest did measure.
fn decided(boot: &Boot) -> Result<(), DenialReason> {
    let world = world();
    let log = boot.log();
    let rule = world.policy().release_rule(&rule()).unwrap().guest.pcrs().unwrap().boot().unwrap().pcrs();
    let replayed = EventLog::parse(&log).unwrap().replay();
    let verified = guest(&world, boot).good_load(&world, 1).with_event_log(replayed, &rule).unwrap();
    let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
    let manifest = world.state.open_manifest(&model, &version, world.manifest().bytes()).unwrap();
    decide(&world.state, verified, &manifest, world.now).map(drop).map_err(|denial| denial.reason().clone())
}

fn denied(change: impl FnOnce(&mut Boot)) -> (&'static str, String) {
    let mut boot = Boot::default();
    change(&mut boot);
    let reason = decided(&boot).expect_err("must be denied");
    (reason.code(), reason.explain().policy_key.unwrap_or_default())
}

#[test]
fn boot_that_its_events_show_as_asked_is_granted_and_each_other_refused_by_its_key() {
    assert_eq!(decided(&Boot::default()), Ok(()));
    let of = |code, key: &str| (code, format!("release.minilm.{key}"));
    assert_eq!(denied(|boot| boot.secure_boot = false), of("secure-boot-off", "boot.secure_boot"));
    assert_eq!(denied(|boot| boot.image = b"other"), of("boot-application-unlisted", "boot.images"));
    let line = of("kernel-command-line-mismatch", "boot.command_lines");
    assert_eq!(denied(|boot| boot.options.push_str(" init=/bin/sh")), line);
    assert_eq!(denied(|boot| boot.options = boot.options.replace('a', "b")), line);
    assert_eq!(denied(|boot| boot.initrd = b"other"), of("initrd-unlisted", "boot.command_lines"));
    assert_eq!(denied(|boot| boot.initrd = b""), of("initrd-missing", "boot.command_lines"));
    assert_eq!(denied(|boot| boot.firmware = "1.1"), of("pcr-not-allowed", "pcrs.0"));
}

#[test]
fn load_without_a_log_is_denied_where_the_rule_asks_for_events() {
    let world = world();
    let boot = Boot::default();
    let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
    let manifest = world.state.open_manifest(&model, &version, world.manifest().bytes()).unwrap();
    let load = guest(&world, &boot).good_load(&world, 1);
    let denial = decide(&world.state, load, &manifest, world.now).err().unwrap();
    let missing = DenialReason::BootNotAllowed { rule: rule(), mismatch: BootMismatch::LogMissing };
    assert_eq!((denial.reason(), denial.reason().code()), (&missing, "event-log-missing"));
    assert!(denial.reason().explain().expected.contains("--event-log"), "{denial}");
}

#[test]
fn log_that_answers_for_other_pcrs_than_the_rule_asks_is_denied() {
    let world = world();
    let boot = Boot::default();
    let log = boot.log();
    let pcrs = attestation::PcrSelection::try_from([4, 7].as_slice()).unwrap();
    let replayed = EventLog::parse(&log).unwrap().replay();
    let verified = guest(&world, &boot).good_load(&world, 1).with_event_log(replayed, &pcrs).unwrap();
    let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
    let manifest = world.state.open_manifest(&model, &version, world.manifest().bytes()).unwrap();
    let denial = decide(&world.state, verified, &manifest, world.now).err().unwrap();
    let error = EventLogError::PcrNotMeasured { pcr: 9 };
    let mismatch = BootMismatch::Events { key: "command_lines", error };
    assert_eq!(denial.reason(), &DenialReason::BootNotAllowed { rule: rule(), mismatch });
}
