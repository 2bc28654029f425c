//! `--snp DEVICE`: which device a person chose.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What `--snp` says. No choice weakens anything: a report is worth what its certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnpChoice {
    /// The first usable one of configfs-tsm, sev-guest and Azure vTPM. Never a soft one.
    Auto,
    /// `configfs:/sys/kernel/config/tsm/report`.
    ConfigfsTsm(PathBuf),
    /// `sev-guest:/dev/sev-guest`.
    SevGuest(PathBuf),
    /// `azure`: the vTPM that `--tpm` names.
    AzureVtpm,
    /// `soft:DIR`: a soft platform. Its evidence is `emulated`, and its derived keys protect nothing.
    Soft(PathBuf),
}

/// Why the text names no SNP device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnpChoiceError {
    /// None of the kinds.
    Kind(String),
    /// A kind that needs an absolute path, without one.
    Path,
}

impl FromStr for SnpChoice {
    type Err = SnpChoiceError;

    fn from_str(text: &str) -> Result<Self, SnpChoiceError> {
        let (kind, path) = match text.split_once(':') {
            None if text == "auto" => return Ok(Self::Auto),
            None if text == "azure" => return Ok(Self::AzureVtpm),
            None => (text, ""),
            Some(parts) => parts,
        };
        let choice = match kind {
            "configfs" => Self::ConfigfsTsm,
            "sev-guest" => Self::SevGuest,
            "soft" => Self::Soft,
            _ => return Err(SnpChoiceError::Kind(text.chars().take(64).collect())),
        };
        if path.starts_with('/') { Ok(choice(path.into())) } else { Err(SnpChoiceError::Path) }
    }
}

impl fmt::Display for SnpChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::ConfigfsTsm(path) => write!(f, "configfs:{}", path.display()),
            Self::SevGuest(path) => write!(f, "sev-guest:{}", path.display()),
            Self::AzureVtpm => f.write_str("azure"),
            Self::Soft(path) => write!(f, "soft:{}", path.display()),
        }
    }
}

impl SnpChoiceError {
    /// Stable name of the refusal.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Kind(_) => "snp-device-kind",
            Self::Path => "snp-device-path",
        }
    }
}

impl fmt::Display for SnpChoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(text) => write!(
                f,
                "{text:?} is no SNP device: write auto, configfs:/sys/kernel/config/tsm/report, sev-guest:/dev/sev-guest, \
                 azure or soft:/DIR"
            ),
            Self::Path => write!(f, "an SNP device needs an absolute path, as in sev-guest:/dev/sev-guest"),
        }
    }
}

impl std::error::Error for SnpChoiceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_written_as_it_is_read() {
        let texts = [
            "auto",
            "configfs:/sys/kernel/config/tsm/report",
            "sev-guest:/dev/sev-guest",
            "azure",
            "soft:/run/soft-snp",
        ];
        for text in texts {
            assert_eq!(text.parse::<SnpChoice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_names_no_device_is_refused() {
        let code = |text: &str| text.parse::<SnpChoice>().err().map(|error| error.code());
        for text in ["", "snp", "Auto", "tpm:/dev/tpm0", "azure:/x", "auto:"] {
            assert_eq!(code(text), Some("snp-device-kind"), "{text}");
        }
        for text in ["soft", "soft:", "soft:dir", "configfs", "sev-guest:dev/sev-guest"] {
            assert_eq!(code(text), Some("snp-device-path"), "{text}");
        }
    }
}
