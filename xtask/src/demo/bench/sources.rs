//! Where else sealed units come from: real servers, each with the same files. What is not here is named and left out.

use super::process::cpu_seconds;
use super::rows::{HTTP, S3};
use crate::demo::World;
use crate::demo::scenario::free_port;
use crate::{Result, setup, shell};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const READY: Duration = Duration::from_secs(30);
/// Below the root of either server: the bucket, and the version in it.
const BUCKET: &str = "sealed";
const PREFIX: &str = "1";
/// What everybody may know who runs this.
const KEY: &str = "bench-key";
const SECRET: &str = "bench-secret";

/// A place that serves the sealed units.
pub(super) struct Source {
    /// Its row.
    pub(super) what: &'static str,
    /// The options by which an agent takes them from there.
    pub(super) options: Vec<String>,
    /// The process that serves.
    pid: u32,
}

impl Source {
    /// What it has spent so far.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.pid)
    }
}

/// The units as files, once more under a path that both servers have.
pub(super) fn directory(world: &World) -> Result<PathBuf> {
    let directory = world.bench_place("sources")?.join(BUCKET).join(PREFIX);
    if !directory.exists() {
        world.link_units(&directory)?;
    }
    Ok(directory)
}

/// Starts those servers that are here; says which are not.
pub(super) fn start(world: &mut World, left_out: &mut Vec<String>) -> Result<Vec<Source>> {
    directory(world)?;
    let root = world.bench_place("sources")?;
    let mut sources = Vec::new();
    match shell::which("nginx").or_else(|| shell::which("/usr/sbin/nginx")) {
        Some(nginx) => sources.push(http(world, &nginx, &root)?),
        None => left_out.push(format!("{HTTP}: nginx is not installed (`apt-get install nginx-light`)")),
    }
    match setup::s3::ensure_for_bench() {
        Ok(server) => sources.push(s3(world, &server, &root)?),
        Err(error) => left_out.push(format!("{S3}: {error}")),
    }
    Ok(sources)
}

fn http(world: &mut World, nginx: &Path, root: &Path) -> Result<Source> {
    let (place, port) = (world.bench_place("nginx")?, free_port()?);
    let user = if shell::is_root() { "user root;\n" } else { "" };
    let at = place.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {at}/{kind};\n"))
        .concat();
    let config = format!(
        "{user}daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n  access_log off;\n  \
         sendfile on;\n{temporary}  server {{ listen 127.0.0.1:{port}; root {}; }}\n}}\n",
        root.display()
    );
    let file = place.join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = Command::new(nginx);
    command.arg("-p").arg(&place).arg("-c").arg(&file).args(["-e", "stderr"]);
    let pid = begin(world, "nginx", &command, port)?;
    let options = vec!["--source".into(), format!("http://127.0.0.1:{port}/{BUCKET}/{PREFIX}")];
    Ok(Source { what: HTTP, options, pid })
}

fn s3(world: &mut World, server: &Path, root: &Path) -> Result<Source> {
    let (place, port) = (world.bench_place("s3")?, free_port()?);
    let credentials = place.join("credentials");
    fs::write(&credentials, format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"))?;
    let mut command = Command::new(server);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--access-key", KEY, "--secret-key", SECRET]).arg(root).env("RUST_LOG", "error");
    let pid = begin(world, "s3-server", &command, port)?;
    let words = ["--source", &format!("s3://{BUCKET}/{PREFIX}"), "--s3-endpoint", &format!("http://127.0.0.1:{port}")];
    let mut options: Vec<String> = words.map(str::to_owned).into();
    options.extend(["--s3-credentials".to_owned(), credentials.display().to_string()]);
    Ok(Source { what: S3, options, pid })
}

fn begin(world: &mut World, name: &str, command: &Command, port: u16) -> Result<u32> {
    let children = world.processes();
    let pid = children.spawn(name, command)?;
    children.wait_ready(name, READY, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())?;
    Ok(pid)
}
