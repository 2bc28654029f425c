//! A real Postgres server of its own: a cluster in a temporary directory, reached by a socket there. Never the system's.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Who runs the server where this program is root, which the server refuses: `nobody`.
const NOBODY: u32 = 65534;
/// The administrator of the cluster; the host is another, with no rights but over its database.
const ADMIN: &str = "admin";

/// A server that ends with the test.
pub struct Postgres {
    bin: PathBuf,
    dir: tempfile::TempDir,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Postgres {
    /// `None`, and a line that says so, where there is no Postgres.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same, with settings (`NAME=VALUE`) of the server.
    pub fn start_with(settings: &[&str]) -> Option<Self> {
        let bin = programs()?;
        let dir = tempfile::tempdir().unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut postgres = Self { bin, dir, settings, child: None };
        std::fs::set_permissions(postgres.dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        for name in ["cluster", "units"] {
            std::fs::create_dir(postgres.dir.path().join(name)).unwrap();
        }
        if is_root() {
            chown(postgres.cluster(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut init = postgres.program("initdb");
        init.args(["--no-locale", "--encoding=UTF8", "--auth=trust", "--no-sync", "-U", ADMIN, "-D"]);
        let made = init.arg(postgres.data()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres.restart();
        postgres.sql("postgres", "CREATE ROLE host LOGIN");
        postgres.sql("postgres", "CREATE DATABASE vaults OWNER host");
        Some(postgres)
    }

    /// Starts it again, after an orderly stop where it runs.
    pub fn restart(&mut self) {
        self.stop();
        let mut server = self.program("postgres");
        server.arg("-D").arg(self.data()).arg("-k").arg(self.cluster());
        for setting in ["listen_addresses=", "shared_buffers=16MB", "max_connections=40", "logging_collector=off"] {
            server.args(["-c", setting]);
        }
        for setting in &self.settings {
            server.args(["-c", setting]);
        }
        self.child = Some(server.spawn().unwrap());
        let begun = Instant::now();
        loop {
            let mut ready = self.program("pg_isready");
            let ready = ready.args(["-q", "-d", "postgres", "-p", self.port(), "-h"]).arg(self.cluster()).status();
            if ready.unwrap().success() {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "Postgres starts");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops it: clients are cut off, and what was committed is written.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// As if its machine had stopped, as far as a server can tell.
    pub fn crash(&mut self) {
        self.end(Signal::QUIT);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            kill_process(Pid::from_child(&child), signal).unwrap();
            child.wait().unwrap();
        }
    }

    /// Puts the cluster aside as it is now, under a name.
    pub fn save(&mut self, name: &str) {
        self.stop();
        copy(&self.data(), &self.cluster().join(name));
        self.restart();
    }

    /// Puts the cluster back as it was.
    pub fn roll_back_to(&mut self, name: &str) {
        self.stop();
        std::fs::remove_dir_all(self.data()).unwrap();
        copy(&self.cluster().join(name), &self.data());
        self.restart();
    }

    /// Lines of a host's configuration, for a schema. They come before its first section.
    pub fn config(&self, schema: &str) -> String {
        self.config_at(&format!("postgres://host@/vaults?host={}", self.cluster().display()), schema)
    }

    /// The same, for a role that the server does not know.
    pub fn wrong_config(&self, schema: &str) -> String {
        self.config_at(&format!("postgres://stranger@/vaults?host={}", self.cluster().display()), schema)
    }

    /// The same, at another URL.
    pub fn config_at(&self, url: &str, schema: &str) -> String {
        format!("store = \"{url}\"\nunits = {:?}\n[postgres]\nschema = \"{schema}\"", self.units(schema))
    }

    /// Where the units of a schema are.
    pub fn units(&self, schema: &str) -> PathBuf {
        let dir = self.dir.path().join("units").join(schema);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Where its socket is.
    pub fn cluster(&self) -> PathBuf {
        self.dir.path().join("cluster")
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.cluster().join("data")
    }

    /// Changes a setting at the next start.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// What a statement of the administrator gives, without headings.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let said = self.psql(database, statement).output().unwrap();
        assert!(said.status.success(), "{statement}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    /// A statement of the administrator, to be made later.
    pub fn sql_command(&self, statement: &str) -> Command {
        self.psql("vaults", statement)
    }

    fn psql(&self, database: &str, statement: &str) -> Command {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-U", ADMIN, "-d", database, "-v", "ON_ERROR_STOP=1", "-h"]);
        psql.arg(self.cluster()).args(["-p", self.port(), "-c", statement]).stdin(Stdio::null());
        psql
    }

    /// An object's bytes.
    pub fn read(&self, schema: &str, name: &str) -> Vec<u8> {
        let text = format!("SELECT encode(body, 'hex') FROM {schema}.objects WHERE name = '{name}'");
        hex::decode(self.sql("vaults", &text)).unwrap()
    }

    /// Writes over an object, as an administrator can.
    pub fn write(&self, schema: &str, name: &str, bytes: &[u8]) {
        let bytes = hex::encode(bytes);
        self.sql(
            "vaults",
            &format!(
                "UPDATE {schema}.objects SET revision = gen_random_uuid(), body = decode('{bytes}', 'hex') \
                 WHERE name = '{name}'"
            ),
        );
    }

    /// Names of the objects below a name.
    pub fn names(&self, schema: &str, dir: &str) -> Vec<String> {
        if self.sql("vaults", &format!("SELECT to_regclass('{schema}.objects') IS NULL")) == "t" {
            return Vec::new();
        }
        let text = format!("SELECT name FROM {schema}.objects WHERE name LIKE '{dir}/%' ORDER BY name");
        self.sql("vaults", &text).lines().map(str::to_owned).collect()
    }

    /// The socket's name has the port in it, which a test may set.
    fn port(&self) -> &str {
        self.settings.iter().rev().find_map(|setting| setting.strip_prefix("port=")).unwrap_or("5432")
    }

    /// A program of the server, as a user that the server takes.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// With owners and modes, which the server checks.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Where the server's programs are: Debian keeps them out of the way, by version. With `CI=true` they must be there.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut bins: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    bins.sort_by_key(|bin| bin.parent().and_then(|dir| dir.file_name()?.to_str()?.parse::<u32>().ok()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = bins.into_iter().rev().chain(std::env::split_paths(&path)).find(|bin| bin.join("initdb").exists());
    if found.is_none() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "there is no initdb: `cargo xtask setup` installs Postgres"
        );
        eprintln!("skipped: there is no initdb: `cargo xtask setup` installs Postgres");
    }
    found
}
