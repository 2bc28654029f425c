//! `vaultctl evidence …`: the keeper now, and what entries of the log rest on.

use attestation::{
    ActivationSecret, Anchor, AttestationKey, EndorsedTpm, Evidence, HpkePublicKey, LeaseKey, LoadChallenge,
    RenewChallenge, Sha256Digest, TpmIdentity, TpmPart, Trust, TrustAnchors, UnitSet,
};
use ledger::entry::{
    BootId, Entry, Machine, ModelPublished, Proposal, Propose, ProposedModel, Release, ReleasedUnits, Renew, Renewal,
};
use serde_json::json;
use vault_proto::convert::EvidenceSet;

use crate::forge::tpm::SoftTpm;
use crate::peer::{Lies, now};
use crate::scene::{PCRS, Scene, run, text};

#[test]
fn the_evidence_of_the_keeper_verifies_now() {
    let scene = Scene::open();
    for args in [["evidence", "verify"].as_slice(), &["evidence", "show", "--live"]] {
        let report = scene.with_vault(args).done();
        assert_eq!((&report["verified"], &report["claims"]["tier"]), (&json!(true), &json!("emulated")));
        assert_eq!(report["log_size"], 4);
    }
}

#[test]
fn stored_evidence_is_shown_as_not_verified() {
    let scene = Scene::open();
    let keeper = scene.peer.keeper();
    let blob = keeper.blobs.values().find(|blob| EvidenceSet::from_blob(blob).is_ok()).unwrap().clone();
    drop(keeper);
    let file = scene.path("evidence.bin");
    std::fs::write(&file, &blob).unwrap();
    let shown = run(&["evidence", "show", "--json", text(&file)]).done();
    assert_eq!((&shown["verified"], &shown["digest"]), (&json!(false), &json!(Sha256Digest::of(&blob).to_string())));
    assert_eq!(shown["pcrs"][1]["index"], 11);
    std::fs::write(&file, &blob[1..]).unwrap();
    let (exit, _) = run(&["evidence", "show", "--json", text(&file)]).failed();
    assert_eq!(exit, 2);
}

#[test]
fn what_each_approver_of_the_genesis_saw_verifies_again() {
    let scene = Scene::open();
    for index in ["1", "2", "3"] {
        let report = scene.with_vault(&["evidence", "verify", "--entry", index]).done();
        assert_eq!((&report["type"], &report["verified"]), (&json!("approve"), &json!(true)));
    }
    scene.with_vault(&["evidence", "verify", "--entry", "0"]).fails(2, "entry-without-evidence");
    scene.with_vault(&["evidence", "verify", "--entry", "99"]).fails(2, "entry-unknown");
    scene.peer.lie(Lies { blob: Some(|blob| blob.truncate(9)), ..Lies::default() });
    scene.with_vault(&["evidence", "verify", "--entry", "1"]).fails(4, "blob-digest-mismatch");
}

/// A guest whose boot the rule allows.
pub(crate) struct Guest {
    tpm: SoftTpm,
    identity: TpmIdentity,
    anchor: Anchor,
}

impl Guest {
    pub(crate) fn new(scene: &Scene) -> Self {
        let mut tpm = SoftTpm::ecc();
        tpm.pcrs[11] = [0x77; 32];
        let identity = tpm.identity(&scene.authority, &[]);
        Self { tpm, identity, anchor: scene.authority.anchor("vendor", Trust::Emulated) }
    }

    pub(crate) fn ak_name(&self) -> attestation::AkName {
        *AttestationKey::parse(&self.identity.ak_public).unwrap().name()
    }

    /// The part in a binding whose secret has these bytes.
    pub(crate) fn part(&self, secret: u8) -> TpmPart {
        TpmPart::Activated { ak_name: self.ak_name(), secret: ActivationSecret::from_bytes([secret; 32]) }
    }

    pub(crate) fn boot(&self) -> BootId {
        BootId { ak_name: self.ak_name(), reset_count: 7, restart_count: 1 }
    }

    /// Every TPM of the forge has the same EK.
    pub(crate) fn platform(&self) -> Sha256Digest {
        let anchors = TrustAnchors::built_in().with(self.anchor.clone()).unwrap();
        EndorsedTpm::verify(&self.identity, &anchors, now()).unwrap().ek().platform()
    }

