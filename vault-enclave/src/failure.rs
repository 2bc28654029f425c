//! What a person is told when a command failed: stable code, sentence, next step, exit code.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use ledger::manifest::ManifestError;
use serde::{Deserialize, Serialize};
use vault_proto::client::{CallError, ConnectError};

use crate::agent::load::{EXIT_LEASE_LOST, EXIT_REVOKED};
use crate::publisher::PublisherError;
use crate::seal::{SealError, SourceError};

/// What a failure means for a caller: its exit code, the same as those of `vaultctl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file, the network, the TPM: nothing was decided. Exit code 1.
    Failed,
    /// The command was given something that it can't use. Exit code 2, as for unknown arguments.
    Usage,
    /// The vault understood and refused. Exit code 3.
    Refused,
    /// Something that was checked does not hold: do not go on. Exit code 4.
    NotVerified,
}

/// A failure, for a person and for a program. Nothing secret is ever part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    kind: Kind,
    code: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Kind {
    /// The exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::NotVerified => 4,
        }
    }
}

impl Failure {
    /// With a stable code and a sentence.
    #[must_use]
    pub fn new(kind: Kind, code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { kind, code: code.into(), message: message.to_string(), request_id: None, next: None }
    }

    /// With what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// With what went wrong after it.
    #[must_use]
    pub fn beside(mut self, other: &Self) -> Self {
        // Writing to a String does not fail.
        let _ = write!(self.message, "; and then: {} ({})", other.message, other.code);
        self.next = self.next.or_else(|| other.next.clone());
        self
    }

    /// One that passes by itself: nothing was decided, whoever said so.
    #[must_use]
    pub fn passing(self) -> Self {
        Self { kind: Kind::Failed, ..self }
    }

    /// A file or directory that the operating system would not give.
    #[must_use]
    pub fn file(verb: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(Kind::Failed, "file", format!("could not {verb} {}: {error}", path.display()))
    }

    /// Anything else that the operating system would not do.
    #[must_use]
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(Kind::Failed, "io", format!("{what}: {error}"))
    }

    /// What it means for a caller.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Stable name.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The sentence alone.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next.
    #[must_use]
    pub fn next_step(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// The status of a program that ends because its lease did; `None` where this is about something else.
    #[must_use]
    pub fn lost_lease(&self) -> Option<u8> {
        match self.code.as_str() {
            "lease-lost" => Some(EXIT_LEASE_LOST),
            "lease-revoked" => Some(EXIT_REVOKED),
            _ => None,
        }
    }

    /// Tells it on standard error, as JSON or in words, and gives the exit code.
    #[must_use]
    pub fn report(&self, json: bool) -> ExitCode {
        match serde_json::to_string_pretty(self) {
            Ok(text) if json => eprintln!("{text}"),
            _ => eprintln!("error: {self}"),
        }
        ExitCode::from(self.lost_lease().unwrap_or(self.kind.exit_code()))
    }
}

/// Text in which nothing steers a terminal: some of what is shown was written by a host.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut plain, char| {
        // Control characters, and Unicode's characters that reorder or hide text.
        let steers = char.is_control() && char != '\n'
            || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        // Writing to a String does not fail.
        let _ = if steers { write!(plain, "{}", char.escape_unicode()) } else { plain.write_char(char) };
        plain
    })
}

/// [Plain](plain), wherever it is shown.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", plain(&self.message), plain(&self.code))?;
        for (label, text) in [("request", &self.request_id), ("next", &self.next)] {
            if let Some(text) = text {
                write!(f, "\n  {label}: {}", plain(text).replace('\n', "\n    "))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self {
            kind: if error.is_refusal() { Kind::Refused } else { Kind::Failed },
            code: error.code().to_owned(),
            message: error.to_string(),
            request_id: error.request_id().map(str::to_owned),
            next: Some(error.next_step()),
        }
    }
}

impl From<Box<CallError>> for Failure {
    fn from(error: Box<CallError>) -> Self {
        (*error).into()
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let kind = if matches!(error, ConnectError::Address(_)) { Kind::Usage } else { Kind::Failed };
        Self::new(kind, error.code(), &error).next(error.next_step())
    }
}

/// Errors whose text says what to do.
macro_rules! from {
    ($($error:ty => $kind:ident),+ $(,)?) => { $(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(Kind::$kind, error.code(), error)
            }
        }
    )+ };
}

from! {
    crate::open::DestinationError => Failed,
    crate::place::PlaceError => Failed,
    crate::region::RegionError => Failed,
    crate::secret::SecretError => Failed,
    crate::tpm::TctiError => Usage,
    crate::tpm::TpmError => Failed,
    ledger::manifest::ManifestError => Failed,
    ledger::manifest::SelectError => Usage,
    ledger::vault_file::VaultFileError => Usage,
    vault_proto::collateral::CollateralFailure => Failed,
    vault_proto::collateral::SourceError => Usage,
    vault_proto::convert::WireError => Failed,
}

