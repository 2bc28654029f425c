//! A witness that speaks HTTPS itself: what a host that is not beside its witnesses asks.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use vault_tests::{Guest, World};

use super::{release, start, wait_open, witnesses};

/// The files of an authority, and of a certificate for 127.0.0.1 that it signed, with its key.
fn authority(world: &World, name: &str) -> [PathBuf; 3] {
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("it signs itself");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    let certificate = params.signed_by(&key, &ca).expect("the authority signs");
    [("ca", ca.pem()), ("cert", certificate.pem()), ("key", key.serialize_pem())].map(|(what, pem)| {
        let file = world.path(&format!("{name}-{what}.pem"));
        std::fs::write(&file, pem).expect("the directory is ours");
        file
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn witness_with_a_certificate_is_asked_where_its_authority_signed_for_it() {
    let mut world = World::open_witnessed();
    world.publish("1");
    let [ca, certificate, key] = authority(&world, "witness");
    let [other_ca, ..] = authority(&world, "other");
    witnesses(&mut world).stop(0);
    witnesses(&mut world).certify(0, &ca, (certificate, key));
    start(&mut world, 0);
    // Of the two others one is away: without this one there is no quorum.
    witnesses(&mut world).stop(2);
    world.host.take().expect("it runs").terminate();
    world.start_host();
    release(&world).await;

    witnesses(&mut world).trust(0, &other_ca);
    world.host.take().expect("it runs").terminate();
    world.start_host();
    let mut guest = Guest::new(&world).await;
    let refused = guest.load().await.expect_err("nobody that the host knows signed for it");
    assert_eq!(guest.code_of(refused).await, "witness-quorum-missing");
    let opened = world.keeper.as_ref().expect("it runs").log().matches("the vault is open").count();
    start(&mut world, 2);
    wait_open(&mut world, opened + 1);
}
