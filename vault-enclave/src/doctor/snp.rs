//! SEV-SNP: which device gives reports, and why the others do not.

use super::Check;
use crate::snp::{SnpChoice, SnpDeviceKind, Unusable, probe};
use crate::tpm::Tpm;

/// Looks at each device that was chosen. That a machine is no SNP guest is not wrong; that a device was named and is not
/// usable is.
pub(super) fn checks(choice: &SnpChoice, tpm: Option<&Tpm>) -> Vec<Check> {
    let found = probe(choice, tpm).map(|(kind, found)| (kind, found.map(drop))).collect();
    report(matches!(choice, SnpChoice::Auto), found)
}

fn report(looked_for: bool, found: Vec<(SnpDeviceKind, Result<(), Unusable>)>) -> Vec<Check> {
    let mut chosen = false;
    let any = found.iter().any(|(_, found)| found.is_ok());
    let check = |(kind, found): (SnpDeviceKind, Result<(), Unusable>)| {
        let name = format!("snp {kind}");
        match found {
            Ok(()) if chosen => Check::ok(name, "usable; one before it is preferred"),
            Ok(()) => {
                chosen = true;
                Check::ok(name, usable(kind))
            }
            Err(reason) => {
                let text = format!("{reason} ({})", reason.code());
                match (any, looked_for) {
                    (true, _) => Check::ok(name, format_args!("not usable, and not needed: {text}")),
                    (false, true) => Check::warn(name, format_args!("not usable: {text}"), reason.fix()),
                    (false, false) => Check::fail(name, format_args!("not usable: {text}"), reason.fix()),
                }
            }
        }
    };
    found.into_iter().map(check).collect()
}

const fn usable(kind: SnpDeviceKind) -> &'static str {
    match kind {
        SnpDeviceKind::ConfigfsTsm | SnpDeviceKind::SevGuest => "gives reports",
        SnpDeviceKind::AzureVtpm => "gives the report of an Azure confidential VM; it has no derived keys",
        SnpDeviceKind::Soft => "gives reports of a soft platform: EMULATED, and its derived keys protect nothing",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    const ABSENT: Result<(), Unusable> = Err(Unusable::DriverAbsent("/dev/sev-guest"));

    fn levels(checks: &[Check]) -> Vec<Level> {
        checks.iter().map(|check| check.level).collect()
    }

    #[test]
    fn a_machine_without_snp_is_warned_about_and_a_named_device_that_is_not_usable_fails() {
        let none = || vec![(SnpDeviceKind::ConfigfsTsm, ABSENT), (SnpDeviceKind::SevGuest, ABSENT)];
        let checks = report(true, none());
        assert_eq!(levels(&checks), [Level::Warn, Level::Warn]);
        assert!(checks[1].found.contains("snp-driver-absent"), "{}", checks[1].found);
        assert!(checks[1].fix.as_deref().unwrap_or_default().contains("modprobe sev-guest"));
        assert_eq!(levels(&report(false, none())), [Level::Fail, Level::Fail]);
    }

    #[test]
    fn the_first_usable_device_is_the_one_and_the_others_need_no_fix() {
        let found = [
            (SnpDeviceKind::ConfigfsTsm, ABSENT),
            (SnpDeviceKind::SevGuest, Ok(())),
            (SnpDeviceKind::AzureVtpm, Ok(())),
        ];
        let checks = report(true, found.into());
        assert_eq!(levels(&checks), [Level::Ok; 3]);
        assert_eq!(checks[1].found, "gives reports");
        assert!(checks[2].found.contains("preferred"));
        let soft = report(false, vec![(SnpDeviceKind::Soft, Ok(()))]);
        assert!(soft[0].found.contains("EMULATED"));
    }

    #[test]
    fn a_soft_device_that_is_not_there_fails_with_what_to_do() {
        let checks = checks(&SnpChoice::Soft("/nonexistent".into()), None);
        assert_eq!(levels(&checks), [Level::Fail]);
        assert!(checks[0].fix.as_deref().unwrap_or_default().contains("/nonexistent/report"));
    }
}
