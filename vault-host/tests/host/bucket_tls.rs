//! A bucket over TLS: the S3 server behind what ends TLS for it, with a certificate of an authority of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use vault_host::{Config, check_store};

use crate::audit::entries;
use crate::keeper::Keeper;
use crate::s3::S3;
use crate::setup::{Place, RunningHost};

/// An authority that nobody else knows.
pub fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap()
}

/// Ends TLS as `localhost` in front of `to`; its port.
async fn end_tls(ca: &CertifiedIssuer<'_, KeyPair>, to: SocketAddr) -> u16 {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(default_provider().into()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_over_tls_is_believed_under_the_authority_that_was_named_and_under_no_other() {
    let Some(s3) = S3::start() else { return };
    let place = Place::new();
    let (ours, strangers) = (authority(), authority());
    std::fs::write(place.path("ours.pem"), ours.pem()).unwrap();
    std::fs::write(place.path("strangers.pem"), strangers.pem()).unwrap();
    let port = end_tls(&ours, s3.address()).await;
    let config = |endpoint: &str, ca: &str| {
        let ca = if ca.is_empty() { String::new() } else { format!("\nca = {:?}", place.path(ca)) };
        place.config(&format!("{}{ca}", s3.config_at(&format!("{endpoint}:{port}"), "prod")))
    };
    let mut keeper = Keeper::start(&place.keeper_socket(), |_| None);
    let host = RunningHost::start(&config("https://localhost", "ours.pem")).await;
    keeper.attached().await;
    keeper.append(0, &entries(0..3)).await.unwrap();
    assert_eq!(keeper.read(0, 9).await.unwrap(), entries(0..3));
    host.stop().await;

    let check = async |config: String| {
        let (config, runtime) = (Config::parse(&config).unwrap(), tokio::runtime::Handle::current());
        let check = move || check_store(&config, runtime).map_err(|error| (error.code(), error.to_string()));
        tokio::task::spawn_blocking(check).await.unwrap()
    };
    assert_eq!(check(config("https://localhost", "ours.pem")).await, Ok(()));
    // Another authority, those of the system, another name, no TLS.
    for (endpoint, ca) in [
        ("https://localhost", "strangers.pem"),
        ("https://localhost", ""),
        ("https://127.0.0.1", "ours.pem"),
        ("http://localhost", "ours.pem"),
    ] {
        let (code, said) = check(config(endpoint, ca)).await.unwrap_err();
        assert_eq!(code, "store-unreachable", "{endpoint} {ca}");
        assert!(!said.contains("test-secret"), "{said}");
    }
}
