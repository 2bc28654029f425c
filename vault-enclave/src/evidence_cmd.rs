//! `vault-enclave evidence`: what this machine would send, for the people who write its policy.

mod certificate;
mod report;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use attestation::{AttestationKey, EkPublic, Evidence, PcrSelection, Sha256Digest, TpmIdentity};
use ring::rand::{SecureRandom, SystemRandom};
use vault_proto::convert::EvidenceSet;

use crate::agent::event_log::{EVENT_LOG, read_event_log};
use crate::ek_args::EkArgs;
use crate::failure::{Failure, Kind};
use crate::tpm::{TctiConfig, Tpm, TpmError, silence_libtss2};
use certificate::CertificateReport;
use report::{AkReport, EkReport, Report};

/// Options of `vault-enclave evidence`.
#[derive(Debug, clap::Args)]
pub struct EvidenceArgs {
    /// The TPM: `device:/dev/tpmrm0`, or `swtpm:host=127.0.0.1,port=2321`.
    #[arg(long, default_value = "device:/dev/tpmrm0", env = "WEIGHTVAULT_TPM", value_name = "TCTI")]
    tpm: String,
    #[command(flatten)]
    ek: EkArgs,
    /// Which PCRs to quote, SHA-256 bank.
    #[arg(long, value_delimiter = ',', default_value = "0,2,4,7,9,11", value_name = "LIST")]
    pcrs: Vec<u32>,
    /// The event log of this boot: it goes into the evidence set where it can be read.
    #[arg(long, value_name = "FILE", default_value = EVENT_LOG, env = "WEIGHTVAULT_EVENT_LOG")]
    event_log: PathBuf,
    /// Write the evidence set here, as `vaultctl evidence show` reads it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// JSON on standard output, a failure as JSON on standard error.
    #[arg(long)]
    json: bool,
}

/// `vault-enclave evidence`.
#[must_use]
pub fn run(args: &EvidenceArgs) -> ExitCode {
    match show(args) {
        Ok(report) => {
            report.print(args.json);
            ExitCode::SUCCESS
        }
        Err(failure) => failure.report(args.json),
    }
}

fn show(args: &EvidenceArgs) -> Result<Report, Failure> {
    silence_libtss2().map_err(|error| Failure::file("start", Path::new("/proc/self/exe"), &error))?;
    let selection = selection(&args.pcrs)?;
    let nonce = nonce()?;
    let failed = |error| tpm_failure(error, &args.tpm);
    let tpm = Tpm::open(args.ek.apply(args.tpm.parse::<TctiConfig>()?)?).map_err(failed)?;
    let properties = tpm.properties().wait().map_err(failed)?;
    let ek_certificates = match tpm.ek_certificates().wait() {
        Err(TpmError::EkCertificateMissing) => Vec::new(),
        read => read.map_err(failed)?,
    };
    let ek_public = tpm.ek_public().wait().map_err(failed)?;
    let ek = EkPublic::parse(&ek_public).map_err(|error| Failure::new(Kind::Failed, error.code(), error))?;
    // One of this call alone: the agent makes another for each of its runs.
    let ak = tpm.create_ak().wait().map_err(failed)?;
    let quote = tpm.quote(&ak, nonce, selection).wait().map_err(failed)?;
    let clock = quote.clock;
    let certificates = ek_certificates.iter().map(|der| CertificateReport::read(der)).collect::<Result<_, _>>()?;
    let accepted = AttestationKey::parse(&ak.public).map(drop);
    // As an agent sends it: a certificate has the key.
    let sent = if ek_certificates.is_empty() { ek_public.clone() } else { Vec::new() };
    let identity = TpmIdentity { ek_certificates, ek_public: sent, ak_public: ak.public.clone() };
    let quote = quote.into_evidence(identity);
    let event_log = event_log(&args.event_log)?;
    let log_bytes = event_log.as_ref().map(Vec::len);
    let evidence = EvidenceSet { evidence: Evidence::Tpm(quote.clone()), event_log };
    let blob = evidence.blob();
    if let Some(out) = &args.out {
        write_new(out, &blob)?;
    }
    Ok(Report::new(
        properties,
        EkReport::new(&ek, &ek_public),
        certificates,
        AkReport::new(&ak, accepted),
        &quote,
        clock,
        nonce,
        Sha256Digest::of(&blob),
        args.out.as_deref(),
        log_bytes,
    ))
}

