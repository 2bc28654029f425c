//! Attacks on the keeper through its own protocol: each changes one thing in a good exchange, and names the refusal. What
//! `cargo xtask attack` plays is not played again here.

use attestation::lease_id;
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
    units(&world).await;
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

async fn units(world: &World) {
    let mut guest = Guest::new(world).await;
    // A rule that grants one group: the whole model under it is refused, and one group more as well.
    let mut ask = guest.ask();
    ask.rule = "first-layer".to_owned();
    let challenge = guest.challenge(ask).await.expect("a challenge");
    let extra = guest.bind_as(&challenge, |bound| bound.rule = "first-layer".to_owned()).tpm_extra_data();
    let refused = guest.redeem(guest.redemption_over(&challenge, &extra)).await.expect_err("more than the rule grants");
    assert_eq!(guest.code_of(refused).await, "group-not-granted");
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
