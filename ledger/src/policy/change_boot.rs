//! The difference between two `boot` sections in words.

use super::boot::{BootRule, CommandLines, SecureBoot};
use super::change::Changes;
use super::rules::Permitted;

/// A new section.
pub(super) fn in_words(rule: &BootRule) -> String {
    let secure_boot = rule.secure_boot == SecureBoot::Required;
    let lines = rule.command_lines.as_ref().map_or_else(|| "any".to_owned(), lines_of);
    format!("boot: secure_boot = {secure_boot}, images {}, command lines {lines}", rule.images)
}

impl Changes {
    pub(super) fn boot(&mut self, key: &str, old: Option<&BootRule>, new: Option<&BootRule>) {
        let (old, new) = match (old, new) {
            (Some(old), Some(new)) => (old, new),
            (Some(_), None) => return self.looser(format!("{key} is gone: no event of the boot is checked")),
            (None, Some(new)) => return self.stricter(format!("{key} is new: {}", in_words(new))),
            (None, None) => return,
        };
        match (old.secure_boot, new.secure_boot) {
            (SecureBoot::Required, SecureBoot::NotAsked) => {
                self.looser(format!("{key} no longer asks for secure boot"))
            }
            (SecureBoot::NotAsked, SecureBoot::Required) => self.stricter(format!("{key} asks for secure boot")),
            (SecureBoot::Required, SecureBoot::Required) | (SecureBoot::NotAsked, SecureBoot::NotAsked) => {}
        }
        self.permitted(&format!("{key}.images"), &old.images, &new.images);
        match (&old.command_lines, &new.command_lines) {
            (Some(before), Some(after)) => self.command_lines(key, before, after),
            (Some(before), None) => {
                self.looser(format!("{key}.command_lines is any, before {}", lines_of(before)));
            }
            (None, Some(after)) => {
                self.stricter(format!("{key}.command_lines is {}, before any", lines_of(after)));
            }
            (None, None) => {}
        }
    }

    fn command_lines(&mut self, key: &str, old: &CommandLines, new: &CommandLines) {
        let only = |lines: &CommandLines| Permitted::Only(lines.lines.iter().map(|line| format!("{line:?}")).collect());
        self.permitted(&format!("{key}.command_lines"), &only(old), &only(new));
        self.permitted(
            &format!("{key}.initrds"),
            &Permitted::Only(old.initrds.clone()),
            &Permitted::Only(new.initrds.clone()),
        );
        let roots = |lines: &CommandLines| match &lines.verity_root_hashes {
            Some(roots) => Permitted::Only(roots.clone()),
            None => Permitted::Any,
        };
        self.permitted(&format!("{key}.verity_root_hashes"), &roots(old), &roots(new));
    }
}

/// The initrds too: where PCR 9 had values before, these are all that stands in their place.
fn lines_of(CommandLines { lines, initrds, .. }: &CommandLines) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("{line:?}")).collect();
    let initrds: Vec<String> = initrds.iter().map(ToString::to_string).collect();
    let initrds = if initrds.is_empty() { "none".to_owned() } else { initrds.join(", ") };
    format!("{}, initrds {initrds}", lines.join(", "))
}