/// The log where Linux has it may be missing; one that was named has to be there.
fn event_log(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match read_event_log(path) {
        Ok(log) => Ok(Some(log)),
        Err(_) if path == Path::new(EVENT_LOG) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn selection(pcrs: &[u32]) -> Result<PcrSelection, Failure> {
    let mut sorted = pcrs.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    PcrSelection::try_from(sorted.as_slice()).map_err(|error| {
        Failure::new(Kind::Usage, "pcrs", format!("--pcrs: {error}"))
            .next("give indices from 0 to 23, as in --pcrs 0,7,11")
    })
}

fn nonce() -> Result<[u8; 32], Failure> {
    let mut nonce = [0; 32];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| Failure::new(Kind::Failed, "randomness", "the system gives no random numbers"))?;
    Ok(nonce)
}

/// What a TPM did not do, with the fix.
pub(crate) fn tpm_failure(error: TpmError, tpm: &str) -> Failure {
    let next = match &error {
        TpmError::Unavailable(_) => unavailable_fix(tpm),
        TpmError::InUse { .. } => "name another TPM with --tpm, or try again when that process has ended".to_owned(),
        TpmError::Lockout => {
            "wait until the TPM recovers, or clear it: tpm2_dictionarylockout --clear-lockout".to_owned()
        }
        TpmError::EkCertificateMissing | TpmError::EkCertificateMalformed => {
            "see whether the machine's vendor delivers one, or whether `--ek` names a key that has one; for a software TPM \
             make one with `cargo xtask swtpm`. A guest without one can be enrolled: `vaultctl platform add`"
                .to_owned()
        }
        TpmError::EkCertificateOtherKey => {
            "use another endorsement key with --ek, or have the vendor's certificate written to the TPM again".to_owned()
        }
        TpmError::HierarchyAuth => "give the owner and endorsement hierarchies empty passwords again".to_owned(),
        _ => "`vault-enclave doctor` looks at this machine".to_owned(),
    };
    Failure::from(error).next(next)
}

fn unavailable_fix(tpm: &str) -> String {
    match tpm.strip_prefix("device:") {
        Some(path) if Path::new(path).exists() => {
            format!("let this user open {path}: sudo usermod -aG tss $USER, then log in again (or run as root)")
        }
        Some(path) => format!(
            "there is no {path}: turn the TPM on in the firmware, or give the virtual machine one; `--tpm` names another"
        ),
        None => "start the software TPM, or name another TPM with --tpm".to_owned(),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| Failure::file("write", path, &error).next("name a file that is not there yet with --out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcrs_are_taken_in_any_order_and_refused_by_their_range() {
        assert_eq!(selection(&[11, 0, 7, 0]).unwrap().iter().collect::<Vec<_>>(), [0, 7, 11]);
        for wrong in [&[][..], &[24]] {
            assert_eq!(selection(wrong).err().map(|failure| failure.code().to_owned()).as_deref(), Some("pcrs"));
        }
    }

    #[test]
    fn a_tpm_that_is_not_there_says_what_to_do() {
        let fix =
            |tpm| tpm_failure(TpmError::Unavailable(String::new()), tpm).next_step().unwrap_or_default().to_owned();
        assert!(fix("device:/nonexistent/tpm").contains("turn the TPM on"));
        assert!(fix("device:/dev/null").contains("usermod -aG tss"));
        assert!(fix("swtpm:host=127.0.0.1,port=1").contains("software TPM"));
    }

    #[test]
    fn a_file_that_is_there_is_not_replaced() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(
            write_new(file.path(), b"x").err().map(|failure| failure.code().to_owned()).as_deref(),
            Some("file")
        );
    }
}
