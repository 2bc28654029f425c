//! A rule on the events of a boot, on a real software TPM: its guest loads, and one that booted anything else does not.

use std::path::{Path, PathBuf};
use std::process::Command;

use attestation::{Evidence, Sha256Digest, lease_id};
use tonic::Status;
use vault_proto::convert::{Challenge, EvidenceSet, ReleaseRequest};
use vault_proto::v1::ReleaseKeysResponse;
use vault_tests::forge::eventlog::{Boot, ROOT_HASH};
use vault_tests::process::Swtpm;
use vault_tests::{Guest, Running, World, process, run, run_ok};

/// What the rule quotes: 4, 7 and 9 with any value.
const QUOTED: [u32; 5] = [0, 4, 7, 9, 11];

fn image() -> PathBuf {
    process::binary("vault-host")
}

fn image_pcr() -> [u8; 32] {
    let digest = Sha256Digest::of(&std::fs::read(image()).expect("it was built"));
    *Sha256Digest::of(&[&[0; 32], &digest.as_bytes()[..]].concat()).as_bytes()
}

/// The rule `guest`: firmware and image by their PCRs, the rest by events.
fn rule() -> String {
    let (pcr_0, pcr_11) = (hex::encode(Boot::default().pcrs()[0]), hex::encode(image_pcr()));
    let (kernel, initrd) = (Sha256Digest::of(b"kernel"), Sha256Digest::of(b"initrd"));
    format!(
        "[release.guest]\nmodels = [\"demo\"]\ngroups = \"any\"\nrequire = [\"tpm\"]\n\
         pcrs = {{ 0 = [\"{pcr_0}\"], 4 = \"any\", 7 = \"any\", 9 = \"any\", 11 = [\"{pcr_11}\"] }}\neks = \"any\"\n\
         lease = \"60s\"\non_lease_end = \"end\"\nmax_leases = 64\nverify_units = true\n\
         [release.guest.boot]\nsecure_boot = true\nimages = [\"{kernel}\"]\n\
         command_lines = [\"quiet roothash={{verity_root_hash}}\"]\ninitrds = [\"{initrd}\"]\n\
         verity_root_hashes = [\"{ROOT_HASH}\"]\n"
    )
}

/// The guest's machine after this boot: always the same TPM. Its log is the file that comes back.
fn start(world: &World, boot: &Boot) -> (Swtpm, PathBuf) {
    let log = world.path("event.log");
    std::fs::write(&log, boot.log()).expect("the directory is ours");
    let measured = process::Boot { firmware: Some(log.clone()), image: image() };
    (Swtpm::booted(&world.path("tpm-guest"), &world.path("ca"), &measured), log)
}

fn load(world: &World, tpm: &Swtpm, log: &Path, into: &Path) -> Command {
    let mut load = world.enclave("load");
    load.args(["demo@1", "--rule", "guest", "--tpm", &tpm.tcti, "--vault"]).arg(world.vault());
    load.arg("--event-log").arg(log).arg("--into").arg(into);
    load
}

fn place(world: &World, name: &str) -> PathBuf {
    let dir = world.path("");
    let dir = dir.file_name().expect("the world has a directory").to_string_lossy().into_owned();
    PathBuf::from(format!("/dev/shm/{dir}-{name}"))
}