impl From<PublisherError> for Failure {
    fn from(error: PublisherError) -> Self {
        Self::new(Kind::Usage, error.code(), error).next(
            "give the key that the policy lists; a new one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 \
             -out publisher.pem",
        )
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        let next = match &error {
            SealError::Source { error, .. } => source_advice(error),
            SealError::Safetensors { .. } => "get the file again: its header is not that of a safetensors file",
            SealError::Manifest(ManifestError::NoUnits) => "SRC has no file: name the model's directory",
            SealError::Manifest(_) => "seal fewer or larger files; a model has at most 16,384 units",
            SealError::Target { .. } => "make room, or name another place with --out DIR",
            SealError::Secret(_) => "raise the limit on locked memory: ulimit -l unlimited",
            SealError::Wrap(_) | SealError::Seal(_) | SealError::Sign(_) => "try again, and report it if it stays",
        };
        Self::new(Kind::Failed, error.code(), &error).next(next)
    }
}

/// About something in the directory that is sealed.
fn source_advice(error: &SourceError) -> &'static str {
    match error {
        SourceError::Io { .. } => "check the path, and that this user may read it",
        SourceError::Changed | SourceError::NotRegular | SourceError::LinkToNoFile => {
            "seal a directory of regular files that nobody writes to"
        }
        SourceError::NotUtf8 | SourceError::Path(_) | SourceError::TooDeep => "rename it, or leave it out",
        SourceError::TooManyFiles => "pack small files together; a model has at most 16,384 units",
        SourceError::Group(_) | SourceError::ReservedGroup => "name another group with --file-group",
    }
}

#[cfg(test)]
mod tests {
    use ledger::manifest::FilePath;
    use ledger::names::Group;

    use super::*;

    #[test]
    fn a_failure_says_what_and_what_next() {
        let failure =
            Failure::new(Kind::Refused, "publisher-unknown", "PublishModel was refused").next("first\nsecond");
        assert_eq!(failure.to_string(), "PublishModel was refused (publisher-unknown)\n  next: first\n    second");
        assert_eq!(failure.kind().exit_code(), 3);
    }

    #[test]
    fn what_is_wrong_with_a_source_says_what_to_do_about_it() {
        let next = |error: SealError| Failure::from(error).next_step().unwrap_or_default().to_owned();
        let of = |error| next(SealError::Source { path: "model/a".into(), error });
        let group = Group::try_from("a b".to_owned()).unwrap_err();
        let path = FilePath::try_from("../x").unwrap_err();
        for error in [SourceError::ReservedGroup, SourceError::Group(group)] {
            assert_eq!(of(error), "name another group with --file-group");
        }
        for error in [SourceError::NotUtf8, SourceError::TooDeep, SourceError::Path(path)] {
            assert_eq!(of(error), "rename it, or leave it out");
        }
        assert!(of(SourceError::TooManyFiles).contains("pack small files together"));
        assert!(of(SourceError::Changed).contains("that nobody writes to"));
        let missing = SourceError::Io { kind: std::io::ErrorKind::NotFound, message: "no such file".to_owned() };
        assert!(of(missing).contains("check the path"));
        assert!(next(SealError::Manifest(ManifestError::NoUnits)).contains("SRC has no file"));
        assert!(next(SealError::Manifest(ManifestError::TooManyUnits { count: 9 })).contains("fewer or larger files"));
    }

    #[test]
    fn what_went_wrong_later_is_said_behind_what_went_wrong_first() {
        let first = Failure::new(Kind::Refused, "revoked", "it is revoked");
        let later = Failure::new(Kind::Failed, "destination-failed", "a file can't be removed").next("remove it");
        let both = first.beside(&later);
        assert_eq!((both.kind(), both.code(), both.next_step()), (Kind::Refused, "revoked", Some("remove it")));
        assert_eq!(both.message(), "it is revoked; and then: a file can't be removed (destination-failed)");
    }

    #[test]
    fn the_end_of_a_lease_has_a_status_of_its_own() {
        let status = |code: &str| Failure::new(Kind::Failed, code, "x").lost_lease();
        assert_eq!(["lease-lost", "lease-revoked", "io"].map(status), [Some(75), Some(77), None]);
    }

    #[test]
    fn text_of_a_host_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Kb\r\u{202e}\nä"), "a\\u{1b}[2Kb\\u{d}\\u{202e}\nä");
        let failure = Failure::new(Kind::Failed, "x\u{7}", "\u{1b}[2K").next("\u{9b}2K");
        assert_eq!(failure.to_string(), "\\u{1b}[2K (x\\u{7})\n  next: \\u{9b}2K");
    }
}
