//! Notices of revocations: one change to a good one, one refusal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use attestation::{IdentityKey, LogKey, Sha256Digest, UnixTime};
use ledger::checkpoint::{Checkpoint, LogVerifier};
use ledger::entry::{Cause, End, Entry, Revoke};
use ledger::merkle::{Tree, leaf_hash};
use ledger::proof::proof_text;
use ledger::revocation::{ActKind, Notice, NoticeError, RevokedLease, notice_message, watch_message};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

/// A keeper with a log of three entries, of which the last is under notice.
struct Keeper {
    log: Ed25519KeyPair,
    identity: EcdsaKeyPair,
    vault: Sha256Digest,
}

/// What it says.
struct Said {
    entry: Vec<u8>,
    log_proof: String,
    leases: Vec<Sha256Digest>,
    signature: [u8; 96],
}

fn lease(n: u8) -> Sha256Digest {
    Sha256Digest::from_bytes([n; 32])
}

fn revoke(act: ActKind) -> Entry {
    Entry::Revoke(Revoke { time: UnixTime(5), proposal: 1, object: lease(9), act, leases: 2 })
}

impl Keeper {
    fn new() -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &rng).unwrap();
        let identity = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap();
        let log = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        Self { log, identity, vault: Sha256Digest::of(b"genesis") }
    }

    fn verifier(&self) -> LogVerifier {
        LogVerifier::new(self.vault, LogKey::try_from(self.log.public_key().as_ref()).unwrap())
    }

    fn says(&self, entry: &Entry, leases: &[Sha256Digest]) -> Said {
        let entry = entry.encode().unwrap();
        let mut tree = Tree::new();
        [b"genesis".as_slice(), b"propose", &entry].iter().for_each(|entry| tree.push(leaf_hash(entry)));
        let (verifier, head) = (self.verifier(), Checkpoint { size: 3, root: tree.root(3).unwrap() });
        let text = verifier.checkpoint_text(&head);
        let signature = self.log.sign(text.as_bytes()).as_ref().try_into().unwrap();
        let checkpoint = verifier.key().assemble(&text, &signature).unwrap();
        let log_proof = proof_text(2, &tree.inclusion(2, 3).unwrap(), &checkpoint);
        let message = notice_message(&self.vault, 2, &leaf_hash(&entry), leases);
        let signature = self.identity.sign(&SystemRandom::new(), &message).unwrap();
        Said { entry, log_proof, leases: leases.to_vec(), signature: signature.as_ref().try_into().unwrap() }
    }

    fn verify(&self, said: &Said, lease: Sha256Digest) -> Result<RevokedLease, NoticeError> {
        let Said { entry, log_proof, leases, signature } = said;
        let identity = IdentityKey::try_from(self.identity.public_key().as_ref()).unwrap();
        Notice { entry, log_proof, leases, signature }.verify(lease, &self.verifier(), &identity)
    }
}

#[test]
fn a_notice_is_about_the_leases_that_its_keeper_signed_and_no_other() {
    let keeper = Keeper::new();
    let good = keeper.says(&revoke(ActKind::Revoke), &[lease(1), lease(2)]);
    for held in [lease(1), lease(2)] {
        let revoked = keeper.verify(&good, held).unwrap();
        assert_eq!((revoked.index(), revoked.revoke().leases), (2, 2));
    }
    assert_eq!(keeper.verify(&good, lease(3)), Err(NoticeError::OtherLease));
    // A host that puts the lease of its choice into a genuine notice, or takes one out, or puts them in another order.
    for leases in [vec![lease(1), lease(2), lease(3)], vec![lease(3)], vec![lease(2), lease(3)]] {
        let changed = Said { leases, ..keeper.says(&revoke(ActKind::Revoke), &[lease(1), lease(2)]) };
        assert_eq!(keeper.verify(&changed, lease(3)), Err(NoticeError::Signature));
    }
    let swapped =
        Said { leases: vec![lease(2), lease(1)], ..keeper.says(&revoke(ActKind::Revoke), &[lease(1), lease(2)]) };
    assert_eq!(keeper.verify(&swapped, lease(1)), Err(NoticeError::Signature));
}

#[test]
fn a_notice_shows_a_revocation_in_the_log_of_its_vault() {
    let keeper = Keeper::new();
    let refusal = |said: Said| keeper.verify(&said, lease(1)).unwrap_err();
    let good = || keeper.says(&revoke(ActKind::Revoke), &[lease(1)]);
    let other_entry = Entry::End(End { time: UnixTime(5), lease: lease(1), cause: Cause::Agent });
    assert_eq!(refusal(keeper.says(&other_entry, &[lease(1)])), NoticeError::NotARevocation);
    assert_eq!(refusal(keeper.says(&revoke(ActKind::Lift), &[lease(1)])), NoticeError::NotARevocation);
    let mut entry = good().entry;
    *entry.last_mut().unwrap() = b' ';
    assert!(matches!(refusal(Said { entry, ..good() }), NoticeError::Proof(_)));
    let log_proof = good().log_proof.replacen("2\n", "1\n", 1);
    assert!(matches!(refusal(Said { log_proof, ..good() }), NoticeError::Proof(_)));
    let mut signature = good().signature;
    signature[7] ^= 1;
    assert_eq!(refusal(Said { signature, ..good() }), NoticeError::Signature);
    // Another vault with the same keys, and a keeper with another identity.
    let elsewhere = Keeper { vault: Sha256Digest::of(b"another"), ..Keeper::new() };
    assert!(matches!(elsewhere.verify(&good(), lease(1)), Err(NoticeError::Proof(_))));
    assert_eq!(Keeper::new().verify(&good(), lease(1)), Err(NoticeError::Signature));
}

#[test]
fn a_signature_to_watch_is_for_one_lease_of_one_vault() {
    let all = [(1, 1), (1, 2), (2, 1)].map(|(vault, id)| watch_message(&lease(vault), &lease(id)));
    assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    assert_ne!(all[0], ledger::lease::end_message(&lease(1), &lease(1)));
}
