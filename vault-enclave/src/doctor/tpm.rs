//! The TPM.

use std::collections::BTreeMap;

use attestation::PcrSelection;

use super::Check;
use crate::ek_args::EkArgs;
use crate::evidence_cmd::tpm_failure;
use crate::failure::Failure;
use crate::tpm::{TctiConfig, Tpm, TpmError, TpmProperties};

/// PCRs that firmware and boot loader measure into.
const BOOT_PCRS: [u32; 3] = [0, 4, 7];

/// What a TPM has to show, for the checks of a vault's policy.
pub(super) struct Seen {
    pub(super) tpm: Tpm,
    pub(super) ek_certificates: Vec<Vec<u8>>,
}

/// Asks the TPM. It comes back where it answers, whether or not it has an EK certificate.
pub(super) fn checks(tcti: &str, ek: &EkArgs) -> (Vec<Check>, Option<Tpm>, Option<Seen>) {
    let opened = tcti.parse::<TctiConfig>().map_err(Failure::from);
    let opened = opened.and_then(|config| ek.apply(config));
    let opened = opened.and_then(|config| Tpm::open(config).map_err(|error| tpm_failure(error, tcti)));
    let tpm = match opened {
        Ok(tpm) => tpm,
        Err(failure) => return (vec![Check::failure("tpm", &failure)], None, None),
    };
    let failed = |check: &str, error: TpmError| Check::failure(check, &tpm_failure(error, tcti));
    let mut checks = match tpm.properties().wait() {
        Ok(properties) => vec![
            Check::ok("tpm", format_args!("{tcti}, {} {}", properties.manufacturer, properties.vendor)),
            lockout(&properties),
        ],
        Err(error) => vec![failed("tpm", error)],
    };
    match PcrSelection::try_from(&BOOT_PCRS[..]).map(|pcrs| tpm.read_pcrs(pcrs).wait()) {
        Ok(Ok(values)) => checks.push(measured(&values.iter().map(|(index, value)| (index, *value)).collect())),
        Ok(Err(error)) => checks.push(failed("pcrs", error)),
        Err(error) => checks.push(Check::fail("pcrs", error, "report this")),
    }
    match tpm.ek_certificates().wait() {
        Ok(ek_certificates) => {
            checks.push(Check::ok("ek certificate", "the TPM holds one; `vault-enclave evidence` shows it"));
            (checks, Some(tpm.clone()), Some(Seen { tpm, ek_certificates }))
        }
        Err(error) => {
            checks.push(failed("ek certificate", error));
            (checks, Some(tpm), None)
        }
    }
}

fn lockout(properties: &TpmProperties) -> Check {
    const CLEAR: &str = "tpm2_dictionarylockout --clear-lockout, and find out who tries wrong passwords";
    let TpmProperties { lockout_counter: counter, lockout_max: max, .. } = *properties;
    let found = format!("{counter} of {max} failed tries");
    match counter {
        0 => Check::ok("tpm lockout", found),
        counter if counter >= max => Check::fail("tpm lockout", found, CLEAR),
        _ => Check::warn("tpm lockout", found, CLEAR),
    }
}

fn measured(values: &BTreeMap<u32, [u8; 32]>) -> Check {
    let empty: Vec<u32> = values.iter().filter(|(_, value)| **value == [0; 32]).map(|(index, _)| *index).collect();
    if empty.is_empty() {
        return Check::ok("pcrs", "the boot was measured");
    }
    Check::warn(
        "pcrs",
        format_args!("PCRs {empty:?} are zero: this boot was not measured into them"),
        "boot by UEFI with the TPM on; a policy whose PCRs are all zero is refused",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn lockout_is_told_before_it_comes() {
        let level = |lockout_counter| {
            let (manufacturer, vendor) = (String::new(), String::new());
            lockout(&TpmProperties { manufacturer, vendor, firmware_version: 0, lockout_counter, lockout_max: 3 }).level
        };
        assert_eq!([0, 1, 3].map(level), [Level::Ok, Level::Warn, Level::Fail]);
    }

    #[test]
    fn a_boot_that_was_not_measured_is_a_warning() {
        assert_eq!(measured(&[(0, [1; 32])].into()).level, Level::Ok);
        let check = measured(&[(0, [1; 32]), (7, [0; 32])].into());
        assert_eq!(check.level, Level::Warn);
        assert!(check.found.contains("[7]"));
    }

    #[test]
    fn no_tpm_is_one_failure_with_its_fix() {
        for tcti in ["device:/nonexistent/tpm", "nonsense"] {
            let (checks, tpm, seen) = checks(tcti, &EkArgs::default());
            assert!(tpm.is_none() && seen.is_none());
            assert_eq!(checks.iter().map(|check| check.level).collect::<Vec<_>>(), [Level::Fail], "{tcti}");
        }
    }
}
