//! What one invocation works with: its vault, its host, its clock.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use attestation::UnixTime;
use ledger::vault_file::{VAULT_FILE_BYTES_MAX, VaultFile};
use ring::rand::SystemRandom;

use crate::cli::{Global, Signing};
use crate::client::{Reader, Remote};
use crate::failure::{Failure, Kind};
use crate::print::{Form, Plain};

/// One invocation.
pub struct Session {
    global: Global,
    now: UnixTime,
    rng: SystemRandom,
}

impl Session {
    /// Takes the time once: everything in one invocation is judged at one moment.
    pub fn new(global: Global) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { global, now: UnixTime(now), rng: SystemRandom::new() }
    }

    /// The moment of this invocation.
    pub fn now(&self) -> UnixTime {
        self.now
    }

    /// For nonces and secrets.
    pub fn rng(&self) -> &SystemRandom {
        &self.rng
    }

    /// How to answer.
    pub fn form(&self) -> Form {
        if self.global.json { Form::Json } else { Form::Text }
    }

    /// The vault that `--vault` names.
    pub fn vault(&self) -> Result<VaultFile, Failure> {
        match &self.global.vault {
            Some(path) => read_vault(path),
            None => Err(Failure::new(Kind::Usage, "vault-missing", "which vault?")
                .next("give its vault file with --vault FILE; `vaultctl init start` makes one, `vaultctl init fetch` gets one")),
        }
    }

    /// The vault, if one was named.
    pub fn vault_if_named(&self) -> Result<Option<VaultFile>, Failure> {
        self.global.vault.as_deref().map(read_vault).transpose()
    }

    /// The first host of the vault that answers; or the one that `--host` names.
    pub async fn remote(&self, vault: &VaultFile) -> Result<Remote, Failure> {
        self.remote_read_with(vault, None).await
    }

    /// The same for somebody who signs with `--key`: without `--reader-key` that key reads a private log, too.
    pub async fn remote_of_signer(&self, vault: &VaultFile, signing: &Signing) -> Result<Remote, Failure> {
        self.remote_read_with(vault, signing.key.as_ref()).await
    }

    async fn remote_read_with(&self, vault: &VaultFile, signer: Option<&PathBuf>) -> Result<Remote, Failure> {
        let remote = match &self.global.host {
            Some(host) => Remote::connect(std::slice::from_ref(host), self.ca()).await?,
            None => Remote::connect(vault.hosts(), self.ca()).await?,
        };
        Ok(remote.reading_as(Reader::new(self.global.reader_key.as_ref().or(signer).cloned(), vault.id(), self.now)))
    }

    /// The host that `--host` names.
    pub async fn named_host(&self) -> Result<Remote, Failure> {
        let host = self.global.host.clone().ok_or_else(|| {
            Failure::new(Kind::Usage, "host-missing", "which host?")
                .next("give its address with --host URL: http://HOST:PORT, https://HOST:PORT or unix:/path")
        })?;
        Remote::connect(&[host], self.ca()).await
    }

    fn ca(&self) -> Option<&Path> {
        self.global.ca.as_deref()
    }

    /// Shows what somebody is about to sign. On standard error, so that standard output has the result alone.
    pub fn review(&self, text: &str) {
        eprintln!("{}", Plain(text.trim_end()));
    }

    /// Asks on a terminal. Elsewhere nobody can answer, so `--yes` has to be given.
    pub fn confirm(&self, question: &str, yes: bool) -> Result<(), Failure> {
        if yes {
            return Ok(());
        }
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(Failure::new(Kind::Usage, "not-confirmed", "nothing was signed")
                .why("there is no terminal to ask on")
                .next("read what is shown above, then give --yes"));
        }
        eprint!("{} Type yes: ", Plain(question));
        let mut answer = String::new();
        let asked = std::io::stderr().flush().and_then(|()| stdin.lock().read_line(&mut answer));
        match asked {
            Ok(_) if answer.trim() == "yes" => Ok(()),
            _ => Err(Failure::new(Kind::Failed, "not-confirmed", "nothing was signed").why("the answer was not yes")),
        }
    }
}

/// Reads a file of at most `max` bytes.
pub fn read(path: &Path, max: usize) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| Failure::file("read", path, &error))?;
    if bytes.len() > max {
        return Err(Failure::new(Kind::Usage, "file-too-long", format!("{} is too long", path.display()))
            .why(format!("it has more than {max} bytes")));
    }
    Ok(bytes)
}

/// Reads a text file of at most `max` bytes.
pub fn read_text(path: &Path, max: usize) -> Result<String, Failure> {
    String::from_utf8(read(path, max)?)
        .map_err(|error| Failure::new(Kind::Usage, "not-text", format!("{} is not text", path.display())).why(error))
}

/// Reads a vault file.
pub fn read_vault(path: &Path) -> Result<VaultFile, Failure> {
    VaultFile::parse(&read(path, VAULT_FILE_BYTES_MAX)?).map_err(|error| {
        Failure::new(Kind::Usage, error.code(), format!("{} is not a vault file that can be used", path.display()))
            .why(error)
            .next("get the vault file from whoever ran the ceremony, and compare the vault id over another way")
    })
}

/// Replaces a file, whole or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let file = written_beside(path, bytes)?;
    file.persist(path).map(drop).map_err(|error| Failure::file("write", path, &error.error))
}

/// Writes a new file, whole or not at all. A file that is there is not replaced.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    match written_beside(path, bytes)?.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::new(Kind::Usage, "file-exists", format!("{} is there already", path.display()))
                .next("choose another name, or move the file away"))
        }
        Err(error) => Err(Failure::file("write", path, &error.error)),
    }
}

fn written_beside(path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile, Failure> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let failed = |error: std::io::Error| Failure::file("write", path, &error);
    std::fs::create_dir_all(&directory).map_err(failed)?;
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(&directory)
        .map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    Ok(file)
}