    pub(crate) fn quote(&self, extra_data: &[u8]) -> Vec<u8> {
        EvidenceSet { evidence: Evidence::Tpm(self.tpm.quote(&self.identity, &PCRS, extra_data)), event_log: None }
            .blob()
    }
}

fn boot(entry: &mut Release) -> &mut BootId {
    match &mut entry.machine {
        Machine::Tpm(boot) => boot,
        Machine::Snp { .. } | Machine::SnpVtpm { .. } => panic!("the guest has a TPM"),
    }
}

/// Publishes a model without looking at it.
fn publish(scene: &Scene) {
    let proposed = proposed_model(scene);
    let entry = {
        let mut keeper = scene.peer.keeper();
        let entry = keeper.state.size();
        keeper.append(&Entry::Propose(Propose { time: now(), proposal: Proposal::Model(proposed.clone()) }));
        entry
    };
    for name in ["alice", "bob"] {
        approve_unseen(scene, name, proposed.object);
    }
    let ProposedModel { object, model, version, .. } = proposed;
    let published = ModelPublished { time: now(), proposal: entry, object, model, version };
    scene.peer.keeper().append(&Entry::Model(published));
}

/// Releases the model to `guest` in this session. `change` is made to the entry. Gives its index.
fn release(scene: &Scene, guest: &Guest, session: u8, change: impl FnOnce(&mut Release)) -> u64 {
    let mut keeper = scene.peer.keeper();
    let proposed = proposed_model(scene);
    let (vault, policy) = {
        let vault = keeper.state.vault().unwrap();
        (vault.id(), vault.policy().digest())
    };
    let binding = LoadChallenge {
        rule: "minilm".to_owned(),
        model: "minilm".to_owned(),
        version: "1.0".to_owned(),
        session: [session; 16],
        nonce: [2; 32],
        vault,
        policy,
        manifest: proposed.manifest,
        units: UnitSet::try_from(vec![0]).unwrap(),
        tpm: guest.part(5),
    }
    .bind(HpkePublicKey::try_from([8; 1665].as_slice()).unwrap(), LeaseKey::try_from([9; 32].as_slice()).unwrap());
    let evidence = keeper.put(guest.quote(&binding.tpm_extra_data()));
    let preimage = keeper.put(binding.preimage().to_vec());
    let (time, said) = (now(), binding.statement());
    let mut entry = Release {
        time,
        rule: "minilm".parse().unwrap(),
        model: proposed.model,
        version: proposed.version,
        policy,
        manifest: proposed.manifest,
        units: ReleasedUnits { count: 1, bytes: 612, digest: said.units().digest() },
        session: *said.session(),
        hpke_key: Sha256Digest::of(said.hpke_key().as_bytes()),
        lease: said.lease_id(),
        lease_key: said.lease_key().clone(),
        issued: time,
        renew_by: time.plus(15 * 60),
        platform: guest.platform(),
        machine: Machine::Tpm(guest.boot()),
        tier: Trust::Emulated,
        marks: None,
        workload: None,
        evidence,
        binding: preimage,
    };
    change(&mut entry);
    let index = keeper.state.size();
    keeper.append(&Entry::Release(Box::new(entry)));
    index
}

fn proposed_model(scene: &Scene) -> ProposedModel {
    let publisher = ledger::model_signature::PublisherKey::from_pem(&scene.publisher).unwrap().digest();
    let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
    let (manifest, model_sig) = (Sha256Digest::of(b"manifest"), Sha256Digest::of(b"model.sig"));
    ProposedModel {
        object: ledger::approvals::model_object(&model, &version, manifest, model_sig),
        model,
        version,
        manifest,
        model_sig,
        dek_record: Sha256Digest::of(b"record"),
        publisher,
        bytes: 612,
        units: 2,
        not_after: now().plus(86_400),
    }
}

/// An approval by hand, since the blobs of this model are not there to be checked.
fn approve_unseen(scene: &Scene, name: &str, object: Sha256Digest) {
    let statement = {
        let keeper = scene.peer.keeper();
        let vault = keeper.state.vault().unwrap();
        ledger::approvals::ApprovalStatement {
            action: ledger::approvals::ApprovalAction::Model,
            object,
            previous: vault.policy().digest(),
            vault: vault.id(),
            serial: vault.policy().serial(),
            not_after: now().plus(86_400),
        }
        .encode()
    };
    let signature = vaultctl::ssh::sign(&scene.path(name), &statement).unwrap();
    scene.peer.keeper().append(&Entry::Approve(ledger::entry::Approve {
        time: now(),
        statement: String::from_utf8(statement).unwrap(),
        signature,
        witness: None,
    }));
}

