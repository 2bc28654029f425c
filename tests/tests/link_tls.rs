//! Keeper and host on two machines: TLS between them, by the real programs.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use vault_tests::{World, binary, run, run_ok};

/// Writes `NAME-ca.pem`, and of an identity that it signed for 127.0.0.1 `NAME.pem` and `NAME.key`.
fn make_identity(world: &World, name: &str) {
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("it signs itself");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    let certificate = params.signed_by(&key, &ca).expect("the authority signs");
    let files = [("-ca.pem", ca.pem()), (".pem", certificate.pem()), (".key", key.serialize_pem())];
    for (suffix, text) in files {
        fs::write(world.path(&format!("{name}{suffix}")), text).expect("it can be written");
    }
}

/// A vault whose keeper listens on TCP with the identity `keeper`; with `client_ca` only for hosts that this one knows.
/// The host is not there yet.
fn keeper_over_tls(client_ca: Option<&str>) -> (World, u16) {
    let mut world = World::open();
    for name in ["keeper", "host", "stranger"] {
        make_identity(&world, name);
    }
    world.host.take().expect("the host runs").terminate();
    world.keeper.take().expect("the keeper runs").terminate();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it has one").port();
    let file = |name: &str| world.path(name).display().to_string();
    let mut options = vec!["--listen".to_owned(), format!("tcp:127.0.0.1:{free}")];
    options.extend(["--tls-cert".to_owned(), file("keeper.pem"), "--tls-key".to_owned(), file("keeper.key")]);
    if let Some(name) = client_ca {
        options.extend(["--tls-client-ca".to_owned(), file(&format!("{name}-ca.pem"))]);
    }
    world.keeper_listen = Some(options);
    world.start_keeper();
    (world, free)
}

/// The host's configuration for it: whose authority it trusts, and which identity it shows.
fn dial(world: &World, port: u16, ca: &str, identity: Option<&str>) -> String {
    let file = |name: String| world.path(&name).display().to_string();
    let mut text =
        format!("keeper = \"https://127.0.0.1:{port}\"\n[keeper_tls]\nca = \"{}\"\n", file(format!("{ca}-ca.pem")));
    if let Some(name) = identity {
        let (cert, key) = (file(format!("{name}.pem")), file(format!("{name}.key")));
        text.push_str(&format!("cert = \"{cert}\"\nkey = \"{key}\"\n"));
    }
    text
}

/// A host that must not get a stream to the keeper; its reason.
fn not_attached(world: &mut World, keeper: String) -> String {
    world.host_keeper = Some(keeper);
    let mut host = world.start_host_process();
    let reason = host.wait_for("no stream to the keeper");
    assert!(!host.log().contains("attached to the keeper"), "{}", host.log());
    host.terminate();
    reason
}

#[test]
fn host_reaches_a_keeper_over_tls_and_no_impostor() {
    let (mut world, port) = keeper_over_tls(None);
    let wrong_authority = dial(&world, port, "stranger", None);
    let reason = not_attached(&mut world, wrong_authority);
    assert!(reason.contains("invalid peer certificate"), "{reason}");
    // A certificate of the right authority, for another name.
    let other_name = dial(&world, port, "keeper", None).replace("https://127.0.0.1", "https://localhost");
    let reason = not_attached(&mut world, other_name);
    assert!(reason.contains("invalid peer certificate"), "{reason}");
    not_attached(&mut world, format!("keeper = \"tcp:127.0.0.1:{port}\"\n"));

    world.host_keeper = Some(dial(&world, port, "keeper", None));
    world.start_host();
    world.keeper.as_mut().expect("it runs").wait_for("the vault is open");
    world.publish("1");
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}

#[test]
fn keeper_that_names_its_hosts_authority_lets_in_no_other() {
    let (mut world, port) = keeper_over_tls(Some("host"));
    let nobody = dial(&world, port, "keeper", None);
    not_attached(&mut world, nobody);
    let stranger = dial(&world, port, "keeper", Some("stranger"));
    not_attached(&mut world, stranger);

    world.host_keeper = Some(dial(&world, port, "keeper", Some("host")));
    world.start_host();
    world.keeper.as_mut().expect("it runs").wait_for("the vault is open");
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}

#[test]
fn neither_side_of_the_link_goes_beyond_this_machine_in_plaintext() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keeper = Command::new(binary("vault-enclave"));
    // Refused before it looks for a TPM: there is none at this address.
    keeper.args(["keeper", "--tpm", "swtpm:host=127.0.0.1,port=1", "--listen", "tcp:0.0.0.0:7701", "--dir"]);
    let (code, said) = run(keeper.arg(dir.path().join("keeper")));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("listen-plaintext") && said.contains("--tls-cert"), "{said}");

    let check = |keeper: &str| {
        let text = format!("data_dir = \"/data\"\nunix = \"/host.sock\"\n{keeper}");
        fs::write(dir.path().join("host.toml"), text).expect("it can be written");
        run(Command::new(binary("vault-host")).args(["check-config", "--config"]).arg(dir.path().join("host.toml")))
    };
    let (code, said) = check("keeper = \"tcp:10.0.0.2:7701\"");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("config-plaintext-keeper") && said.contains("[keeper_tls]"), "{said}");
    // What is not a certificate is found before anything is dialled.
    fs::write(dir.path().join("garbage"), "garbage").expect("it can be written");
    let garbage = dir.path().join("garbage").display().to_string();
    let tls = format!("keeper = \"https://keeper.example:7701\"\n[keeper_tls]\nca = \"{garbage}\"\n");
    assert!(check(&tls).1.contains("keeper-tls-authority"));
    assert!(check(&tls.replace(&garbage, "/nonexistent")).1.contains("tls-file"));
    let ca = CertificateParams::new(Vec::new())
        .and_then(|ca| ca.self_signed(&KeyPair::generate()?))
        .expect("it signs itself");
    fs::write(dir.path().join("ca"), ca.pem()).expect("it can be written");
    let tls = tls.replace(&garbage, &dir.path().join("ca").display().to_string());
    assert_eq!(check(&tls).0, Some(0));
    let identity = format!("{tls}cert = \"{garbage}\"\nkey = \"{garbage}\"\n");
    assert!(check(&identity).1.contains("keeper-tls-identity"));
}
