//! What the keeper's root is sealed to.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use vault_proto::convert::KeeperSealing;

/// The boot state that the keeper is on, and the one to come.
#[derive(Debug, Serialize)]
pub(super) struct SealingLine {
    present: BTreeMap<u32, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<NextLine>,
}

#[derive(Debug, Serialize)]
struct NextLine {
    pcrs: BTreeMap<u32, String>,
    changed: Vec<u32>,
    written: bool,
}

impl From<KeeperSealing> for SealingLine {
    fn from(sealing: KeeperSealing) -> Self {
        let in_hex = |pcrs: &BTreeMap<u32, [u8; 32]>| {
            pcrs.iter().map(|(index, value)| (*index, hex::encode(value))).collect::<BTreeMap<_, _>>()
        };
        let next = sealing.next.map(|next| NextLine {
            pcrs: in_hex(&next.pcrs),
            changed: next
                .pcrs
                .iter()
                .filter(|(i, value)| sealing.present.get(*i) != Some(*value))
                .map(|(i, _)| *i)
                .collect(),
            written: next.written,
        });
        Self { present: in_hex(&sealing.present), next }
    }
}

impl fmt::Display for SealingLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pcrs: Vec<String> = self.present.keys().map(ToString::to_string).collect();
        writeln!(f, "sealed to: what this machine booted, in PCRs {}", pcrs.join(", "))?;
        let Some(next) = &self.next else { return Ok(()) };
        writeln!(f, "  and to:  what an approved reseal names, which differs in")?;
        for index in &next.changed {
            let value = next.pcrs.get(index).map_or("", String::as_str);
            writeln!(f, "           PCR {index:2} {value}")?;
        }
        match next.written {
            true => writeln!(f, "           the record is written: a reboot into either opens the vault"),
            false => writeln!(f, "           NOT WRITTEN YET: do not reboot into it; the keeper's log says why"),
        }
    }
}
