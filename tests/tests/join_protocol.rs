//! What the keeper that runs takes of one that asks to take over, one thing changed at a time.

use vault_proto::convert::{JoinAnswer, JoinRequest};
use vault_tests::candidate::Candidate;
use vault_tests::world::APPROVERS;
use vault_tests::{Guest, World, run_ok};

/// The code of the refusal of this redemption.
async fn refused(world: &World, candidate: &mut Candidate, request: JoinRequest) -> String {
    let refusal = candidate.redeem(request).await.expect_err("it is refused");
    Guest::new(world).await.code_of(refusal).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_is_proposed_by_evidence_for_this_vault_and_its_very_keys() {
    let world = World::open();
    let mut candidate = Candidate::new(&world).await;
    // The genuine image under the genesis of another vault signs for that one.
    type Change = fn(&mut attestation::JoinChallenge);
    let other = attestation::Sha256Digest::of(b"other");
    let bound: [Change; 4] = [
        |bound| bound.vault = attestation::Sha256Digest::of(b"other"),
        |bound| bound.policy = attestation::Sha256Digest::of(b"other"),
        |bound| bound.nonce = [0; 32],
        |bound| bound.session = [0; 16],
    ];
    for change in bound {
        let challenge = candidate.challenge().await.expect("a challenge");
        let binding = candidate.bind_as(&challenge, change);
        let request = candidate.redemption_over(&challenge, &binding);
        assert_eq!(refused(&world, &mut candidate, request).await, "binding-mismatch");
    }
    // Nor does the host say for whom the keys are, or where the counter stands.
    let stranger = Candidate::new(&world).await;
    let swapped: [&dyn Fn(&mut JoinRequest); 4] = [
        &|request| request.joiner.hpke_key = stranger.keys.hpke_key.clone(),
        &|request| request.joiner.instance = [6; 32],
        &|request| request.joiner.counter_name[33] ^= 1,
        &|request| request.joiner.counter += 1,
    ];
    for swap in swapped {
        let challenge = candidate.challenge().await.expect("a challenge");
        let mut request = candidate.redemption(&challenge);
        swap(&mut request);
        assert_eq!(refused(&world, &mut candidate, request).await, "binding-mismatch");
    }
    // Another image, and a challenge that was made for a load.
    let challenge = candidate.challenge().await.expect("a challenge");
    assert_ne!(challenge.vault_id, other);
    let good = candidate.tpm.pcrs[11];
    candidate.tpm.pcrs[11] = [0x2f; 32];
    let request = candidate.redemption(&challenge);
    assert_eq!(refused(&world, &mut candidate, request).await, "keeper-pcr-mismatch");
    candidate.tpm.pcrs[11] = good;
    world.publish("1");
    let mut guest = Guest::new(&world).await;
    let load = guest.challenge(guest.ask()).await.expect("a challenge");
    let challenge = candidate.challenge().await.expect("a challenge");
    let request = JoinRequest { session: load.session, ..candidate.redemption(&challenge) };
    assert_eq!(refused(&world, &mut candidate, request).await, "challenge-action");
    let pending = run_ok(world.vaultctl().args(["keeper", "pending"]));
    assert!(pending.contains("No keeper asks to take over."), "{pending}");

    // The same bytes get the same answer, other bytes none.
    let request = candidate.redemption(&challenge);
    let first = candidate.redeem(request.clone()).await.expect("a proposal");
    assert_eq!(candidate.redeem(request.clone()).await.expect("a proposal"), first);
    let other = JoinRequest { joiner: stranger.keys.clone(), ..request };
    assert_eq!(refused(&world, &mut candidate, other).await, "challenge-consumed");
    // Asked again with fresh evidence, the proposal stands where it stood.
    let JoinAnswer::Proposal(again) = candidate.join().await.expect("a proposal") else { panic!("nobody approved") };
    assert_eq!(JoinAnswer::Proposal(again), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_makes_keys_anew_again_and_again_does_not_fill_the_log() {
    let world = World::open();
    let mut candidate = Candidate::new(&world).await;
    let mut proposed = 0;
    let code = loop {
        candidate.keys.counter += 1;
        match candidate.join().await {
            Ok(_) => proposed += 1,
            Err(refusal) => break Guest::new(&world).await.code_of(refusal).await,
        }
        assert!(proposed < 20, "nothing bounds it");
    };
    assert_eq!(code, "join-too-often");
    let pending = run_ok(world.vaultctl().args(["keeper", "pending"]));
    assert_eq!(pending.matches("another keeper gets all keys").count(), 1, "{pending}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_was_let_in_gives_way_to_a_change_of_policy() {
    let world = World::open();
    let mut candidate = Candidate::new(&world).await;
    candidate.join().await.expect("a proposal");
    world.approve(&APPROVERS[..2]);
    let challenge = candidate.challenge().await.expect("a challenge");
    let next = world.next_policy(|policy| *policy = policy.replacen("max_leases = 256", "max_leases = 128", 1));
    run_ok(&mut world.propose(&next, APPROVERS[0]));
    world.approve(&APPROVERS[1..]);
    let request = candidate.redemption(&challenge);
    assert_eq!(refused(&world, &mut candidate, request).await, "policy-changed");
    // Under the new one it asks anew.
    let answer = candidate.join().await.expect("a proposal");
    assert!(matches!(&answer, JoinAnswer::Proposal(proposal) if proposal.approved_by.is_empty()), "{answer:?}");
}
