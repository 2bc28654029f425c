//! What sealing and loading cost beside the bare loops, `cp` and a raw stream, each once: JSON. `cargo xtask bench` runs it,
//! as often as it wants samples, and shows the medians.
//!
//! `data_path SOURCE HUGE PLAIN DISK`: a directory of plaintext files, an empty directory on a tmpfs of huge pages, one on a
//! plain tmpfs, and one on a disk. Sealed units lie on the first, and a copy of them on the disk. `data_path warm BYTES PLACE`
//! uses memory and gives it back; `data_path certify PLACE` makes a certificate for this machine's own address.

#[path = "support/tls.rs"]
mod tls;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use attestation::Sha256Digest;
use base64::Engine as _;
use ledger::manifest::{Manifest, Selection, unit_path};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use vault_enclave::bare::{self, SealedChunks};
use vault_enclave::derive::{KeeperContext, ModelContext};
use vault_enclave::open::{Destination, Directory, GrantedModel, LocalUnits, ReadBy};
use vault_enclave::place::{Facts, judge};
use vault_enclave::publisher::PublisherSigner;
use vault_enclave::seal::{DirectoryTarget, SealRequest, SourceModel};
use vault_enclave::secret::Root;
use vault_enclave::unit_keys::UnitKeys;
use vault_enclave::vault_keys::VaultKeys;

type Failure = Box<dyn std::error::Error>;

/// Bytes that a raw stream moves at a time.
const BLOCK_BYTES: usize = 1 << 20;

fn main() -> Result<(), Failure> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let is = |argument: &Path, word: &str| argument.as_os_str() == word;
    let (source, huge, plain, disk) = match arguments.as_slice() {
        [warm, bytes, place] if is(warm, "warm") => {
            return Ok(bare::warm(&place.join("warm"), bytes.to_string_lossy().parse()?)?);
        }
        [certify, place] if is(certify, "certify") => return tls::certify(place),
        [source, huge, plain, disk] => (source, huge, plain, disk),
        _ => {
            return Err("usage: data_path SOURCE HUGE PLAIN DISK, or warm BYTES PLACE, or certify PLACE".into());
        }
    };
    let mut bench = Bench::new(source, huge)?;
    let sealed = bench.seal()?;
    bench.bare_loop()?;
    bench.load("load local", &sealed, &sealed.directory, false, ReadBy::PageCache)?;
    bench.load("load local, units verified", &sealed, &sealed.directory, true, ReadBy::PageCache)?;
    bench.raw_stream(&sealed)?;
    bench.raw_tls_stream(&sealed)?;
    bench.cold(&sealed, &disk.join("sealed"))?;
    bench.copy("cp into huge tmpfs", &huge.join("copied"))?;
    bench.copy("cp into plain tmpfs", &plain.join("copied"))?;
    fs::remove_dir_all(&sealed.directory)?;
    println!("{}", json!({ "bytes": bench.bytes, "threads": bench.threads, "rows": bench.rows }));
    Ok(())
}

struct Bench<'a> {
    source: &'a Path,
    huge: &'a Path,
    bytes: u64,
    threads: usize,
    rows: Vec<Value>,
}

struct Sealed {
    directory: PathBuf,
    manifest: Manifest,
    keys: UnitKeys,
}

impl Sealed {
    fn units_in(&self, directory: &Path) -> Vec<PathBuf> {
        self.keys.units().iter().map(|unit| directory.join(unit_path(unit))).collect()
    }
}

impl<'a> Bench<'a> {
    fn new(source: &'a Path, huge: &'a Path) -> Result<Self, Failure> {
        let threads = std::thread::available_parallelism()?.get();
        Ok(Self { source, huge, bytes: bytes_of(source)?, threads, rows: Vec::new() })
    }

    /// Seals for a vault made for this, and takes the keys that it would grant.
    fn seal(&mut self) -> Result<Sealed, Failure> {
        let rng = SystemRandom::new();
        let context = KeeperContext { instance: [3; 32], core: Sha256Digest::of(b"core") };
        let vault = VaultKeys::derive(&Root::generate(&rng)?, &context)?;
        let publisher = publisher(&rng)?;
        let request = SealRequest {
            vault: Sha256Digest::of(b"vault"),
            wrap_key: vault.wrap_key(),
            model: "bench".try_into()?,
            version: "1".try_into()?,
            publisher: &publisher,
            threads: self.threads,
        };
        let files = files(self.source)?;
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let bare = self.huge.join("bare-sealed");
        fs::create_dir(&bare)?;
        self.measure("bare seal loop", |bench| Ok(bare::seal_loop(&files, &bare, bench.threads)?))?;
        fs::remove_dir_all(&bare)?;

        let directory = self.huge.join("sealed");
        let target = DirectoryTarget::begin(&directory)?;
        let scanned = SourceModel::scan(self.source, &ledger::safetensors::layer_group)?;
        let manifest = self.measure("seal", |_| Ok(request.seal(&scanned, target, &rng, &|_| {})?))?;
        let context = ModelContext::from(&manifest);
        let dek = vault.unwrap_dek(context, &fs::read(directory.join("dek.hpke"))?)?;
        let keys = UnitKeys::derive(&dek, context, manifest.select(&Selection::All)?)?;
        Ok(Sealed { directory, manifest, keys })
    }

