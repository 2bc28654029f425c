//! A witness behind TLS: what a host that is not beside its witnesses asks.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use vault_tests::{Guest, World};

use super::{release, start, wait_open, witnesses};

/// An authority's file, and a server with a certificate that it signed for 127.0.0.1.
fn authority(world: &World, name: &str) -> (PathBuf, TlsAcceptor) {
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("it signs itself");
    let file = world.path(&format!("{name}-ca.pem"));
    std::fs::write(&file, ca.pem()).expect("the directory is ours");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    let certificate = params.signed_by(&key, &ca).expect("the authority signs");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate and its key");
    (file, TlsAcceptor::from(Arc::new(config)))
}

/// Ends the TLS of whoever connects and goes on to the witness.
fn terminate_tls(listener: TcpListener, acceptor: TlsAcceptor, to: u16) {
    listener.set_nonblocking(true).expect("a socket");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let server = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await;
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server.expect("the witness listens")).await;
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn witness_behind_tls_is_asked_where_its_authority_signed_for_it() {
    let mut world = World::open_witnessed();
    world.publish("1");
    let (ca, acceptor) = authority(&world, "witness");
    let (other_ca, _) = authority(&world, "other");
    let to = witnesses(&mut world).port(0);
    let listener = witnesses(&mut world).stand_before_with_tls(0, &ca);
    terminate_tls(listener, acceptor, to);
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
