//! An event log beside a quote: believed only where it leads to what was quoted.

use attestation::{EventLog, EventLogError, ReplayedLog, Sha256Digest, verify_tpm};

use crate::common::eventlog::{Boot, ROOT_HASH};
use crate::common::tpm::SoftTpm;
use crate::scene::{Scene, bind, selection};

const PCRS: [u32; 4] = [0, 4, 7, 9];

fn replayed(log: &[u8]) -> ReplayedLog<'_> {
    EventLog::parse(log).unwrap().replay()
}

/// The log beside evidence of a TPM that measured `boot`.
fn beside(boot: &Boot, log: &[u8], pcrs: &[u32]) -> Result<attestation::MeasuredLog, EventLogError> {
    let mut tpm = SoftTpm::ecc();
    tpm.pcrs = boot.pcrs();
    let scene = Scene::new(tpm);
    let endorsed = scene.endorsed();
    let quote = scene.tpm.quote(&scene.identity, &PCRS, &bind(endorsed.ak().name()).tpm_extra_data());
    let verified = verify_tpm(quote, &endorsed, bind(endorsed.ak().name()), &selection(&PCRS)).unwrap();
    assert!(verified.claims().quote().unwrap().boot().is_none());
    let verified = verified.with_event_log(replayed(log), &selection(pcrs))?;
    Ok(verified.claims().quote().unwrap().boot().unwrap().clone())
}

#[test]
fn log_of_the_quoted_boot_answers() {
    let boot = Boot::default();
    let measured = beside(&boot, &boot.log(), &[4, 7, 9]).unwrap();
    assert_eq!(measured.secure_boot(), Ok(()));
    assert_eq!(measured.boot_applications(), Ok(vec![Sha256Digest::of(b"kernel")]));
    let line = measured.kernel_command_line(&boot.options, &[Sha256Digest::of(b"initrd")]).unwrap();
    assert_eq!(line.verity_root_hashes()[0].hex, ROOT_HASH);
    assert_eq!(measured.digests(9).unwrap()[1], *Sha256Digest::of(b"initrd").as_bytes());
    assert_eq!(measured.digests(0), Err(EventLogError::PcrNotMeasured { pcr: 0 }));
}

#[test]
fn log_of_another_boot_or_of_pcrs_that_were_not_quoted_is_refused() {
    let boot = Boot::default();
    let other = |change: fn(&mut Boot)| {
        let mut other = Boot::default();
        change(&mut other);
        beside(&boot, &other.log(), &PCRS).err()
    };
    let mismatch = |pcr| Some(EventLogError::ReplayMismatch { pcr });
    assert_eq!(other(|boot| boot.firmware = "1.1"), mismatch(0));
    assert_eq!(other(|boot| boot.image = b"other"), mismatch(4));
    assert_eq!(other(|boot| boot.secure_boot = false), mismatch(7));
    assert_eq!(other(|boot| boot.options.push('x')), mismatch(9));
    assert_eq!(beside(&boot, &boot.log(), &[4, 5]).err(), Some(EventLogError::PcrNotQuoted { pcr: 5 }));
}