    fn bare_loop(&mut self) -> Result<(), Failure> {
        let place = self.huge.join("bare");
        let mut chunks = SealedChunks::new(&place, self.bytes, self.threads)?;
        // Once for nothing: it is the first to use so much memory.
        chunks.open(&place, self.threads)?;
        fs::remove_file(&place)?;
        self.measure("bare loop", |bench| Ok(chunks.open(&place, bench.threads)?))?;
        Ok(fs::remove_file(&place)?)
    }

    fn load(
        &mut self,
        what: &str,
        sealed: &Sealed,
        from: &Path,
        verify_units: bool,
        read_by: ReadBy,
    ) -> Result<(), Failure> {
        let into = self.huge.join("opened");
        let destination =
            Destination::new(Directory::make(&into)?, judge(&Facts::gather(self.huge)?, self.bytes, true)?)?;
        let units = LocalUnits::new(from, &sealed.manifest, read_by)?;
        let model = GrantedModel { manifest: &sealed.manifest, keys: &sealed.keys, verify_units };
        let opened = self.measure(what, |bench| Ok(model.open(&units, destination, bench.threads, &|_| {})?))?;
        opened.wipe()?;
        Ok(fs::remove_dir(&into)?)
    }

    /// Around the page cache of a disk, where it can.
    fn cold(&mut self, sealed: &Sealed, copy: &Path) -> Result<(), Failure> {
        let status = Command::new("cp").arg("-r").arg(&sealed.directory).arg(copy).status()?;
        if !status.success() {
            return Err(format!("cp: {status}").into());
        }
        let units = sealed.units_in(copy);
        for unit in &units {
            fs::File::open(unit)?.sync_all()?;
        }
        match bare::read_direct(&units[..1], 1) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => eprintln!("no direct reads here"),
            Err(error) => return Err(error.into()),
            Ok(()) => {
                self.measure("raw direct read", |bench| Ok(bare::read_direct(&units, 4 * bench.threads)?))?;
                self.load("load local, direct", sealed, copy, false, ReadBy::Direct)?;
            }
        }
        Ok(fs::remove_dir_all(copy)?)
    }

    /// The sealed bytes over TCP of this machine, from the page cache into memory that is warm, both ends counted.
    fn raw_stream(&mut self, sealed: &Sealed) -> Result<(), Failure> {
        let units = sealed.units_in(&sealed.directory);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        self.measure("raw stream", |_| {
            let serve = move || -> io::Result<()> {
                let (mut stream, _) = listener.accept()?;
                let mut block = vec![0; BLOCK_BYTES];
                for unit in units {
                    let mut unit = fs::File::open(unit)?;
                    while let read @ 1.. = unit.read(&mut block)? {
                        stream.write_all(&block[..read])?;
                    }
                }
                Ok(())
            };
            let served = std::thread::spawn(serve);
            let mut stream = TcpStream::connect(address)?;
            let mut block = vec![0; BLOCK_BYTES];
            while stream.read(&mut block)? > 0 {}
            served.join().map_err(|_| "the sending thread panicked")??;
            Ok(())
        })
    }

    /// The same over TLS.
    fn raw_tls_stream(&mut self, sealed: &Sealed) -> Result<(), Failure> {
        let (units, stream) = (sealed.units_in(&sealed.directory), tls::TlsStream::new()?);
        self.measure("raw TLS stream", |_| stream.send(&units))
    }

    fn copy(&mut self, what: &str, to: &Path) -> Result<(), Failure> {
        let source = self.source;
        self.measure(what, |_| {
            let status = Command::new("cp").arg("-r").arg(source).arg(to).status()?;
            if status.success() { Ok(()) } else { Err(format!("cp: {status}").into()) }
        })?;
        Ok(fs::remove_dir_all(to)?)
    }

    /// Time on the wall and of all CPUs, into memory that the host of this machine has not taken back.
    fn measure<R>(&mut self, what: &str, act: impl FnOnce(&Self) -> Result<R, Failure>) -> Result<R, Failure> {
        bare::warm(&self.huge.join("warm"), self.bytes)?;
        let (start, cpu) = (Instant::now(), cpu_seconds()?);
        let result = act(self)?;
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        let gigabytes = self.bytes as f64 / 1e9;
        self.rows.push(json!({ "what": what, "gb_s": gigabytes / seconds, "cpu_s_gb": cpu / gigabytes }));
        Ok(result)
    }
}

/// Of this process, and of its children that have ended, in steps of 10 ms (proc(5), `stat`).
fn cpu_seconds() -> Result<f64, Failure> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
    let children = fields.skip(13).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9 + children as f64 / ticks)
}

fn bytes_of(directory: &Path) -> io::Result<u64> {
    files(directory)?.iter().map(|file| Ok(file.metadata()?.len())).sum()
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

fn publisher(rng: &SystemRandom) -> Result<PublisherSigner, Failure> {
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, rng).map_err(|_| "no randomness")?;
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    Ok(PublisherSigner::from_pem(&pem, rng)?)
}
