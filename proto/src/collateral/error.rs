//! Why evidence could not be completed.

use std::error::Error;
use std::fmt;

use attestation::{CollateralError, CollateralKey, HclError};

/// Evidence that nobody could verify, and no way to complete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CollateralFailure {
    /// What it needs can't be said.
    Key(CollateralError),
    /// The HCL report that holds the chip's report.
    Hcl(HclError),
    /// An object that no source has.
    Missing {
        /// Which.
        key: Box<CollateralKey>,
        /// What each service that was asked said.
        tried: Vec<Tried>,
    },
    /// The system gave no thread or no runtime to wait in.
    Runtime,
}

/// What one service said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Its address.
    pub url: String,
    /// What went wrong with its last answer.
    pub error: FetchError,
}

/// What is wrong with an answer of a key service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// No connection, or one that broke.
    Unreachable {
        /// What the system says.
        why: String,
    },
    /// No whole answer in time.
    TimedOut,
    /// Too many requests (429).
    Throttled {
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// It does not know the object (404): another product, chip or TCB.
    NotFound,
    /// Another status.
    Status {
        /// HTTP status.
        status: u16,
    },
    /// More bytes than such an object has.
    TooLarge,
    /// Fewer bytes than were announced, or no HTTP.
    Broken {
        /// What the library says.
        why: String,
    },
    /// Something else than was asked for.
    Wrong(CollateralError),
}

/// What is wrong with an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// Not an address of a key service.
    Url {
        /// As given.
        text: String,
    },
    /// An authority that can't be read.
    Ca {
        /// The file, and what is wrong.
        why: String,
    },
    /// An https service, no authority given, and none of the system found.
    RootsMissing,
}

impl CollateralFailure {
    /// Stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Key(error) => error.code(),
            Self::Hcl(error) => error.code(),
            Self::Missing { .. } => "collateral-missing",
            Self::Runtime => "collateral-runtime",
        }
    }

    /// Whether a service wants fewer requests.
    #[must_use]
    pub fn is_throttled(&self) -> bool {
        match self {
            Self::Missing { tried, .. } => {
                tried.iter().any(|tried| matches!(tried.error, FetchError::Throttled { .. }))
            }
            Self::Key(_) | Self::Hcl(_) | Self::Runtime => false,
        }
    }
}

impl FetchError {
    /// Stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "kds-unreachable",
            Self::TimedOut => "kds-timeout",
            Self::Throttled { .. } => "kds-throttled",
            Self::NotFound => "kds-not-found",
            Self::Status { .. } => "kds-status",
            Self::TooLarge => "kds-too-large",
            Self::Broken { .. } => "kds-broken",
            Self::Wrong(error) => error.code(),
        }
    }

    /// Whether the same request may do later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut | Self::Throttled { .. } | Self::Broken { .. } => true,
            Self::Status { status } => *status >= 500,
            Self::NotFound | Self::TooLarge | Self::Wrong(_) => false,
        }
    }
}

impl SourceError {
    /// Stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url { .. } => "kds-url",
            Self::Ca { .. } => "kds-ca",
            Self::RootsMissing => "kds-roots-missing",
        }
    }
}

impl fmt::Display for CollateralFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::Hcl(error) => write!(f, "the HCL report: {error}"),
            Self::Missing { key, tried } => {
                write!(f, "{key} is missing")?;
                tried.iter().try_for_each(|tried| write!(f, "; {}: {}", tried.url, tried.error))?;
                f.write_str(
                    ". It comes from the host's certificate table, from a store (`--collateral DIR`, filled with `vaultctl \
                     collateral prefetch`), or from a key service (`--kds URL`, or `--kds amd` for AMD's own)",
                )
            }
            Self::Runtime => f.write_str("the system gave no thread to fetch certificates in"),
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { why } => write!(f, "no connection: {why}"),
            Self::TimedOut => f.write_str("no whole answer in time"),
            Self::Throttled { retry_after: Some(seconds) } => write!(f, "too many requests: try again in {seconds} s"),
            Self::Throttled { retry_after: None } => f.write_str("too many requests"),
            Self::NotFound => f.write_str("it does not know that product, chip and TCB"),
            Self::Status { status } => write!(f, "HTTP status {status}"),
            Self::TooLarge => f.write_str("the answer is longer than it can be"),
            Self::Broken { why } => write!(f, "the answer is broken: {why}"),
            Self::Wrong(error) => write!(f, "the answer is of no use: {error}"),
        }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { text } => {
                write!(
                    f,
                    "{text:?} is no key service: write http://HOST[:PORT][/PATH], https://…, or amd for AMD's own"
                )
            }
            Self::Ca { why } => write!(f, "the authority for https key services: {why}"),
            Self::RootsMissing => f.write_str(
                "an https key service needs authorities to check it by, and this system has none: give --kds-ca FILE",
            ),
        }
    }
}

impl Error for CollateralFailure {}
impl Error for FetchError {}
impl Error for SourceError {}
