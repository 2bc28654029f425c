//! Custodians, and a keeper in the place of a lost one.

use attestation::{JoinerKeys, Sha256Digest};
use ledger::escrow::{Custodian, EscrowPlan, LogPoint, RecoveryMode, Rollback};
use ledger::keeper_evidence::RecoveryClaims;

use crate::samples::*;

fn submission() -> EscrowSubmission {
    let custodian = Custodian { id: "notary".parse().unwrap(), key: Sha256Digest::of(hpke_key().as_bytes()) };
    EscrowSubmission {
        plan: EscrowPlan { number: 1, epoch: 1, threshold: 2, custodians: vec![custodian] },
        keys: vec![hpke_key()],
        statement: b"{}".to_vec(),
        signature: "signature".to_owned(),
    }
}

fn progress() -> RecoveryProgress {
    let (approved_by, shares_of) = (vec!["alice".parse().unwrap()], vec!["notary".parse().unwrap()]);
    RecoveryProgress { approved_by, approvals: 2, shares_of, shares: 2, done: false }
}

fn offer(mode: RecoveryMode) -> RecoveryOffer {
    let keys = JoinerKeys { instance: [2; 32], hpke_key: hpke_key(), counter_name: [4; 34], counter: 5 };
    let from = LogPoint { size: 7, root: digest(6) };
    let claims = RecoveryClaims { mode, keys, policy: digest(5), from, set: digest(7), rollback: Rollback::Accepted };
    RecoveryOffer { tpm: identity(), claims, progress: progress() }
}

fn contribution() -> Contribution {
    Contribution { object: digest(1), index: 3, enc: Box::new([3; 1665]), ciphertext: [4; 48] }
}

#[test]
fn an_escrow_and_a_recovery_come_back_as_they_went() {
    comes_back::<_, v1::SubmitEscrowRequest>(submission());
    comes_back::<_, v1::GetRecoveryResponse>(offer(RecoveryMode::Recover));
    comes_back::<_, v1::GetRecoveryResponse>(offer(RecoveryMode::Drill));
    comes_back::<_, v1::ContributeShareRequest>(contribution());
    comes_back::<_, v1::RecoveryProgress>(progress());
}

#[test]
fn an_escrow_or_a_recovery_of_another_form_is_refused() {
    refuses!(EscrowSubmission, v1::SubmitEscrowRequest, submission();
        "malformed-custodians": |m| m.custodians = vec![m.custodians[0].clone(); 17],
        "malformed-custodian": |m| m.custodians[0].id = "No Name".to_owned(),
        "malformed-hpke-key": |m| m.custodians[0].key.push(0),
        "malformed-statement": |m| m.statement = vec![0; 1025],
        "malformed-signature": |m| m.signature.clear(),
    );
    refuses!(RecoveryOffer, v1::GetRecoveryResponse, offer(RecoveryMode::Recover);
        "malformed-mode": |m| m.mode.clear(),
        "malformed-rollback": |m| m.rollback = "none".to_owned(),
        "malformed-instance": |m| m.instance.push(0),
        "malformed-hpke-key": |m| m.hpke_key.clear(),
        "malformed-counter-name": |m| m.counter_name.push(0),
        "malformed-root": |m| m.root.clear(),
        "malformed-policy-digest": |m| m.policy_digest.clear(),
        "malformed-set": |m| m.set.push(0),
        "malformed-tpm-identity": |m| m.tpm = None,
        "malformed-progress": |m| m.progress = None,
    );
    refuses!(RecoveryProgress, v1::RecoveryProgress, progress();
        "malformed-approved-by": |m| m.approved_by[0].push(' '),
        "malformed-approved-by": |m| m.approved_by = vec!["alice".to_owned(); 257],
        "malformed-shares-of": |m| m.shares_of[0].push(' '),
    );
    refuses!(Contribution, v1::ContributeShareRequest, contribution();
        "malformed-object": |m| m.object.clear(),
        "malformed-enc": |m| m.enc.push(0),
        "malformed-ciphertext": |m| m.ciphertext.push(0),
    );
}
