//! What a person reads when a model is there: what was attested, what that is worth, and what it cost.

use std::path::Path;

use attestation::Trust;

use super::child::Held;

/// Says it on stderr.
pub(super) fn loaded(held: &Held, into: &Path) {
    for line in lines(held, into) {
        eprintln!("{line}");
    }
}

fn lines(held: &Held, into: &Path) -> Vec<String> {
    let (release, loaded) = (&held.release, &held.loaded);
    let rate = loaded.bytes as f64 / loaded.seconds.max(f64::EPSILON) / 1e9;
    let pages = if loaded.huge { ", huge pages" } else { "" };
    let mut lines = vec![
        format!("attested  TPM {} under rule {}: {}", release.platform, release.rule, tier(release.tier)),
        format!(
            "released  {}@{}, {} units; log entry {}, proven in the vault's log by {}",
            release.model, release.version, release.units.count, loaded.index, loaded.host
        ),
        format!(
            "opened    {} files, {} bytes in {:.2} s, {rate:.2} GB/s, into {} ({}{pages})",
            loaded.files,
            loaded.bytes,
            loaded.seconds,
            into.display(),
            loaded.place
        ),
        format!(
            "lease     {} s, renewed from a third of it on; when it is lost: {}",
            held.statement.renew_by.seconds().saturating_sub(held.statement.issued.seconds()),
            held.statement.lease_end
        ),
        "note      the proof is `tpm` alone: root on this machine can read the weights".to_owned(),
    ];
    if loaded.insecure {
        lines.push("WARNING   plaintext may reach a disk here, and stay there after it is wiped".to_owned());
    }
    lines
}

fn tier(tier: Trust) -> &'static str {
    match tier {
        Trust::Emulated => "EMULATED. A software TPM proves nothing: whoever runs it has its keys",
        Trust::Hardware => "hardware",
    }
}
