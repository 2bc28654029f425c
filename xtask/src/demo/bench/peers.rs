//! What people keep files encrypted with instead, in the same run: each opens all files of the model into the same memory, from
//! memory.

use super::data::{in_memory, note};
use super::rows::{Round, Sample};
use crate::{Result, shell};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// One of them.
pub(super) struct Peer {
    /// In ratios.
    pub(super) name: &'static str,
    /// Its row, and its name in what the script says.
    pub(super) what: &'static str,
}

/// ChaCha20-Poly1305: a process for each file.
pub(super) const AGE: Peer = Peer { name: "age", what: "age" };

/// All of them, in the order in which they are shown.
pub(super) const ALL: [Peer; 5] = [
    // AES-256-CTR: a process for each file.
    Peer { name: "openssl", what: "openssl enc, unauthenticated" },
    AGE,
    // AES-256-GCM below a file system; its own process counts.
    Peer { name: "gocryptfs", what: "gocryptfs" },
    // AES-256-XTS below a file system, in the kernel: the CPU of the whole machine counts.
    Peer { name: "luks", what: "LUKS, unauthenticated" },
    // XSalsa20-Poly1305, to tensors of torch in memory of the process.
    Peer { name: "tensorizer", what: "tensorizer, encrypted" },
];

const SCRIPT: &str = include_str!("peers.sh");
const TENSORIZER: &str = include_str!("tensorizer.py");

/// What they need.
pub(super) struct Peers<'a> {
    /// A Python that has torch and tensorizer.
    pub(super) tensorizer: Option<&'a Path>,
}

impl Peers<'_> {
    /// That a Python which was named has what it takes, before anything is measured.
    pub(super) fn check(&self) -> Result<()> {
        let Some(python) = self.tensorizer else { return Ok(()) };
        let imports = ["-c", "import tensorizer, torch, safetensors.torch"];
        shell::output(Command::new(python).args(imports)).map(drop)
    }

    /// Rates and CPU of those that are installed, for files of `bytes` in all; says which ones are not.
    pub(super) fn measure(&self, source: &Path, huge: &Path, bytes: f64, left_out: &mut Vec<String>) -> Result<Round> {
        note("openssl, age, gocryptfs, LUKS");
        let mut script = Command::new("bash");
        script.args(["-c", SCRIPT, "peers.sh"]).args([source, huge]);
        let mut said = shell::output(&mut in_memory(&script, huge, None))?;
        match self.tensorizer {
            Some(python) => {
                note("tensorizer");
                let mut script = Command::new(python);
                script.args(["-c", TENSORIZER]).args([source, huge]);
                said += &shell::output(&mut in_memory(&script, huge, None))?;
            }
            None => {
                said +=
                    "missing|tensorizer, encrypted|name a Python that has torch and tensorizer: --tensorizer PYTHON\n"
            }
        }
        rows_of(&said, bytes, left_out)
    }
}

/// Lines `what|seconds|user|system`, added up where there are several of one thing, and `missing|what|why`.
fn rows_of(said: &str, bytes: f64, left_out: &mut Vec<String>) -> Result<Round> {
    let mut rows = BTreeMap::<String, (f64, f64, f64)>::new();
    for line in said.lines() {
        match line.split('|').collect::<Vec<_>>().as_slice() {
            ["missing", what, why] => left_out.push(format!("{what}: {why}")),
            // How many bytes it is about, where it is not all.
            ["bytes", what, bytes] => rows.entry((*what).to_owned()).or_default().2 = bytes.parse()?,
            [what, real, user, system] => {
                let (wall, cpu, _) = rows.entry((*what).to_owned()).or_default();
                *wall += real.parse::<f64>()?;
                *cpu += user.parse::<f64>()? + system.parse::<f64>()?;
            }
            _ => return Err(format!("a line that is none: {line:?}").into()),
        }
    }
    let sample = |(wall, cpu, own): (f64, f64, f64)| {
        let gigabytes = if own > 0.0 { own } else { bytes } / 1e9;
        Sample { rate: gigabytes / wall, cpu: cpu / gigabytes, load: None }
    };
    Ok(rows.into_iter().map(|(what, seconds)| (what, sample(seconds))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_system_spends_in_its_own_process_is_added() {
        let said =
            "age|4.0|1.5|0.5\ngocryptfs|2.0|0.1|0.3\ngocryptfs|0|1600e-3|0\nmissing|openssl|apt-get install openssl\n";
        let mut left_out = Vec::new();
        let rows = rows_of(said, 2e9, &mut left_out).unwrap();
        let of = |what: &str| (rows[what].rate, rows[what].cpu);
        assert_eq!((of("age"), of("gocryptfs")), ((0.5, 1.0), (1.0, 1.0)));
        assert_eq!((rows.len(), left_out), (2, vec!["openssl: apt-get install openssl".to_owned()]));
        assert!(rows_of("age|fast", 1e9, &mut Vec::new()).is_err());
    }

    #[test]
    fn weights_alone_count_where_configuration_is_not_loaded() {
        let rows = rows_of("bytes|t|1e9\nt|2.0|1.0|0.0\n", 4e9, &mut Vec::new()).unwrap();
        assert_eq!((rows["t"].rate, rows["t"].cpu), (0.5, 1.0));
    }

    #[test]
    fn script_names_its_rows_as_they_are_shown() {
        let texts = format!("{SCRIPT}{TENSORIZER}");
        assert!(ALL.iter().all(|peer| texts.contains(peer.what)));
    }
}