/// The exact code behind a load that the keeper refused.
fn refused(world: &World, tpm: &Swtpm, log: &Path) -> String {
    let into = place(world, "refused");
    let (code, said) = run(&mut load(world, tpm, log, &into));
    let _ = std::fs::remove_dir(&into);
    assert_ne!(code, Some(0), "{said}");
    let request = said.split(|char: char| !char.is_ascii_hexdigit()).find(|word| word.len() == 32);
    run_ok(world.vaultctl().args(["explain", request.unwrap_or_else(|| panic!("no request in:\n{said}"))]))
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_loads_by_the_events_of_its_boot_and_no_other_boot_does() {
    let world = World::before_ceremony(|_, policy| policy.push_str(&rule()));
    world.sign_genesis();
    world.publish("1");

    let (tpm, log) = start(&world, &Boot::default());
    loads_and_is_audited(&world, &tpm, &log);
    what_the_agent_says_itself(&world, &tpm, &log);
    let cut = world.path("cut.log");
    std::fs::write(&cut, &Boot::default().log()[..300]).expect("the directory is ours");
    assert!(refused(&world, &tpm, &cut).contains("event-log-truncated"));
    let other = world.path("other.log");
    std::fs::write(&other, Boot { image: b"other", ..Boot::default() }.log()).expect("the directory is ours");
    assert!(refused(&world, &tpm, &other).contains("event-log-replay-mismatch"));
    tpm.stop();

    let line = format!("{} init=/bin/sh", Boot::default().options);
    for (code, boot) in [
        ("secure-boot-off", Boot { secure_boot: false, ..Boot::default() }),
        ("boot-application-unlisted", Boot { image: b"other", ..Boot::default() }),
        ("kernel-command-line-mismatch", Boot { options: line, ..Boot::default() }),
        ("initrd-unlisted", Boot { initrd: b"other", ..Boot::default() }),
        ("initrd-missing", Boot { initrd: b"", ..Boot::default() }),
        ("pcr-not-allowed", Boot { firmware: "1.1", ..Boot::default() }),
    ] {
        let (tpm, log) = start(&world, &boot);
        let explained = refused(&world, &tpm, &log);
        assert!(explained.contains(code), "{code}: {explained}");
        tpm.stop();
    }
    by_hand(&world).await;
    renewals(&world).await;
}

/// The grant, a renewal's worth of evidence, and the auditor's view of it.
fn loads_and_is_audited(world: &World, tpm: &Swtpm, log: &Path) {
    let into = place(world, "loaded");
    let mut agent = Running::start(&mut load(world, tpm, log, &into), &world.path("load.log"));
    agent.wait_for("ready");
    assert!(into.join("model.safetensors").exists(), "{}", agent.log());
    assert_eq!(agent.terminate(), Some(0));
    let _ = std::fs::remove_dir(into);
    let entries = run_ok(world.vaultctl().args(["log", "show"]));
    let release = entries.lines().find(|line| line.contains(" release ")).expect("it is in the log");
    let index = release.split_whitespace().next().expect("it begins with its index");
    let verified = run_ok(world.vaultctl().args(["evidence", "verify", "--entry", index]));
    assert!(verified.contains("erified"), "{verified}");
}

/// Before anything is sent: that the log is not there, with the fix; and what `evidence` and `doctor` say of it.
fn what_the_agent_says_itself(world: &World, tpm: &Swtpm, log: &Path) {
    let into = place(world, "missing");
    let (code, said) = run(&mut load(world, tpm, Path::new("/nonexistent/log"), &into));
    let _ = std::fs::remove_dir(&into);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("event-log-unreadable") && said.contains("--event-log FILE"), "{said}");

    let set = world.path("evidence.bin");
    let mut evidence = world.enclave("evidence");
    evidence.args(["--tpm", &tpm.tcti, "--pcrs", "0,4,7,9,11", "--out"]).arg(&set).arg("--event-log").arg(log);
    run_ok(&mut evidence);
    let shown = run_ok(world.vaultctl().args(["evidence", "show"]).arg(&set));
    assert!(shown.contains("What is known, if the log is true") && shown.contains("SecureBoot = on"), "{shown}");

    let doctor = |log: &Path| {
        let mut doctor = world.enclave("doctor");
        run(doctor.args(["--tpm", &tpm.tcti, "--event-log"]).arg(log)).1
    };
    assert!(doctor(log).contains("which lead to PCRs 0 to 7"), "{}", doctor(log));
    assert!(doctor(Path::new("/nonexistent")).contains("event-log-unreadable"));
}

/// What a guest can send that is not the program of this project.
async fn by_hand(world: &World) {
    let boot = Boot::default();
    let log = boot.log();
    let mut changed = log.clone();
    // One bit in the digest of an event.
    let digest = Sha256Digest::of(b"initrd");
    let at = log.windows(32).position(|window| window == digest.as_bytes()).expect("it is there");
    changed[at] ^= 1;
    for (code, event_log) in [
        ("event-log-missing", None),
        ("event-log-replay-mismatch", Some(changed)),
        ("event-log-truncated", Some(log[..log.len() - 1].to_vec())),
        ("event-log-replay-mismatch", Some(Boot { secure_boot: false, ..boot.clone() }.log())),
        ("event-log-truncated", Some(vec![0; 10])),
    ] {
        assert_eq!(send(world, "guest", &boot, event_log).await.as_deref(), Some(code));
    }
    assert_eq!(send(world, "guest", &boot, Some(log.clone())).await, None);
    let other = Boot { options: "quiet".to_owned(), ..boot.clone() };
    let refusal = send(world, "guest", &other, Some(other.log())).await;
    assert_eq!(refusal.as_deref(), Some("kernel-command-line-mismatch"));
    // A rule that asks for none stores none.
    assert_eq!(send(world, "demo", &boot, Some(log)).await.as_deref(), Some("event-log-unasked"));
}

