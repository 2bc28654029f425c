//! Connections: several hosts, sockets, TLS, what is not an address.

use std::sync::Mutex;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use vault_proto::v1::provision_server::ProvisionServer;

use crate::forge::authority::Authority;
use crate::forge::tpm::SoftTpm;
use crate::peer::{Keeper, Lies, Shared};
use crate::scene::{Scene, run, text};

#[test]
fn the_first_host_that_answers_is_asked() {
    let scene = Scene::open();
    // Nothing listens on the first.
    let two = scene.path("two.json");
    let text_of = std::fs::read_to_string(scene.vault_file()).unwrap();
    std::fs::write(&two, text_of.replace(r#""hosts":["#, r#""hosts":["http://127.0.0.1:1","#)).unwrap();
    let status = run(&["status", "--json", "--vault", text(&two)]).done();
    assert_eq!(status["host"], scene.peer.address());
}

#[test]
fn a_unix_socket_is_a_host() {
    let scene = Scene::open();
    let socket = scene.peer.socket();
    assert_eq!(scene.with_vault(&["status", "--host", &socket]).done()["host"], socket);
}

#[test]
fn no_host_and_no_address_are_told_apart() {
    run(&["status", "--json", "--host", "http://127.0.0.1:1"]).fails(1, "host-unreachable");
    run(&["status", "--json", "--host", "127.0.0.1:1"]).fails(2, "host-malformed");
    run(&["status", "--json", "--host", "ftp://x"]).fails(2, "host-malformed");
    run(&["status", "--json"]).fails(2, "host-missing");
    run(&["pending", "--json"]).fails(2, "vault-missing");
}

#[test]
fn an_https_host_is_checked_by_the_authority_that_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let (ca, identity) = tls();
    let (good, other) = (directory.path().join("ca.pem"), directory.path().join("other.pem"));
    std::fs::write(&good, ca).unwrap();
    std::fs::write(&other, tls().0).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let keeper = Shared(Mutex::new(Keeper::new(SoftTpm::ecc(), &Authority::root("vendor"))));
    let mut server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    let server = server.add_service(ProvisionServer::new(keeper));
    runtime.spawn(server.serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)));

    let status = |more: &[&str]| run(&[&["status", "--json", "--host", &address], more].concat());
    assert_eq!(status(&["--ca", text(&good)]).not_yet()["state"], "empty");
    status(&["--ca", text(&other)]).fails(1, "host-unreachable");
    status(&[]).fails(2, "ca-missing");
    std::fs::write(&other, "no certificate").unwrap();
    let (exit, _) = status(&["--ca", text(&other)]).failed();
    assert_ne!(exit, 0);
}

/// PEM of an authority, and a server's identity for `localhost`.
fn tls() -> (String, Identity) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    (ca_certificate.pem(), Identity::from_pem(certificate.pem(), key.serialize_pem()))
}

#[test]
fn a_refusal_is_explained_and_can_not_steer_the_terminal() {
    let scene = Scene::open();
    let id = "0a".repeat(16);
    let explained = scene.with_vault(&["explain", &id]).done();
    assert_eq!(explained["code"], "quote-not-fresh");
    let text = scene.say(&["explain", &id]).stdout;
    assert!(text.contains("ReleaseKeys was refused: quote-not-fresh"), "{text}");
    assert!(text.contains("\\u{1b}[2J") && !text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn errors_for_people_say_what_why_and_what_next() {
    let scene = Scene::open();
    let refusal = vault_proto::v1::Refusal {
        code: "unknown-request".to_owned(),
        request_id: String::new(),
        message: "no such refusal".to_owned(),
    };
    scene.peer.lie(Lies { refusal: Some(refusal), ..Lies::default() });
    let ended = scene.say(&["explain", &"0a".repeat(16)]);
    assert_eq!(ended.code, 3);
    assert_eq!(ended.stderr, "error: Explain was refused [unknown-request]\n  why: no such refusal\n");
}
