//! A keeper that asks to take over.

use attestation::JoinerKeys;

use crate::samples::*;

fn join_challenge() -> JoinChallenge {
    JoinChallenge {
        session: [1; 16],
        nonce: [2; 32],
        credential: credential(),
        vault_id: digest(3),
        policy: digest(4),
        expires: UnixTime(5),
    }
}

fn join_request() -> JoinRequest {
    let joiner = JoinerKeys { instance: [2; 32], hpke_key: hpke_key(), counter_name: [4; 34], counter: 5 };
    JoinRequest { session: [1; 16], joiner, evidence: evidence() }
}

fn hand_over() -> HandOver {
    let enc = Box::new([3; 1665]);
    HandOver { size: 1, root: digest(2), enc, wrapped_keys: vec![4; 160], signature: [5; 96] }
}

#[test]
fn a_hand_over_comes_back_as_it_went() {
    comes_back::<_, v1::GetJoinChallengeResponse>(join_challenge());
    comes_back::<_, v1::JoinKeeperRequest>(join_request());
    comes_back::<_, v1::JoinKeeperResponse>(JoinAnswer::HandOver(hand_over()));
    comes_back::<_, v1::JoinKeeperResponse>(JoinAnswer::Proposal(proposal(ProposalAction::KeeperJoin)));
}

#[test]
fn a_hand_over_of_another_form_is_refused() {
    refuses!(JoinChallenge, v1::GetJoinChallengeResponse, join_challenge();
        "malformed-session": |m| m.session.push(0),
        "malformed-nonce": |m| m.nonce.clear(),
        "malformed-credential": |m| m.credential = None,
        "malformed-vault-id": |m| m.vault_id.clear(),
        "malformed-policy-digest": |m| m.policy_digest.push(0),
    );
    refuses!(JoinRequest, v1::JoinKeeperRequest, join_request();
        "malformed-session": |m| m.session.clear(),
        "malformed-instance": |m| m.instance.push(0),
        "malformed-hpke-key": |m| m.hpke_key.push(0),
        "malformed-counter-name": |m| m.counter_name.clear(),
        "malformed-evidence": |m| m.evidence = None,
    );
    refuses!(HandOver, v1::HandOver, hand_over();
        "malformed-root": |m| m.root.clear(),
        "malformed-enc": |m| m.enc.push(0),
        "malformed-wrapped-keys": |m| m.wrapped_keys.push(0),
        "malformed-wrapped-keys": |m| m.wrapped_keys.truncate(159),
        "malformed-signature": |m| m.signature.clear(),
    );
    let nothing = JoinAnswer::try_from(v1::JoinKeeperResponse { outcome: None });
    assert_eq!(nothing.map_err(|error| error.code()), Err("malformed-join-answer"));
    let nobody = joiner_identity(v1::GetJoinChallengeRequest { tpm: None });
    assert_eq!(nobody.map_err(|error| error.code()), Err("malformed-tpm-identity"));
}