/// A lease of this rule goes on by the events of its boot, again and again, and by no other ones.
async fn renewals(world: &World) {
    let boot = Boot::default();
    let mut guest = Guest::new(world).await;
    let granted = load_by_hand(&mut guest, "guest", &boot, Some(boot.log())).await;
    let (grant, challenge) = granted.unwrap_or_else(|status| panic!("a grant: {status}"));
    let id = lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key());
    let init = Boot { options: format!("{} init=/bin/sh", boot.options), ..boot.clone() };
    let unsigned = Boot { secure_boot: false, ..boot.clone() };
    for (code, left_behind, event_log) in [
        (None, &boot, Some(boot.log())),
        (Some("event-log-missing"), &boot, None),
        // What was booted says so itself, or sends the log of the boot that was granted.
        (Some("kernel-command-line-mismatch"), &init, Some(init.log())),
        (Some("event-log-replay-mismatch"), &init, Some(boot.log())),
        (Some("event-log-replay-mismatch"), &boot, Some(init.log())),
        (Some("secure-boot-off"), &unsigned, Some(unsigned.log())),
        (None, &boot, Some(boot.log())),
    ] {
        measured(&mut guest, left_behind);
        let shown = |guest: &Guest, _: &Challenge, extra_data: &[u8]| EvidenceSet {
            evidence: Evidence::Tpm(guest.tpm.quote(&guest.identity, &QUOTED, extra_data)),
            event_log,
        };
        let renewal = guest.renewal_under("guest", &grant, id, shown).await;
        let refusal = match guest.renew(renewal).await {
            Ok(renewed) => {
                assert!(renewed.lease.is_some());
                None
            }
            Err(status) => Some(guest.code_of(status).await),
        };
        assert_eq!(refusal.as_deref(), code);
    }
    let entries = run_ok(world.vaultctl().args(["log", "show"]));
    assert!(!entries.contains(&format!("ended: {id}")), "{entries}");
}

fn measured(guest: &mut Guest, boot: &Boot) {
    guest.tpm.pcrs = boot.pcrs();
    guest.tpm.pcrs[11] = image_pcr();
}

/// One load by hand; the exact code of its refusal.
async fn send(world: &World, rule: &str, boot: &Boot, event_log: Option<Vec<u8>>) -> Option<String> {
    let mut guest = Guest::new(world).await;
    match load_by_hand(&mut guest, rule, boot, event_log).await {
        Ok(_) => None,
        Err(status) => Some(guest.code_of(status).await),
    }
}

async fn load_by_hand(
    guest: &mut Guest,
    rule: &str,
    boot: &Boot,
    event_log: Option<Vec<u8>>,
) -> Result<(ReleaseKeysResponse, Challenge), Status> {
    let quoted: &[u32] = if rule == "demo" { &vault_tests::world::PCRS } else { &QUOTED };
    if rule != "demo" {
        measured(guest, boot);
    }
    let mut ask = guest.ask();
    ask.rule = rule.to_owned();
    let challenge = guest.challenge(ask).await.expect("a challenge");
    assert_eq!(challenge.asked.quote().is_some_and(|quote| quote.event_log), rule == "guest");
    let binding = guest.bind_as(&challenge, |bound| bound.rule = rule.to_owned());
    let quote = guest.tpm.quote(&guest.identity, quoted, &binding.tpm_extra_data());
    let request = ReleaseRequest {
        session: challenge.session,
        hpke_key: guest.hpke_key(),
        lease_key: guest.lease_key(),
        evidence: EvidenceSet { evidence: Evidence::Tpm(quote), event_log },
        workload: None,
    };
    Ok((guest.redeem(request).await?, challenge))
}
