//! The machines that are refused, and the codes by which they are.

use super::{Findings, LIMIT, World, private_place};
use crate::Result;
use crate::demo::machine::{Machine, TCB, Tier};
use crate::demo::{Details, binary};
use std::fs;
use std::process::Command;

impl World {
    pub(super) fn refusals(&mut self, details: &mut Details, findings: &mut Findings) -> Result<()> {
        let mut show = |code: String, what: &str| {
            details.line(format!("{code:<30} {what}"));
            findings.refusals.push(format!("{code:<30} {what}"));
        };
        let stranger = self.stranger.arguments();
        let program = binary("xtask");
        match self.tier {
            Tier::Tpm => {
                show(self.try_load("load-stranger", &stranger)?, "a TPM that no anchor endorses");
                let changed = Machine::with_tpm(&self.place, "guest-changed", "ca", &program)?;
                let what = "a genuine TPM under another program (PCR 11)";
                show(self.try_load("load-changed", &changed.arguments())?, what);
            }
            Tier::Snp => {
                show(self.try_load("load-stranger", &stranger)?, "a TPM, where the rule asks for an SNP report");
                let changed = Machine::snp(&mut self.children, &self.place, "guest-changed", &program, TCB)?;
                show(
                    self.try_load("load-changed", &changed.arguments())?,
                    "a guest that was launched with another image",
                );
                let [bootloader, tee, snp, microcode] = TCB;
                let (name, old) = ("guest-old", [bootloader, tee, snp - 1, microcode]);
                let old = Machine::snp(&mut self.children, &self.place, name, &binary("vault-host"), old)?;
                show(self.try_load("load-old", &old.arguments())?, "the right image on older firmware");
            }
        }
        let unit = self.place.path("host").join("models").join(&self.model.name).join("1/units/00001.cob");
        let bytes = fs::read(&unit)?;
        let mut flipped = bytes.clone();
        let middle = flipped.len() / 2;
        *flipped.get_mut(middle).ok_or("the unit is empty")? ^= 1;
        fs::write(&unit, flipped)?;
        let code = self.try_load("load-flipped", &self.guest.arguments());
        fs::write(&unit, bytes)?;
        show(code?, "one bit of one unit flipped on the host");
        Ok(())
    }

    /// The exact code behind what an agent said, and the sentence with it. The agent learns a coarse code and a
    /// request id; the operator gets these.
    pub(crate) fn explained(&mut self, log: &str, said: &str) -> Result<(String, String)> {
        let id = request_id(said).ok_or_else(|| format!("{log}: no request in:\n{said}"))?;
        let explain = self.vaultctl(&["--json", "explain", &id]);
        let explained = self.children.run_ok(&format!("{log}-explain"), &explain, LIMIT)?;
        let value: serde_json::Value = serde_json::from_str(&explained.output)?;
        let code = value["code"].as_str().ok_or("explain gave no code")?.to_owned();
        Ok((code, value["message"].as_str().unwrap_or_default().to_owned()))
    }

    /// Tries a load that must be refused; the exact code.
    pub(super) fn try_load(&mut self, log: &str, machine: &[String]) -> Result<String> {
        let into = private_place();
        let mut load = Command::new(binary("vault-enclave"));
        load.arg("load").arg(format!("{}@1", self.model.name)).arg("--vault").arg(self.vault());
        load.args(machine).arg("--into").arg(&into);
        let tried = self.children.run(log, &load, LIMIT)?;
        let left = fs::read_dir(&into).is_ok_and(|mut entries| entries.next().is_some());
        // An empty directory is no secret, but it is ours.
        let _ = fs::remove_dir(&into);
        if tried.status.success() || left {
            return Err(format!("{log}: a load that had to be refused was not:\n{}", tried.output).into());
        }
        match request_id(&tried.output) {
            Some(_) => Ok(self.explained(log, &tried.output)?.0),
            None => local_code(&tried.output).ok_or_else(|| format!("{log}: no code in:\n{}", tried.output).into()),
        }
    }
}

fn request_id(output: &str) -> Option<String> {
    let words = output.split(|c: char| !c.is_ascii_alphanumeric());
    words.into_iter().find(|word| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit())).map(str::to_owned)
}

/// The code at the end of an error line: `(code)` or `[code]`.
fn local_code(output: &str) -> Option<String> {
    let line = output.lines().find(|line| line.starts_with("error:"))?.trim_end();
    let line = line.strip_suffix([')', ']'])?;
    Some(line.rsplit_once(['(', '['])?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_id_is_found_in_an_error() {
        let id = "096e05448cf394801f4c8fa29f918e86";
        assert_eq!(request_id(&format!("error: refused\n  request {id}: see")), Some(id.to_owned()));
        assert_eq!(request_id(&format!("sha256:{id}{id}")), None);
    }

    #[test]
    fn code_of_a_local_error_is_found() {
        assert_eq!(local_code("x\nerror: a unit is not what was sealed [chunk-tag]\n"), Some("chunk-tag".into()));
        assert_eq!(local_code("error: sealed unit 1 (chunk-refused)\n"), Some("chunk-refused".into()));
        assert_eq!(local_code("error: no code\n"), None);
    }
}
