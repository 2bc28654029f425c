//! Witnesses of a vault: real processes of `vaultctl witness serve`.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use attestation::UnixTime;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use ledger::cosignature::WitnessKey;
use ring::signature::Ed25519KeyPair;

use crate::process::{Running, binary, run_ok};

/// The witnesses that a policy names, and the processes of those that run.
pub struct Witnesses {
    places: Vec<Place>,
}

struct Place {
    dir: PathBuf,
    name: String,
    vkey: String,
    /// Where it listens.
    port: u16,
    /// Where the host looks for it.
    asked_at: u16,
    /// Who signs its certificate, where the host asks it over TLS.
    ca: Option<PathBuf>,
    /// Its certificate and key, where it speaks HTTPS.
    tls: Option<(PathBuf, PathBuf)>,
    serving: Option<Running>,
}

impl Witnesses {
    /// Keys for so many witnesses, below this directory. None of them runs yet.
    pub fn keygen(dir: &Path, count: usize) -> Self {
        let places = (1..=count).map(|number| {
            let dir = dir.join(format!("witness-{number}"));
            std::fs::create_dir_all(&dir).expect("the directory is ours");
            let name = format!("witness.example/{number}");
            let mut keygen = Command::new(binary("vaultctl"));
            keygen.args(["--json", "witness", "keygen", "--name", &name, "--out"]);
            let made = run_ok(keygen.arg(dir.join("key")));
            let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
            let vkey = made["vkey"].as_str().expect("it says the vkey").to_owned();
            let port = free_port();
            Place { dir, name, vkey, port, asked_at: port, ca: None, tls: None, serving: None }
        });
        Self { places: places.collect() }
    }

    /// `[witnesses]` of a policy.
    pub fn policy(&self, quorum: usize) -> String {
        let keys: Vec<String> = self.places.iter().map(|place| format!("\"{}\"", place.vkey)).collect();
        format!("[witnesses]\nkeys = [{}]\nquorum = {quorum}\nfaulty = 0\n", keys.join(", "))
    }

    /// What the host's configuration says of them.
    pub fn host_config(&self) -> String {
        self.places.iter().fold(String::new(), |mut config, place| {
            let (name, port) = (&place.name, place.asked_at);
            let (scheme, ca) = match &place.ca {
                Some(ca) => ("https", format!("ca = \"{}\"\n", ca.display())),
                None => ("http", String::new()),
            };
            writeln!(config, "[witnesses.\"{name}\"]\nurl = \"{scheme}://127.0.0.1:{port}\"\n{ca}").expect("a string");
            config
        })
    }

    /// Starts one for the log of this vkey, and waits until it answers.
    pub fn start(&mut self, index: usize, log: &str) {
        let place = &mut self.places[index];
        let mut serve = Command::new(binary("vaultctl"));
        serve.args(["witness", "serve", "--listen", &format!("127.0.0.1:{}", place.port), "--log", log]);
        serve.arg("--key").arg(place.dir.join("key")).arg("--state").arg(place.dir.join("state"));
        if let Some((certificate, key)) = &place.tls {
            serve.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
        }
        place.serving = Some(Running::start(&mut serve, &place.dir.join("log")));
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, place.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "{} does not listen", place.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All of them.
    pub fn start_all(&mut self, log: &str) {
        (0..self.places.len()).for_each(|index| self.start(index, log));
    }

    /// Ends one.
    pub fn stop(&mut self, index: usize) {
        self.places[index].serving.take().expect("it runs").terminate();
    }

    /// Where one listens, while it does.
    pub fn port(&self, index: usize) -> u16 {
        self.places[index].port
    }

    /// A socket that the host asks, from its next start on, in the place of the witness.
    pub fn stand_before(&mut self, index: usize) -> TcpListener {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        self.places[index].asked_at = listener.local_addr().expect("it listens").port();
        listener
    }

    /// From its next start on it speaks HTTPS, with this certificate and key.
    pub fn certify(&mut self, index: usize, ca: &Path, identity: (PathBuf, PathBuf)) {
        self.trust(index, ca);
        self.places[index].tls = Some(identity);
    }

    /// The host takes certificates of this authority for it, from its next start on.
    pub fn trust(&mut self, index: usize, ca: &Path) {
        self.places[index].ca = Some(ca.to_owned());
    }

    /// What its key signs over this text, as a line of a note: whoever has the key can have it sign anything.
    pub fn cosigned_by(&self, index: usize, text: &str, time: UnixTime) -> String {
        let place = &self.places[index];
        let kept = std::fs::read_to_string(place.dir.join("key")).expect("the key");
        let seed =
            kept.trim_end().splitn(5, '+').nth(4).and_then(|key| BASE64_STANDARD.decode(key).ok()).expect("base64");
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed[1..]).expect("a seed");
        let key: WitnessKey = WitnessKey::parse(&place.vkey).expect("a vkey");
        let signature = pair.sign(&WitnessKey::message(text, time));
        key.line(text, time, signature.as_ref().try_into().expect("64 bytes")).expect("its own signature")
    }

    /// The witness itself again.
    pub fn stand_aside(&mut self, index: usize) {
        self.places[index].asked_at = self.places[index].port;
    }
}

/// What a witness answers to a checkpoint's text; it knows its own vkey.
pub type Lie = fn(&str, &WitnessKey) -> String;

/// Answers every request with 200 and the lie.
pub fn serve(listener: TcpListener, vkey: WitnessKey, lie: Lie) {
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let mut reader = BufReader::new(client.try_clone().expect("a socket"));
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
                if let Some((_, value)) = line.to_lowercase().split_once("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() {
                continue;
            }
            let body = String::from_utf8(body).expect("text");
            let (_, note) = body.split_once("\n\n").expect("a proof and a checkpoint");
            let (text, _) = note.split_once("\n\n").expect("a note");
            let answer = lie(&format!("{text}\n"), &vkey);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
            let _ = client.write_all((head + &answer).as_bytes());
        }
    });
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it listens").port()
}