#[test]
fn the_evidence_of_a_release_verifies_again() {
    let scene = Scene::open();
    publish(&scene);
    let index = release(&scene, &Guest::new(&scene), 1, |_| ());
    let report = scene.with_vault(&["evidence", "verify", "--entry", &index.to_string()]).done();
    assert_eq!((&report["type"], &report["verified"]), (&json!("release"), &json!(true)));
    assert_eq!(report["evidence"][0]["claims"]["pcrs"]["11"], "77".repeat(32));
    // The lease is a coming expiry.
    let expiries = scene.with_vault(&["status"]).done()["expiries"].clone();
    assert!(expiries[0]["what"].as_str().unwrap().starts_with("lease sha256:"), "{expiries}");
}

#[test]
fn a_release_whose_entry_says_something_else_than_its_evidence_is_found() {
    type Change = fn(&mut Release);
    let changes: [(&str, Change); 10] = [
        ("entry-evidence-mismatch", |entry| boot(entry).reset_count += 1),
        ("entry-evidence-mismatch", |entry| boot(entry).restart_count += 1),
        ("entry-evidence-mismatch", |entry| entry.machine = Machine::Snp { report_id: [1; 32] }),
        ("entry-evidence-mismatch", |entry| entry.platform = Sha256Digest::of(b"another")),
        ("entry-evidence-mismatch", |entry| entry.hpke_key = Sha256Digest::of(b"another")),
        ("entry-evidence-mismatch", |entry| entry.units.digest = Sha256Digest::of(b"another")),
        ("entry-evidence-mismatch", |entry| {
            boot(entry).ak_name =
                attestation::AkName::try_from([&[0x00, 0x0b], [1; 32].as_slice()].concat().as_slice()).unwrap()
        }),
        ("malformed-evidence-blob", |entry| entry.evidence = entry.binding),
        ("binding-preimage-malformed", |entry| entry.binding = entry.evidence),
        ("entry-evidence-mismatch", |entry| entry.units.count = 2),
    ];
    let scene = Scene::open();
    publish(&scene);
    let guest = Guest::new(&scene);
    for (session, (code, change)) in (1..).zip(changes) {
        let index = release(&scene, &guest, session, change);
        let ended = scene.with_vault(&["evidence", "verify", "--entry", &index.to_string()]);
        let (exit, found) = ended.failed();
        assert_eq!((exit, found.as_str()), (4, code), "{}", ended.stderr);
    }
}

#[test]
fn a_release_to_a_machine_that_the_rule_does_not_allow_is_found() {
    let scene = Scene::open();
    let mut guest = Guest::new(&scene);
    guest.tpm.pcrs[11] = [0x78; 32];
    publish(&scene);
    let index = release(&scene, &guest, 1, |_| ());
    scene.with_vault(&["evidence", "verify", "--entry", &index.to_string()]).fails(4, "pcr-not-allowed");
}

#[test]
fn the_evidence_of_a_renewal_verifies_again() {
    let scene = Scene::open();
    let guest = Guest::new(&scene);
    publish(&scene);
    release(&scene, &guest, 1, |_| ());
    let index = {
        let mut keeper = scene.peer.keeper();
        let vault = keeper.state.vault().unwrap();
        let (lease, known) = vault.leases(now()).next().unwrap();
        let (vault, policy, lease_key) = (vault.id(), vault.policy().digest(), known.lease_key.clone());
        let binding = RenewChallenge {
            rule: "minilm".to_owned(),
            session: [3; 16],
            nonce: [4; 32],
            vault,
            policy,
            lease,
            lease_key,
            tpm: guest.part(6),
        }
        .bind();
        let evidence = keeper.put(guest.quote(&binding.tpm_extra_data()));
        let binding = keeper.put(binding.preimage().to_vec());
        let issued = now();
        let renewal = Renewal { lease, issued, renew_by: issued.plus(15 * 60), evidence, binding };
        let index = keeper.state.size();
        keeper.append(&Entry::Renew(Renew { time: issued, renewals: vec![renewal] }));
        index
    };
    let report = scene.with_vault(&["evidence", "verify", "--entry", &index.to_string()]).done();
    assert_eq!((&report["type"], report["evidence"].as_array().unwrap().len()), (&json!("renew"), 1));
}
