//! The real program.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Uri};
use vault_proto::v1::provision_client::ProvisionClient;
use vault_proto::v1::vault_client::VaultClient;
use vault_proto::v1::{GetUploadRequest, ListModelsRequest, StatusRequest, UploadUnitRequest};

use crate::audit::{checkpoint, entries};
use crate::keeper::Keeper;
use crate::model::{SealedModel, upload};
use crate::setup::{Place, challenge_request, channel};

pub struct Process {
    child: Child,
    pub address: SocketAddr,
    log_lines: std::sync::mpsc::Receiver<String>,
}

impl Process {
    /// Starts `serve` and waits until it listens, which it says in a log line.
    pub fn start(place: &Place, more: &str) -> Self {
        let mut child = serve(&write_config(place, more)).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .find_map(|line| {
                let line: String = line.unwrap();
                let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
                json["fields"]["address"].as_str().map(|address| address.parse().unwrap())
            })
            .expect("the host listens");
        // Someone has to read on, or the host would wait for room to write its log lines.
        let (sender, log_lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Self { child, address, log_lines }
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9));
    }

    /// The most memory that it had, in MiB.
    pub fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Waits without holding up this program's own connections, which have to end for the host to end.
    async fn exited(&mut self) -> std::process::ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "the host stops");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_config(place: &Place, more: &str) -> PathBuf {
    let path = place.path("host.toml");
    std::fs::write(&path, place.config(&format!("log_format = \"json\"\n{more}"))).unwrap();
    path
}

fn serve(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vault-host"));
    command.arg("serve").arg("--config").arg(config);
    command
}

fn check_config(text: &str) -> Output {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vault-host"));
    command.arg("check-config").arg("--config").arg(file.path()).output().unwrap()
}

#[test]
fn a_configuration_to_start_from_is_printed() {
    let printed = Command::new(env!("CARGO_BIN_EXE_vault-host")).arg("config").output().unwrap();
    assert!(printed.status.success());
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), vault_host::CONFIG_TEMPLATE);
}

#[tokio::test]
async fn an_upload_goes_on_where_a_kill_stopped_it() {
    let place = Place::new();
    let model = SealedModel::new("minilm", "1", &[20_000_000], 1);
    let (unit, bytes) = (model.upload(0), model.units[0].clone());
    let mut offset = 0;
    for round in 1..5 {
        let host = Process::start(&place, "");
        let mut client = ProvisionClient::new(channel(host.address).await);
        offset = client.get_upload(GetUploadRequest::from(unit)).await.unwrap().into_inner().offset;
        let (messages, stream) = mpsc::channel(1);
        let task = tokio::spawn(async move { client.upload_unit(ReceiverStream::new(stream)).await });
        let first = UploadUnitRequest { unit: Some(unit.into()), offset, data: Default::default() };
        messages.send(first).await.unwrap();
        for piece in bytes[offset as usize..].chunks(100_000).take(20 * round) {
            messages.send(UploadUnitRequest { data: piece.to_vec().into(), ..Default::default() }).await.unwrap();
        }
        host.kill();
        task.await.unwrap().unwrap_err();
    }
    assert!(offset > 0, "something was stored in the rounds before");
    let host = Process::start(&place, "");
    let mut client = ProvisionClient::new(channel(host.address).await);
    let offset = client.get_upload(GetUploadRequest::from(unit)).await.unwrap().into_inner().offset;
    // What counts as stored is what was sent: the digest of the whole shows it.
    let stored = upload(&mut client, unit, offset, &bytes[offset as usize..]).await.unwrap();
    assert_eq!(stored, unit.bytes);
}

#[tokio::test]
async fn what_the_keeper_was_told_is_stored_survives_a_kill() {
    let place = Place::new();
    let mut keeper = Keeper::start(&place.keeper_socket(), |_| None);
    let mut size = 0;
    for round in 1..6 {
        let host = Process::start(&place, "");
        keeper.attached_times(round).await;
        assert_eq!(keeper.read(0, 4096).await.unwrap(), entries(0..size));
        keeper.append(size, &entries(size..size + 100)).await.unwrap();
        size += 100;
        keeper.put_checkpoint(&checkpoint(&entries(0..size)), size).await.unwrap();
        keeper.append(size, &entries(size..size + 7)).await.unwrap();
        size += 7;
        host.kill();
    }
}

#[tokio::test]
async fn a_signal_stops_the_host_after_the_calls_under_way() {
    let place = Place::new();
    let mut keeper = Keeper::start(&place.keeper_socket(), |_| None);
    let mut host = Process::start(&place, "");
    keeper.attached().await;
    let mut client = VaultClient::new(channel(host.address).await);
    let waiting = tokio::spawn(async move { client.get_challenge(challenge_request()).await });
    keeper.called().await;
    host.terminate();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(host.child.try_wait().unwrap().is_none(), "a call is under way");
    keeper.end_stream();
    waiting.await.unwrap().unwrap_err();
    assert!(host.exited().await.success());
}

