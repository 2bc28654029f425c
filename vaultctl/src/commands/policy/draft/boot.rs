//! What a log says that led to the quote, as a rule that allows exactly this.

use attestation::{EventLog, EventLogError, MeasuredLog, PcrSelection, Sha256Digest};
use ledger::names::Name;

use crate::captured::QuoteHolds;

/// A boot, as far as the quoted PCRs show it.
pub(super) struct BootSource {
    secure_boot: bool,
    images: Option<Vec<Sha256Digest>>,
    command_line: Option<(String, Vec<Sha256Digest>, Vec<String>)>,
}

impl BootSource {
    /// Of a log and the quote that it led to. `command_line` is the text that the kernel got: the log has its digest alone.
    ///
    /// # Errors
    /// What is wrong with the log; [`EventLogError::CommandLineMismatch`] where it shows another command line.
    pub(super) fn of(log: &[u8], quote: &QuoteHolds, command_line: Option<&str>) -> Result<Self, EventLogError> {
        let answers: Vec<u32> = [4, 7, 9].into_iter().filter(|pcr| quote.state.pcrs.contains_key(pcr)).collect();
        let pcrs = PcrSelection::try_from(answers.as_slice()).map_err(|_| EventLogError::PcrNotQuoted { pcr: 7 })?;
        let log: MeasuredLog = EventLog::parse(log)?.replay().against_captured(&quote.state, &pcrs)?;
        let secure_boot = log.secure_boot().is_ok();
        let images = if pcrs.contains(4) { Some(log.boot_applications()?) } else { None };
        let command_line = match command_line {
            None => None,
            Some(text) => {
                let initrds: Vec<Sha256Digest> =
                    log.digests(9)?.into_iter().skip(1).map(Sha256Digest::from_bytes).collect();
                let line = log.kernel_command_line(text, &initrds)?;
                let roots = line.verity_root_hashes().into_iter().map(|root| root.hex).collect();
                Some((line.text().to_owned(), initrds, roots))
            }
        };
        Ok(Self { secure_boot, images, command_line })
    }

    /// `[release.NAME.boot]`, which comes after the PCRs: these stay pinned until somebody writes `"any"`.
    pub(super) fn render(&self, rule: &Name) -> Vec<String> {
        let images = self.images.as_deref().filter(|images| !images.is_empty());
        // Where PCR 4 was not quoted any kernel could have measured this command line.
        let command_line = self.command_line.as_ref().filter(|_| self.images.is_some());
        if !self.secure_boot && images.is_none() && command_line.is_none() {
            return vec![
                "# No rule on events: the quoted PCRs show neither secure boot nor what was started.".to_owned(),
            ];
        }
        let mut lines = vec![
            "# Each of these pins a PCR by its events: 7, 4 and 9. Only where a PCR changes for good reasons write \"any\" for it"
                .to_owned(),
            "# above; the events are then all that is asked of it.".to_owned(),
            format!("[release.{rule}.boot]"),
        ];
        lines.push(match self.secure_boot {
            true => "secure_boot = true".to_owned(),
            false => "secure_boot = false          # seen: off, or not shown".to_owned(),
        });
        lines.push(
            images.map_or_else(|| "images = \"any\"".to_owned(), |images| format!("images = [{}]", list(images))),
        );
        match command_line {
            None if self.command_line.is_some() => lines.push(
                "command_lines = \"any\"        # quote PCR 4 too: without it any kernel could have measured this one"
                    .to_owned(),
            ),
            None => lines.push(
                "command_lines = \"any\"        # --command-line TEXT writes it: a log has no more than its digest"
                    .to_owned(),
            ),
            Some((text, initrds, roots)) => {
                lines.push(format!("command_lines = [{}]", toml_text(text)));
                lines.push(match initrds.is_empty() {
                    true => "initrds = \"none\"".to_owned(),
                    false => format!("initrds = [{}]", list(&unique(initrds))),
                });
                let roots: Vec<String> = unique(roots).iter().map(|root| toml_text(root)).collect();
                lines.push(match roots.is_empty() {
                    true => "verity_root_hashes = \"any\"   # seen: none".to_owned(),
                    false => format!("verity_root_hashes = [{}]", roots.join(", ")),
                });
            }
        }
        lines
    }
}

/// What JSON escapes, TOML escapes alike.
fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list(digests: &[Sha256Digest]) -> String {
    let digests: Vec<String> = unique(digests).iter().map(|digest| format!("\"{digest}\"")).collect();
    digests.join(", ")
}

/// In their order; a policy takes nothing twice.
fn unique<T: PartialEq + Clone>(items: &[T]) -> Vec<T> {
    let mut unique: Vec<T> = Vec::new();
    for item in items {
        if !unique.contains(item) {
            unique.push(item.clone());
        }
    }
    unique
}
