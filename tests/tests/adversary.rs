//! Attacks on the keeper through its own protocol: each changes one thing in a good exchange, and names the refusal.

use attestation::{Sha256Digest, lease_id};
use ledger::lease::end_message;
use vault_proto::v1;
use vault_tests::forge::authority::Authority;
use vault_tests::{Guest, World};

/// Every attack on one vault: its ceremony takes longer than they do.
#[tokio::test(flavor = "multi_thread")]
async fn keeper_releases_keys_to_nobody_but_the_attested_guest() {
    let world = World::open();
    world.publish("1");
    challenges(&world).await;
    redemptions(&world).await;
    sessions(&world).await;
    floods(&world).await;
    leases(&world).await;
    let log = vault_tests::run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
    assert!(log.contains("Verified:"), "{log}");
}

async fn challenges(world: &World) {
    type Change = fn(&mut v1::GetChallengeRequest);
    let cases: [(&str, Change); 7] = [
        ("rule-unknown", |ask| ask.rule = "nobody".to_owned()),
        ("model-unknown", |ask| ask.model = "other".to_owned()),
        ("model-unknown", |ask| ask.version = "2".to_owned()),
        ("malformed-units", |ask| ask.units = None),
        ("malformed-tpm-identity", |ask| ask.tpm = None),
        ("malformed-action", |ask| ask.action = 0),
        ("malformed-lease-id", |ask| ask.lease_id = vec![0; 32]),
    ];
    let mut guest = Guest::new(world).await;
    for (code, change) in cases {
        let mut ask = guest.ask();
        change(&mut ask);
        let refused = guest.challenge(ask).await.map(drop).expect_err(code);
        assert_eq!(guest.code_of(refused).await, code);
    }
    let mut stranger = Guest::endorsed_by(world, &Authority::root("stranger")).await;
    let ask = stranger.ask();
    let refused = stranger.challenge(ask).await.map(drop).expect_err("nobody endorses it");
    assert_eq!(stranger.code_of(refused).await, "ek-anchor-unknown");
}

async fn redemptions(world: &World) {
    let mut guest = Guest::new(world).await;
    let other = Guest::new(world).await;

    // The thief's key instead of the attested one: the evidence names the other.
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let mut swapped = guest.redemption(&challenge);
    swapped.hpke_key = other.hpke_key();
    let refused = guest.redeem(swapped).await.expect_err("swapped HPKE key");
    assert_eq!(guest.code_of(refused).await, "binding-mismatch");

    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let mut swapped = guest.redemption(&challenge);
    swapped.lease_key = other.lease_key();
    let refused = guest.redeem(swapped).await.expect_err("swapped lease key");
    assert_eq!(guest.code_of(refused).await, "binding-mismatch");

    // Evidence of another machine, relayed.
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let mut relayed = guest.redemption(&challenge);
    relayed.evidence.evidence = attestation::Evidence::Tpm(other.tpm.quote(
        &other.identity,
        &vault_tests::world::PCRS,
        &guest.bind(&challenge).tpm_extra_data(),
    ));
    let refused = guest.redeem(relayed).await.expect_err("another machine's quote");
    assert_eq!(guest.code_of(refused).await, "identity-changed");

    // Statements that differ from the challenge in one field.
    type Change = fn(&mut attestation::LoadChallenge);
    let changes: [Change; 7] = [
        |bound| bound.rule = "first-layer".to_owned(),
        |bound| bound.nonce[0] ^= 1,
        |bound| bound.session[0] ^= 1,
        |bound| bound.vault = Sha256Digest::of(b"another vault"),
        |bound| bound.policy = Sha256Digest::of(b"another policy"),
        |bound| bound.manifest = Sha256Digest::of(b"another manifest"),
        |bound| {
            let ak_name = *bound.tpm.ak_name().expect("a TPM takes part");
            let secret = attestation::ActivationSecret::from_bytes([0; 32]);
            bound.tpm = attestation::TpmPart::Activated { ak_name, secret };
        },
    ];
    for change in changes {
        let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
        let extra = guest.bind_as(&challenge, change).tpm_extra_data();
        let refused = guest.redeem(guest.redemption_over(&challenge, &extra)).await.expect_err("another statement");
        assert_eq!(guest.code_of(refused).await, "binding-mismatch");
    }

    // Fewer PCRs than the rule names, or one with another value.
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let mut partial = guest.redemption(&challenge);
    let extra = guest.bind(&challenge).tpm_extra_data();
    partial.evidence.evidence = attestation::Evidence::Tpm(guest.tpm.quote(&guest.identity, &[0, 2, 4, 7, 9], &extra));
    let refused = guest.redeem(partial).await.expect_err("partial selection");
    assert_eq!(guest.code_of(refused).await, "pcr-selection-mismatch");

    guest.tpm.pcrs[11][0] ^= 1;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let refused = guest.redeem(guest.redemption(&challenge)).await.expect_err("another program");
    assert_eq!(guest.code_of(refused).await, "pcr-not-allowed");
}