#[tokio::test]
async fn a_log_line_of_a_call_has_its_id_method_and_code_and_nothing_that_the_caller_sent() {
    let place = Place::new();
    let host = Process::start(&place, "");
    let mut request = challenge_request();
    request.rule = "A secret that a caller pasted into the wrong field".to_owned();
    let status = VaultClient::new(channel(host.address).await).get_challenge(request).await.unwrap_err();
    let refusal = crate::setup::refusal(&status);
    let line = host.log_lines.iter().find(|line| line.contains("refused")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    let span = &json["span"];
    assert_eq!(span["request_id"], refusal.request_id.as_str());
    assert_eq!(span["method"], "Vault.GetChallenge");
    assert_eq!((&span["outcome"], &span["code"]), (&"refused".into(), &"malformed-rule".into()));
    assert!(!line.contains("pasted"));
}

#[tokio::test]
async fn two_hosts_never_share_a_data_directory() {
    let place = Place::new();
    let _host = Process::start(&place, "");
    let second = serve(&place.path("host.toml")).output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("data-dir-in-use"));
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let (place, other) = (Place::new(), Place::new());
    let host = Process::start(&place, "");
    let config = write_config(&other, "");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("127.0.0.1:0", &host.address.to_string())).unwrap();
    let second = serve(&config).output().unwrap();
    assert!(!second.status.success());
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(message.contains("listen-error") && message.contains(&host.address.to_string()), "{message}");
}

#[tokio::test]
async fn the_unix_socket_serves_and_outlives_a_killed_host() {
    let place = Place::new();
    let socket = place.path("host.sock");
    let more = format!("unix = {socket:?}");
    Process::start(&place, &more).kill();
    assert!(socket.exists(), "a killed host leaves its socket");
    let mut host = Process::start(&place, &more);
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://host").connect_with_connector(connect).await.unwrap();
    let status = ProvisionClient::new(channel).status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.state, "unreachable");
    host.terminate();
    assert!(host.exited().await.success());
    assert!(!place.path("host.sock").exists());
}

#[tokio::test]
async fn a_tls_listener_serves_those_who_know_its_issuer_and_no_plaintext() {
    let place = Place::new();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["vault.example".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    std::fs::write(place.path("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(place.path("key.pem"), key.serialize_pem()).unwrap();
    let tls = format!("[tls]\ncert = {:?}\nkey = {:?}", place.path("cert.pem"), place.path("key.pem"));
    let host = Process::start(&place, &tls);
    assert!(check_config(&place.config(&tls)).status.success());

    let connect = async |ca: String| {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("vault.example");
        Endpoint::from_shared(format!("https://{}", host.address)).unwrap().tls_config(tls).unwrap().connect().await
    };
    let mut client = VaultClient::new(connect(ca.pem()).await.unwrap());
    client.list_models(ListModelsRequest {}).await.unwrap();

    let stranger = CertificateParams::new(vec!["vault.example".to_owned()]).unwrap();
    let stranger = stranger.self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert!(connect(stranger.pem()).await.is_err());
    let plaintext = Endpoint::from_shared(format!("http://{}", host.address)).unwrap().connect().await;
    let answer = async { VaultClient::new(plaintext.ok()?).list_models(ListModelsRequest {}).await.ok() };
    assert!(answer.await.is_none());
}

#[test]
fn a_bad_configuration_is_refused_with_what_to_do() {
    let place = Place::new();
    let refused = |text: &str, words: &[&str]| {
        let output = check_config(text);
        assert!(!output.status.success());
        let message = String::from_utf8(output.stderr).unwrap();
        words.iter().for_each(|word| assert!(message.contains(word), "{message}"));
    };
    assert!(check_config(&place.config("")).status.success());
    assert!(!place.data_dir().exists(), "checking starts nothing");
    refused(&place.config("").replace("127.0.0.1", "0.0.0.0"), &["config-plaintext-listener", "tls", "insecure_"]);
    refused(&place.config("surprise = 1"), &["surprise"]);
    let missing = "[tls]\ncert = \"/nonexistent/cert\"\nkey = \"/nonexistent/key\"";
    refused(&place.config(missing), &["tls-file", "/nonexistent/cert"]);
    let garbage = place.path("garbage.pem");
    std::fs::write(&garbage, "garbage").unwrap();
    refused(&place.config(&format!("[tls]\ncert = {garbage:?}\nkey = {garbage:?}")), &["tls-identity"]);
    let witness = format!("[witnesses.\"witness.example/1\"]\nurl = \"https://witness.example\"\nca = {garbage:?}");
    refused(&place.config(&witness), &["witness-authority", "witness.example/1"]);
}
