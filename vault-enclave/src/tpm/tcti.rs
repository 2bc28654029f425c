//! Where the TPM is.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tss_esapi::tcti_ldr::TctiNameConf;

use super::ek::EkChoice;

/// How to reach the TPM: `device:/dev/tpmrm0`, or `swtpm:host=127.0.0.1,port=2321` for a software TPM; and which of its
/// endorsement keys to use, which is not part of that text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TctiConfig(Place, EkChoice, Vec<Vec<u8>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Device(PathBuf),
    Swtpm { host: String, port: u16 },
}

/// Why the text names no TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TctiError {
    /// Neither `device:` nor `swtpm:`.
    Kind(String),
    /// `device:` without an absolute path.
    DevicePath,
    /// `swtpm:` with a unix socket, which tss-esapi 7.7 drops silently, to talk to TCP port 2321 instead.
    SwtpmPath,
    /// `swtpm:` without exactly one `host` and one `port`, or with anything else.
    SwtpmOptions,
}

impl TctiConfig {
    /// The same TPM, with this endorsement key.
    #[must_use]
    pub fn with_ek(self, ek: EkChoice) -> Self {
        Self(self.0, ek, self.2)
    }

    /// The same TPM, with the certificates that issued the one of its endorsement key, exact DER.
    #[must_use]
    pub fn with_ek_issuers(self, issuers: Vec<Vec<u8>>) -> Self {
        Self(self.0, self.1, issuers)
    }

    /// The certificates that issued the one of the endorsement key.
    pub(crate) fn ek_issuers(&self) -> &[Vec<u8>] {
        &self.2
    }

    /// Which endorsement key.
    pub(crate) const fn ek(&self) -> EkChoice {
        self.1
    }

    /// As tss-esapi takes it.
    pub(super) fn name_conf(&self) -> tss_esapi::Result<TctiNameConf> {
        TctiNameConf::from_str(&self.to_string())
    }

    /// The device node, if it is one.
    pub(super) fn device(&self) -> Option<&Path> {
        match &self.0 {
            Place::Device(path) => Some(path),
            Place::Swtpm { .. } => None,
        }
    }

    /// The same text for the same TPM, however it was named: for this machine only.
    pub(super) fn place(&self) -> String {
        match &self.0 {
            Place::Device(path) => {
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                format!("device:{}", path.display())
            }
            Place::Swtpm { host, port } => {
                let host = host.to_ascii_lowercase();
                let is_loopback = host.parse().map_or(host == "localhost", |address: IpAddr| address.is_loopback());
                format!("swtpm:{}:{port}", if is_loopback { "loopback" } else { &host })
            }
        }
    }

    /// Whether the kernel's resource manager stands between: it flushes for those who are gone, and what it shows as
    /// sessions may be other programs'.
    pub(super) fn has_resource_manager(&self) -> bool {
        let name = self.device().and_then(Path::file_name).and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("tpmrm"))
    }
}

impl FromStr for TctiConfig {
    type Err = TctiError;

    fn from_str(text: &str) -> Result<Self, TctiError> {
        match text.split_once(':') {
            Some(("device", path)) if path.starts_with('/') => {
                Ok(Self(Place::Device(path.into()), EkChoice::Auto, Vec::new()))
            }
            Some(("device", _)) => Err(TctiError::DevicePath),
            Some(("swtpm", options)) => swtpm(options).map(|place| Self(place, EkChoice::Auto, Vec::new())),
            _ => Err(TctiError::Kind(text.chars().take(64).collect())),
        }
    }
}

fn swtpm(options: &str) -> Result<Place, TctiError> {
    let (mut host, mut port) = (None, None);
    for option in options.split(',') {
        match option.split_once('=') {
            Some(("path", _)) => return Err(TctiError::SwtpmPath),
            Some(("host", name)) if host.is_none() && is_host(name) => host = Some(name.to_owned()),
            Some(("port", number)) if port.is_none() => port = number.parse().ok().filter(|port| *port != 0),
            _ => return Err(TctiError::SwtpmOptions),
        }
    }
    host.zip(port).map(|(host, port)| Place::Swtpm { host, port }).ok_or(TctiError::SwtpmOptions)
}

fn is_host(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
    !name.is_empty() && name.len() <= 253 && name.bytes().all(known)
}

impl fmt::Display for TctiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Device(path) => write!(f, "device:{}", path.display()),
            Place::Swtpm { host, port } => write!(f, "swtpm:host={host},port={port}"),
        }
    }
}

impl TctiError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Kind(_) => "tcti-unknown",
            Self::DevicePath => "tcti-device-path",
            Self::SwtpmPath => "tcti-swtpm-path",
            Self::SwtpmOptions => "tcti-swtpm-options",
        }
    }
}

impl fmt::Display for TctiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(text) => {
                write!(f, "\"{text}\" names no TPM: give device:/dev/tpmrm0 or swtpm:host=127.0.0.1,port=PORT")
            }
            Self::DevicePath => write!(f, "device: needs an absolute path, as in device:/dev/tpmrm0"),
            Self::SwtpmPath => write!(f, "swtpm is reached over TCP only: give swtpm:host=127.0.0.1,port=PORT"),
            Self::SwtpmOptions => write!(f, "swtpm: takes exactly host=HOST,port=PORT"),
        }
    }
}

impl std::error::Error for TctiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_forms_are_taken_and_reach_the_library_unchanged() {
        for text in ["device:/dev/tpmrm0", "swtpm:host=127.0.0.1,port=2321", "swtpm:host=localhost,port=1"] {
            let config: TctiConfig = text.parse().unwrap();
            assert_eq!(config.to_string(), text);
            assert_eq!(config.name_conf().unwrap(), TctiNameConf::from_str(text).unwrap());
        }
        assert!("device:/dev/tpmrm0".parse::<TctiConfig>().unwrap().has_resource_manager());
        assert!(!"device:/dev/tpm0".parse::<TctiConfig>().unwrap().has_resource_manager());
    }

    #[test]
    fn anything_the_library_would_drop_silently_is_refused() {
        let refused = |text: &str| text.parse::<TctiConfig>().unwrap_err();
        assert_eq!(refused("swtpm:path=/run/swtpm.sock"), TctiError::SwtpmPath);
        for text in ["swtpm:", "swtpm:host=a", "swtpm:port=1", "swtpm:host=a,port=1,x=2", "swtpm:host=a,port=1,port=2"]
        {
            assert_eq!(refused(text), TctiError::SwtpmOptions, "{text}");
        }
        for text in ["swtpm:host=,port=1", "swtpm:host=a,port=0", "swtpm:host=a,port=65536", "swtpm:host=a b,port=1"] {
            assert_eq!(refused(text), TctiError::SwtpmOptions, "{text}");
        }
        assert_eq!(refused("device:"), TctiError::DevicePath);
        assert_eq!(refused("device:tpm0"), TctiError::DevicePath);
        for text in ["", "tabrmd", "device", "swtpm", "mssim:host=a,port=1", "/dev/tpm0"] {
            assert!(matches!(refused(text), TctiError::Kind(_)), "{text}");
        }
    }
}
