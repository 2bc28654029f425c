//! Evidence beside the log: each test changes one thing in a good release.

use attestation::{HpkePublicKey, LeaseKey, LoadChallenge, Sha256Digest, Trust, UnitSet, VerifyError, lv};
use ledger::decide::DenialReason;
use ledger::entry::{Machine, Release, ReleasedUnits};
use ledger::policy::Policy;
use vaultctl::stored_evidence::{Blobs, StoredEvidenceError, verify_release};

use crate::evidence::Guest;
use crate::forge::authority::NOW;
use crate::scene::Scene;

/// A release, its blobs, and the policy that it was made under.
struct Good {
    policy: Policy,
    entry: Release,
    evidence: Vec<u8>,
    preimage: Vec<u8>,
}

impl Good {
    fn new() -> Self {
        Self::with_policy(|policy| policy)
    }

    fn with_policy(change: impl FnOnce(String) -> String) -> Self {
        let scene = Scene::new();
        let policy = Policy::parse(&change(scene.policy("genesis", 1, "none"))).unwrap();
        let guest = Guest::new(&scene);
        let binding = LoadChallenge {
            rule: "minilm".to_owned(),
            model: "minilm".to_owned(),
            version: "1.0".to_owned(),
            session: [1; 16],
            nonce: [2; 32],
            vault: vault(),
            policy: policy.digest(),
            manifest: Sha256Digest::of(b"manifest"),
            units: UnitSet::try_from(vec![0]).unwrap(),
            tpm: guest.part(5),
        }
        .bind(HpkePublicKey::try_from([8; 1665].as_slice()).unwrap(), LeaseKey::try_from([9; 32].as_slice()).unwrap());
        let evidence = guest.quote(&binding.tpm_extra_data());
        let said = binding.statement();
        let entry = Release {
            time: NOW,
            rule: "minilm".parse().unwrap(),
            model: "minilm".parse().unwrap(),
            version: "1.0".parse().unwrap(),
            policy: policy.digest(),
            manifest: said.manifest(),
            units: ReleasedUnits { count: 1, bytes: 612, digest: said.units().digest() },
            session: *said.session(),
            hpke_key: Sha256Digest::of(said.hpke_key().as_bytes()),
            lease: said.lease_id(),
            lease_key: said.lease_key().clone(),
            issued: NOW,
            renew_by: NOW.plus(900),
            platform: guest.platform(),
            machine: Machine::Tpm(guest.boot()),
            tier: Trust::Emulated,
            marks: None,
            workload: None,
            evidence: Sha256Digest::of(&evidence),
            binding: Sha256Digest::of(binding.preimage()),
        };
        Self { policy, entry, evidence, preimage: binding.preimage().to_vec() }
    }

    fn verify(&self) -> Result<(), StoredEvidenceError> {
        let blobs = Blobs { evidence: &self.evidence, preimage: &self.preimage };
        verify_release(vault(), &self.entry, &self.policy, &attestation::EnrolledEks::default(), blobs).map(drop)
    }

    /// The preimage with its fields changed.
    fn rewrite(&mut self, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
        const TAG: &[u8] = b"weightvault/v1 bind\0";
        let (mut fields, mut rest) = (Vec::new(), &self.preimage[TAG.len()..]);
        while let Some((length, more)) = rest.split_first_chunk() {
            let (field, more) = more.split_at(u32::from_be_bytes(*length) as usize);
            fields.push(field.to_vec());
            rest = more;
        }
        change(&mut fields);
        let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        self.preimage = [TAG, &lv(&fields)].concat();
    }
}

fn vault() -> Sha256Digest {
    Sha256Digest::of(b"vault")
}

#[test]
fn a_good_release_verifies() {
    assert_eq!(Good::new().verify(), Ok(()));
}

