use clap::Parser;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::*;

#[derive(clap::Parser, Debug)]
struct Command {
    #[command(flatten)]
    listen: ListenArgs,
}

/// Files of a test: `cert`, `key`, `ca`, and `other`, the key of another certificate.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = CertificateParams::new(vec!["keeper.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
        write("cert", certificate.pem());
        write("key", key.serialize_pem());
        write("other", KeyPair::generate().unwrap().serialize_pem());
        write("ca", ca.self_signed(&KeyPair::generate().unwrap()).unwrap().pem());
        Self(dir)
    }

    /// `--listen ADDRESS`, and options whose values are files of these.
    fn check(&self, address: &str, options: &[(&str, &str)]) -> Result<Listen, ListenError> {
        let mut command = vec!["keeper".to_owned(), "--listen".to_owned(), address.to_owned()];
        for (option, file) in options {
            command.extend([(*option).to_owned(), self.0.path().join(file).display().to_string()]);
        }
        Command::try_parse_from(command).unwrap().listen.check()
    }
}

const CERT: (&str, &str) = ("--tls-cert", "cert");
const KEY: (&str, &str) = ("--tls-key", "key");
const REMOTE: &str = "tcp:10.0.0.1:7701";

#[test]
fn this_machine_needs_no_tls_and_both_spellings_of_tcp_are_taken() {
    let files = Files::new();
    assert!(matches!(files.check("unix:/run/keeper.sock", &[]).unwrap().0, Place::Unix(_)));
    for address in ["tcp:127.0.0.1:7701", "tcp://127.0.0.1:7701", "tcp:[::1]:7701"] {
        assert!(matches!(files.check(address, &[]).unwrap().0, Place::Tcp(_)), "{address}");
    }
}

#[test]
fn beyond_this_machine_a_keeper_wants_tls_or_the_insecure_word() {
    let files = Files::new();
    for address in [REMOTE, "tcp:0.0.0.0:7701", "tcp:[::]:7701"] {
        let refusal = files.check(address, &[]).unwrap_err();
        assert_eq!(refusal.code(), "listen-plaintext");
        assert!(refusal.to_string().contains("--tls-cert"), "{refusal}");
    }
    assert!(matches!(files.check(REMOTE, &[CERT, KEY]).unwrap().0, Place::Tls(..)));
    let insecure = ["keeper", "--listen", REMOTE, "--insecure-plaintext-link"];
    assert!(matches!(Command::try_parse_from(insecure).unwrap().listen.check().unwrap().0, Place::Tcp(_)));
}

#[test]
fn half_of_the_tls_options_and_contradictions_are_wrong_use() {
    for options in [
        &["--tls-cert", "c"][..],
        &["--tls-key", "k"],
        &["--tls-client-ca", "a"],
        &["--tls-cert", "c", "--tls-key", "k", "--insecure-plaintext-link"],
    ] {
        assert!(Command::try_parse_from([&["keeper", "--listen", REMOTE], options].concat()).is_err(), "{options:?}");
    }
}

#[test]
fn what_is_wrong_with_the_tls_files_is_said() {
    let files = Files::new();
    let code = |options: &[(&str, &str)]| files.check(REMOTE, options).unwrap_err().code();
    assert_eq!(code(&[CERT, ("--tls-key", "missing")]), "listen-tls-file");
    assert_eq!(code(&[CERT, ("--tls-key", "other")]), "listen-tls-identity");
    assert_eq!(code(&[("--tls-cert", "key"), KEY]), "listen-tls-identity");
    assert_eq!(code(&[CERT, KEY, ("--tls-client-ca", "missing")]), "listen-tls-file");
    assert_eq!(code(&[CERT, KEY, ("--tls-client-ca", "key")]), "listen-tls-client-authority");
    assert!(files.check(REMOTE, &[CERT, KEY, ("--tls-client-ca", "ca")]).is_ok());
    let unix = files.check("unix:/run/keeper.sock", &[CERT, KEY]).unwrap_err();
    assert_eq!(unix.code(), "listen-tls-on-unix");
}

#[test]
fn what_is_no_address_is_refused() {
    let files = Files::new();
    for address in ["", "7701", "unix:keeper.sock", "tcp:localhost:7701", "tcp:127.0.0.1", "http://127.0.0.1:7701"] {
        assert_eq!(files.check(address, &[]).unwrap_err().code(), "listen-address", "{address}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_refused() {
    let files = Files::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = files.check(&format!("tcp:{}", taken.local_addr().unwrap()), &[]).unwrap();
    let (requests, _queue) = crate::keeper::queue();
    let link = KeeperLinkServer::new(crate::keeper::Link::new(requests, crate::keeper::Store::default()));
    let refusal = listen.serve(link, std::future::pending()).await.unwrap_err();
    assert_eq!(refusal.code(), "listen-bind");
}

#[tokio::test]
async fn a_listener_that_ends_by_itself_is_a_failure_and_one_that_is_told_to_is_not() {
    let serve = |stop: bool| {
        let (requests, _queue) = crate::keeper::queue();
        let link = KeeperLinkServer::new(crate::keeper::Link::new(requests, crate::keeper::Store::default()));
        let server = Server::builder().add_service(link);
        async move {
            if stop {
                let never = tokio_stream::pending::<io::Result<tokio::net::TcpStream>>();
                serve_on(server, never, std::future::ready(())).await
            } else {
                let nobody = tokio_stream::empty::<io::Result<tokio::net::TcpStream>>();
                serve_on(server, nobody, std::future::pending()).await
            }
        }
    };
    serve(true).await.unwrap();
    assert_eq!(serve(false).await.unwrap_err().code(), "listen-transport");
}

#[test]
fn a_keeper_is_told_where_to_listen() {
    let refusal = Command::try_parse_from(["keeper"]).unwrap().listen.check().unwrap_err();
    assert_eq!(refusal.code(), "listen-missing");
    assert!(refusal.to_string().contains("--listen"), "{refusal}");
}
