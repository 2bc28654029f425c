//! Witnesses of a vault: real processes of `vaultctl witness serve`.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

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

    /// The witness itself again.
    pub fn stand_aside(&mut self, index: usize) {
        self.places[index].asked_at = self.places[index].port;
    }
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it listens").port()
}
