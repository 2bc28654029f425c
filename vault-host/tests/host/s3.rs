//! A real S3 server of its own: `s3s-fs`, which keeps objects as files and takes conditional writes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BUCKET: &str = "vaults";
const KEY: &str = "test-key";
const SECRET: &str = "test-secret";

/// A server that ends with the test. Its data stays while its directory does.
pub struct S3 {
    program: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl S3 {
    /// `None`, and a line that says so, where there is no server to start.
    pub fn start() -> Option<Self> {
        let program = program()?;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root").join(BUCKET)).unwrap();
        let credentials = format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n");
        std::fs::write(dir.path().join("credentials"), credentials).unwrap();
        std::fs::write(dir.path().join("wrong"), format!("aws_access_key_id={KEY}\naws_secret_access_key=x\n"))
            .unwrap();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut s3 = Self { program, dir, port, child: None };
        s3.restart();
        Some(s3)
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) {
        self.stop();
        let mut command = Command::new(&self.program);
        command.args(["--host", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--access-key", KEY, "--secret-key", SECRET]).arg(self.dir.path().join("root"));
        let child = command.env("RUST_LOG", "error").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
        let begun = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the S3 server listens");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Puts all that it has aside as it is now, under a name.
    pub fn save(&mut self, name: &str) {
        self.stop();
        copy(&self.dir.path().join("root"), &self.dir.path().join(name));
        self.restart();
    }

    /// Puts it back as it was.
    pub fn roll_back_to(&mut self, name: &str) {
        self.stop();
        std::fs::remove_dir_all(self.dir.path().join("root")).unwrap();
        copy(&self.dir.path().join(name), &self.dir.path().join("root"));
        self.restart();
    }

    /// Lines of a host's configuration. They come before its first section.
    pub fn config(&self, prefix: &str) -> String {
        self.config_with(prefix, "credentials")
    }

    /// The same, with a secret that the server does not know.
    pub fn wrong_config(&self, prefix: &str) -> String {
        self.config_with(prefix, "wrong")
    }

    /// The same, at another endpoint.
    pub fn config_at(&self, endpoint: &str, prefix: &str) -> String {
        self.config_of(endpoint, prefix, "credentials")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    fn config_with(&self, prefix: &str, credentials: &str) -> String {
        self.config_of(&format!("http://{}", self.address()), prefix, credentials)
    }

    fn config_of(&self, endpoint: &str, prefix: &str, credentials: &str) -> String {
        let credentials = self.dir.path().join(credentials);
        format!("store = \"s3://{BUCKET}/{prefix}\"\n[s3]\nendpoint = \"{endpoint}\"\ncredentials = {credentials:?}")
    }

    /// Where an object lies as a file.
    pub fn object(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(BUCKET).join(name)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// The server that `cargo xtask test` built. With `CI=true` it must be there.
fn program() -> Option<PathBuf> {
    let set = std::env::var_os("WEIGHTVAULT_S3_SERVER").map(PathBuf::from);
    if set.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "WEIGHTVAULT_S3_SERVER is not set");
        eprintln!("skipped: WEIGHTVAULT_S3_SERVER is not set: `cargo xtask test` builds an S3 server");
    }
    set
}