async fn sessions(world: &World) {
    let mut guest = Guest::new(world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let request = v1::ReleaseKeysRequest::from(guest.redemption(&challenge));
    let first = guest.redeem_wire(request.clone()).await.expect("a grant");

    // The same bytes: the same grant, charged once.
    let second = guest.redeem_wire(request.clone()).await.expect("the same grant");
    assert_eq!(first, second);

    // Other bytes on the same session.
    let mut other = request.clone();
    other.lease_public_key = vec![7; 32];
    let refused = guest.redeem_wire(other).await.expect_err("consumed");
    assert_eq!(guest.code_of(refused).await, "challenge-consumed");

    // A failed attempt consumes too.
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let refused = guest.redeem(guest.redemption_over(&challenge, &[0; 32])).await.expect_err("no binding");
    assert_eq!(guest.code_of(refused).await, "binding-mismatch");
    let refused = guest.redeem(guest.redemption(&challenge)).await.expect_err("consumed");
    assert_eq!(guest.code_of(refused).await, "challenge-consumed");

    // A session that was never issued.
    let mut unknown = request;
    unknown.session = vec![9; 16];
    let refused = guest.redeem_wire(unknown).await.expect_err("never issued");
    assert_eq!(guest.code_of(refused).await, "challenge-unknown");

    // A rule that grants one group: the whole model under it is refused, and one group more as well.
    let mut ask = guest.ask();
    ask.rule = "first-layer".to_owned();
    let challenge = guest.challenge(ask).await.expect("a challenge");
    let extra = guest.bind_as(&challenge, |bound| bound.rule = "first-layer".to_owned()).tpm_extra_data();
    let refused = guest.redeem(guest.redemption_over(&challenge, &extra)).await.expect_err("more than the rule grants");
    assert_eq!(guest.code_of(refused).await, "group-not-granted");
}

/// A stranger has the certificate of a guest's EK, which is public, and asks for more challenges in its name than the keeper
/// once had room for, by connections that each keep within their own limit.
async fn floods(world: &World) {
    const CONNECTIONS: usize = 4;
    const EACH: usize = 150;
    let mut victim = Guest::new(world).await;
    let before = victim.challenge(victim.ask()).await.expect("a challenge");
    let (identity, mut flood) = (victim.identity.clone(), tokio::task::JoinSet::new());
    for _ in 0..CONNECTIONS {
        let mut stranger = Guest::new(world).await;
        stranger.identity = identity.clone();
        flood.spawn(async move {
            for _ in 0..EACH {
                let ask = stranger.ask();
                stranger.challenge(ask).await.map(drop).expect("nobody is refused");
            }
        });
    }
    flood.join_all().await;
    victim.redeem(victim.redemption(&before)).await.expect("its challenge is still out");
    let after = victim.challenge(victim.ask()).await.expect("it is not refused for what a stranger asked");
    victim.redeem(victim.redemption(&after)).await.expect("a grant");
}

async fn leases(world: &World) {
    let mut guest = Guest::new(world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let grant = guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
    let id = lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key());

    // Somebody else's signature neither renews nor ends it.
    let stranger = Guest::new(world).await;
    let by = |key: &ring::signature::Ed25519KeyPair, message: &[u8]| key.sign(message).as_ref().to_vec();
    let end = end_message(&challenge.vault_id, &id);
    let forged = v1::EndLeaseRequest { lease_id: id.as_bytes().to_vec(), lease_signature: by(&stranger.lease, &end) };
    let refused = guest.end(forged).await.expect_err("not its lease key");
    assert_eq!(guest.code_of(refused).await, "lease-signature");

    let renewal = guest.renewal(&grant, id).await;
    let renewed = guest.renew(renewal).await.expect("a longer lease");
    assert!(renewed.lease.is_some());
    // Whatever comes into the log next brings the renewal with it: a keeper that is killed then has not forgotten it.
    world.seal("2");
    let log = vault_tests::run_ok(world.vaultctl().args(["log", "show"]));
    assert!(log.contains(&format!("1 lease renewed: {id}")), "{log}");

    type Change = fn(&mut v1::RenewLeaseRequest);
    let cases: [(&str, Change); 3] = [
        ("lease-signature", |request| request.lease_signature = vec![0; 64]),
        ("lease-mismatch", |request| request.lease_id = vec![1; 32]),
        ("lease-statement-signature", |request| {
            if let Some(lease) = &mut request.lease {
                lease.signature[0] ^= 1;
            }
        }),
    ];
    for (code, change) in cases {
        let mut request = guest.renewal(&grant, id).await;
        change(&mut request);
        let refused = guest.renew(request).await.expect_err(code);
        assert_eq!(guest.code_of(refused).await, code);
    }

    // After a reboot the guest is another one.
    let ended = v1::EndLeaseRequest { lease_id: id.as_bytes().to_vec(), lease_signature: by(&guest.lease, &end) };
    guest.end(ended.clone()).await.expect("its own lease");
    let refused = guest.end(ended).await.expect_err("it ended");
    assert_eq!(guest.code_of(refused).await, "lease-unknown");
}
