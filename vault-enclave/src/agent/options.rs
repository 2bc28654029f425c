//! What `load` and `run` are told on the command line, and what it means.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use ledger::manifest::UNITS_MAX;
use ledger::names::{Name, NameError, Version};
use ledger::vault_file::VaultFile;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use vault_proto::collateral::Collateral;
use vault_proto::convert::ModelName;

use super::extensions::Extensions;
use super::machine::MachineArgs;
use super::part::{Part, PartArgs};
use super::remote::Hosts;
use super::sources::{SourceArgs, SourceList};
use crate::collateral_args::CollateralArgs;
use crate::ek_args::EkArgs;
use crate::failure::{Failure, Kind};
use crate::snp::SnpChoice;
use crate::tpm::TctiConfig;

/// By which rule, how much of a model, and for which machine.
#[derive(clap::Args, Debug)]
pub struct ModelArgs {
    /// Release rule of the vault's policy [default: the one named like the model].
    #[arg(long, value_name = "NAME")]
    rule: Option<Name>,
    #[command(flatten)]
    part: PartArgs,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    machine: MachineArgs,
}

/// What is to be loaded.
pub(super) struct Order {
    pub(super) model: ModelName,
    /// Where it is not the rule that is named like the model.
    pub(super) rule: Option<Name>,
    pub(super) part: Part,
    pub(super) sources: SourceList,
}

/// The same with every file read.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) vault: VaultFile,
    pub(super) hosts: Hosts,
    pub(super) rule: Name,
    pub(super) model: ModelName,
    pub(super) part: Part,
    pub(super) sources: SourceList,
    pub(super) devices: Devices,
    pub(super) state: Option<PathBuf>,
    pub(super) extensions: Extensions,
    /// What is started with the weights; only `run` starts something.
    pub(super) workload: Option<attestation::Workload>,
}

/// Where to look for what this machine attests with.
#[derive(Clone)]
pub(super) struct Devices {
    pub(super) tpm: Option<TctiConfig>,
    pub(super) snp: SnpChoice,
    pub(super) collateral: Arc<Collateral>,
    pub(super) event_log: PathBuf,
}

impl Devices {
    /// A TPM that is named must be there; the usual one may.
    pub(super) fn new(
        tpm: Option<&str>,
        ek: &EkArgs,
        snp: SnpChoice,
        collateral: &CollateralArgs,
        event_log: &Path,
    ) -> Result<Self, Failure> {
        let tpm = match tpm {
            Some("none") => None,
            Some(tcti) => Some(tcti.parse()?),
            None if Path::new(TPM_DEVICE).exists() => Some(format!("device:{TPM_DEVICE}").parse()?),
            None => None,
        };
        let tpm = tpm.map(|tcti: TctiConfig| ek.apply(tcti)).transpose()?;
        // The loader has another working directory.
        Ok(Self { tpm, snp, collateral: collateral.open()?, event_log: absolute(event_log)? })
    }
}

const TPM_DEVICE: &str = "/dev/tpmrm0";

/// `MODEL@VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRef(pub(super) ModelName);

/// Units by index: ascending, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitList(Vec<u32>);

/// What is wrong with an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentError {
    /// No `@`.
    NoVersion,
    /// A part of the name is none.
    Name(NameError),
    /// Not a number, or a range whose end comes before its start.
    Units(String),
    /// A unit that comes twice or out of order, or more than a model can have.
    Order,
}

impl ModelArgs {
    /// Reads the files that are named.
    pub(super) fn request(&self, model: &ModelRef) -> Result<Request, Failure> {
        let order = Order {
            model: model.0.clone(),
            rule: self.rule.clone(),
            part: self.part.part()?,
            sources: self.sources.list()?,
        };
        self.machine.request(order)
    }

    /// An option that was given and that says nothing of a second model or version.
    pub(super) fn option_of_one_model(&self) -> Option<&'static str> {
        self.part.option().or_else(|| self.sources.option())
    }
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::io(path.display(), &error))
}

pub(super) fn read(path: &std::path::Path, max: usize) -> Result<Vec<u8>, Failure> {
    read_from(std::fs::File::open(path).map_err(|error| Failure::io(path.display(), &error))?, path, max)
}

