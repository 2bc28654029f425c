//! What a person reads when a model is there: what was attested, what that is worth, and what it cost.

use std::path::Path;

use attestation::Trust;
use ledger::entry::Machine;

use super::child::Held;

/// Below this share of huge pages a load is slower than it could be.
const HUGE_PERCENT_MIN: u128 = 50;
/// Small models have parts of huge pages at the end of each file.
const HUGE_LOOK_BYTES: u64 = 64 << 20;

/// Says it on stderr.
pub(super) fn loaded(held: &Held, into: &Path) {
    for line in lines(held, into) {
        eprintln!("{line}");
    }
}

fn lines(held: &Held, into: &Path) -> Vec<String> {
    let (release, loaded) = (&held.release, &held.loaded);
    let gigabytes = loaded.bytes as f64 / 1e9;
    let (rate, cpu) = (gigabytes / loaded.seconds.max(f64::EPSILON), loaded.cpu_seconds / gigabytes.max(f64::EPSILON));
    let percent = u128::from(loaded.huge_bytes) * 100 / u128::from(loaded.bytes.max(1));
    let pages = if loaded.huge { format!(", {percent} % in huge pages") } else { String::new() };
    let mut lines = vec![
        format!(
            "attested  {} {} under rule {}: {}",
            machine(&release.machine),
            release.platform,
            release.rule,
            tier(release.tier)
        ),
        format!(
            "released  {}@{}, {} units; log entry {}, proven in the vault's log by {}",
            release.model, release.version, release.units.count, held.index, loaded.host
        ),
        format!(
            "opened    {} files, {} bytes in {:.2} s, {rate:.2} GB/s, {cpu:.3} CPU s/GB, into {} ({}{pages})",
            loaded.files,
            loaded.bytes,
            loaded.seconds,
            into.display(),
            loaded.place
        ),
        timing(held),
        format!(
            "lease     {} s, renewed from a third of it on; when it is lost: {}",
            held.statement.renew_by.seconds().saturating_sub(held.statement.issued.seconds()),
            held.statement.lease_end
        ),
        format!("note      {}", worth(&release.machine)),
    ];
    if loaded.sources.len() > 1 {
        lines.push(format!("sources   {}", loaded.sources.join("; ")));
    }
    if loaded.huge && percent < HUGE_PERCENT_MIN && loaded.bytes >= HUGE_LOOK_BYTES {
        lines.push(
            "note      the kernel had few huge pages to give, and small ones cost several times as much as to decrypt into \
             them: memory is short or in pieces (echo 1 > /proc/sys/vm/compact_memory)"
                .to_owned(),
        );
    }
    if !loaded.huge {
        lines.push(
            "note      small pages, which cost several times as much as to decrypt into them; a tmpfs mounted with \
             huge=within_size has huge ones"
                .to_owned(),
        );
    }
    if loaded.insecure {
        lines.push("WARNING   plaintext may reach a disk here, and stay there after it is wiped".to_owned());
    }
    lines
}

/// From the start of the loader on: what a cold start waits for.
fn timing(held: &Held) -> String {
    let times = &held.loaded.times;
    let after = |time| held.began.until(time).as_secs_f64();
    let first =
        times.first.map_or_else(String::new, |first| format!("first weights opened after {:.2} s, ", after(first)));
    format!(
        "timing    keys after {:.2} s, {first}first tensor to be read after {:.2} s",
        after(times.keys),
        after(times.all)
    )
}

fn machine(machine: &Machine) -> &'static str {
    match machine {
        Machine::Tpm(_) => "TPM",
        Machine::Snp { .. } => "SNP guest on",
        Machine::SnpVtpm { .. } => "SNP guest with a vTPM, on",
    }
}

/// What the proof does not show.
fn worth(machine: &Machine) -> &'static str {
    match machine {
        Machine::Tpm(_) => "the proof is `tpm` alone: root on this machine can read the weights",
        Machine::Snp { .. } | Machine::SnpVtpm { .. } => {
            "the proof is `snp`: the host's root can't read the weights; whoever is root in this guest can"
        }
    }
}

fn tier(tier: Trust) -> &'static str {
    match tier {
        Trust::Emulated => "EMULATED. Software in the place of hardware proves nothing: whoever runs it has its keys",
        Trust::Hardware => "hardware",
    }
}