#[test]
fn every_field_of_the_preimage_counts() {
    // Action, rule, session, nonce, vault, policy, manifest, units, HPKE key, lease key, AK name, secret, runtime claims.
    for index in 0..13 {
        let mut good = Good::new();
        good.rewrite(|fields| match fields[index].last_mut() {
            Some(byte) => *byte ^= 1,
            None => fields[index].push(0),
        });
        assert!(good.verify().is_err(), "{index}");
    }
}

#[test]
fn a_preimage_that_says_something_else_is_refused() {
    for index in [0, 1, 4, 5, 6, 12] {
        let mut good = Good::new();
        good.rewrite(|fields| fields[index].push(b'x'));
        assert_eq!(good.verify(), Err(StoredEvidenceError::PreimageMismatch), "{index}");
    }
}

#[test]
fn a_preimage_of_another_shape_is_refused() {
    let changes: [fn(&mut Good); 6] = [
        |good| good.preimage[0] ^= 1,
        |good| good.preimage.push(0),
        |good| good.preimage.truncate(99),
        |good| good.rewrite(|fields| fields.truncate(12)),
        |good| good.rewrite(|fields| fields.push(Vec::new())),
        |good| good.rewrite(|fields| fields[7].push(0)),
    ];
    for change in changes {
        let mut good = Good::new();
        change(&mut good);
        assert_eq!(good.verify(), Err(StoredEvidenceError::PreimageMalformed));
    }
}

#[test]
fn a_nonce_or_secret_that_the_quote_does_not_answer_is_refused() {
    for index in [3, 11] {
        let mut good = Good::new();
        good.rewrite(|fields| fields[index][0] ^= 1);
        assert_eq!(good.verify(), Err(StoredEvidenceError::Evidence(VerifyError::ExtraDataMismatch)));
    }
}

#[test]
fn a_rule_that_the_policy_does_not_have_is_refused() {
    let good = Good::with_policy(|policy| policy.replace("[release.minilm]", "[release.other]"));
    assert_eq!(good.verify(), Err(StoredEvidenceError::RuleUnknown));
}

#[test]
fn a_platform_that_the_rule_does_not_list_is_refused() {
    let listed = format!("eks = [\"{}\"]\nlease", Sha256Digest::of(b"another"));
    let good = Good::with_policy(|policy| policy.replace("eks = \"any\"\nlease", &listed));
    let platform = good.entry.platform;
    let rule = "minilm".parse().unwrap();
    let reason = Box::new(DenialReason::PlatformNotListed { rule, platform });
    assert_eq!(good.verify(), Err(StoredEvidenceError::NotAllowed(reason)));
}

#[test]
fn an_evidence_blob_with_a_byte_more_is_refused() {
    let mut good = Good::new();
    good.evidence.push(0);
    assert!(matches!(good.verify(), Err(StoredEvidenceError::Blob(_))));
}

/// What a revocation finds a release by must be what its evidence shows.
#[test]
fn marks_that_the_evidence_does_not_show_are_refused() {
    let mut good = Good::new();
    let rule = good.policy.release_rule(&"minilm".parse().unwrap()).unwrap().clone();
    let shown: Vec<String> = rule
        .guest
        .pcrs()
        .unwrap()
        .allowed()
        .iter()
        .map(|(index, of)| format!("\"{index}\":\"{}\"", hex::encode(of[0])))
        .collect();
    let marks = |json: &str| Some(serde_json::from_str(json).unwrap());
    good.entry.marks = marks(&format!("{{\"groups\":[\"header\"],\"pcrs\":{{{}}}}}", shown.join(",")));
    assert_eq!(good.verify(), Ok(()));
    for other in [
        "{}".to_owned(),
        format!("{{\"pcrs\":{{{}}}}}", shown[0]),
        format!("{{\"pcrs\":{{{}}},\"launch\":\"{}\"}}", shown.join(","), "55".repeat(48)),
    ] {
        good.entry.marks = marks(&other);
        assert_eq!(good.verify(), Err(StoredEvidenceError::EntryMismatch { field: "marks" }), "{other}");
    }
}