fn read_from(file: std::fs::File, path: &Path, max: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = std::io::Read::read_to_end(&mut std::io::Read::take(file, max as u64 + 1), &mut bytes);
    read.map_err(|error| Failure::io(path.display(), &error))?;
    Ok(bytes)
}

/// The same of a file that others may write while this process goes on: a pipe in its place would be waited for without an end,
/// and a lost lease with it.
pub(super) fn read_file(path: &Path, max: usize) -> Result<Vec<u8>, Failure> {
    let failed = |errno: Errno| Failure::io(path.display(), &errno.into());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).map_err(failed)?.st_mode);
    if kind != FileType::RegularFile {
        let message = format!("{} is {kind:?}, and no regular file", path.display());
        return Err(Failure::new(Kind::Failed, "not-a-file", message).next("put a file in its place"));
    }
    read_from(file.into(), path, max)
}

pub(super) fn read_text(path: &std::path::Path) -> Result<String, Failure> {
    const PEM_BYTES_MAX: usize = 256 << 10;
    String::from_utf8(read(path, PEM_BYTES_MAX)?).map_err(|error| Failure::new(Kind::Usage, "ca-malformed", error))
}

impl UnitList {
    /// The indices.
    pub(super) fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

impl FromStr for ModelRef {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let (model, version) = text.split_once('@').ok_or(ArgumentError::NoVersion)?;
        let model = Name::try_from(model.to_owned()).map_err(ArgumentError::Name)?;
        let version = Version::try_from(version.to_owned()).map_err(ArgumentError::Name)?;
        Ok(Self(ModelName { model, version }))
    }
}

impl FromStr for UnitList {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let mut units = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.parse::<u32>().map_err(|_| ArgumentError::Units(part.to_owned()));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(ArgumentError::Units(part.to_owned()));
            }
            // Before the range is made: a number can be large.
            if last as usize >= UNITS_MAX || units.last().is_some_and(|before| *before >= first) {
                return Err(ArgumentError::Order);
            }
            units.extend(first..=last);
        }
        Ok(Self(units))
    }
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVersion => f.write_str("want MODEL@VERSION, as in minilm@1.0"),
            Self::Name(error) => error.fmt(f),
            Self::Units(part) => write!(f, "{part:?} is not a unit or a range of units, as in 0,3-5"),
            Self::Order => write!(f, "units are ascending, none twice, each below {UNITS_MAX}"),
        }
    }
}

impl std::error::Error for ArgumentError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_a_name_and_a_version() {
        let parsed: ModelRef = "minilm@1.0".parse().unwrap();
        assert_eq!((parsed.0.model.as_str(), parsed.0.version.as_str()), ("minilm", "1.0"));
        assert_eq!("minilm".parse::<ModelRef>(), Err(ArgumentError::NoVersion));
        for bad in ["@1", "minilm@", "MiniLM@1", "../x@1", "a@../x", "a@1@2"] {
            assert!(matches!(bad.parse::<ModelRef>(), Err(ArgumentError::Name(_))), "{bad}");
        }
    }

    #[test]
    fn a_pipe_in_a_files_place_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, file) = (dir.path().join("pipe"), dir.path().join("file"));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        std::fs::write(&file, "12345").unwrap();
        assert_eq!(read_file(&file, 5).unwrap(), b"12345");
        assert_eq!(read_file(&file, 3).unwrap(), b"1234", "so that whoever reads it sees that it is too long");
        for other in [pipe.as_path(), dir.path()] {
            assert_eq!(read_file(other, 5).unwrap_err().code(), "not-a-file");
        }
    }

    #[test]
    fn units_are_numbers_and_ranges_in_order() {
        assert_eq!("0,3-5,9".parse(), Ok(UnitList(vec![0, 3, 4, 5, 9])));
        assert_eq!("7-7".parse(), Ok(UnitList(vec![7])));
        for bad in ["", ",", "1,", "a", "5-3", "1-2-3", "-1", "1 ,2"] {
            assert!(matches!(bad.parse::<UnitList>(), Err(ArgumentError::Units(_))), "{bad:?}");
        }
        for bad in ["1,1", "2,1", "1-4,3", "0-4294967295", "16384"] {
            assert_eq!(bad.parse::<UnitList>(), Err(ArgumentError::Order), "{bad:?}");
        }
    }
}
