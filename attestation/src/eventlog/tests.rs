//! One thing changed in a good log gives its own refusal.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::content::*;
use super::testlog::{BANKS, Entry, entry, event, good, header, opaque, spec_id, variable_data, write};
use super::{EVENT_LOG_BYTES_MAX, EVENTS_MAX, EventLog, MeasuredLog};
use crate::encoding::Sha256Digest;
use crate::error::EventLogError;
use crate::tpm::PcrSelection;

fn refusal(bytes: &[u8]) -> EventLogError {
    EventLog::parse(bytes).unwrap_err()
}

fn with(change: impl FnOnce(&mut Vec<Entry>)) -> Vec<u8> {
    let mut entries = good();
    change(&mut entries);
    write(&entries)
}

fn values(bytes: &[u8]) -> BTreeMap<u32, [u8; 32]> {
    EventLog::parse(bytes).unwrap().replay().sha256().collect()
}

/// The log against PCRs that it leads to itself.
fn measured(bytes: &[u8]) -> MeasuredLog {
    let pcrs = PcrSelection::try_from([4, 7, 9].as_slice()).unwrap();
    EventLog::parse(bytes).unwrap().replay().against_values(&values(bytes), &pcrs).unwrap()
}

#[test]
fn good_log_is_read_with_its_content() {
    let bytes = write(&good());
    let log = EventLog::parse(&bytes).unwrap();
    assert_eq!((log.events().len(), log.locality, log.banks().len()), (12, 3, 2));
    let Content::Variable(variable) = log.events()[3].content() else { panic!() };
    assert_eq!((variable.name_text().as_str(), variable.value), ("SecureBoot", [1].as_slice()));
    assert_eq!(log.events()[5].measured(), Some([0, 0].as_slice()));
    assert_eq!(log.events()[8].measured(), None);
    assert_eq!(log.events()[11].measured(), Some(b"set a".as_slice()));
    assert_eq!(*log.events()[9].content(), Content::Tag { id: 0x8f3b_22ed, label: b"\0" });
    for end in [[0; 9], [0xff; 9]] {
        assert_eq!(EventLog::parse(&[bytes.as_slice(), &end].concat()).unwrap().events().len(), 12);
    }
}

#[test]
fn header_with_one_thing_wrong_is_refused_for_that() {
    let mut legacy = write(&good());
    legacy[4] = 8;
    assert_eq!(refusal(&legacy), EventLogError::LegacySha1);
    assert_eq!(refusal(&header(b"Spec ID Event02\0aaaaaaaaa")), EventLogError::LegacySha1);
    assert_eq!(refusal(&header(b"StartupLocality\0\0")), EventLogError::SpecIdMissing);
    assert_eq!(refusal(&spec_id(&[])), EventLogError::AlgorithmCount { found: 0 });
    assert_eq!(refusal(&spec_id(&[(0xb, 32); 9])), EventLogError::AlgorithmCount { found: 9 });
    assert_eq!(refusal(&spec_id(&[(0xb, 32), (0xb, 32)])), EventLogError::AlgorithmRepeated { id: 0xb });
    assert_eq!(refusal(&spec_id(&[(0xb, 20)])), EventLogError::AlgorithmSize { id: 0xb });
    assert_eq!(refusal(&spec_id(&[(4, 20)])), EventLogError::NoSha256);
    let mut wrong_pcr = spec_id(&BANKS);
    wrong_pcr[0] = 1;
    assert_eq!(refusal(&wrong_pcr), EventLogError::SpecIdMalformed);
    assert_eq!(refusal(&header(b"Spec ID Event03\0")), EventLogError::SpecIdMalformed);
    assert_eq!(refusal(&spec_id(&BANKS)[..40]), EventLogError::Truncated);
}

#[test]
fn event_with_one_thing_wrong_is_refused_for_that() {
    assert_eq!(refusal(&with(|log| log[2].pcr = 24)), EventLogError::PcrIndex { index: 2, pcr: 24 });
    assert_eq!(refusal(&with(|log| log[6].data = vec![0xff])), EventLogError::ActionNotText { index: 6 });
    assert_eq!(refusal(&with(|log| log[3].hashed = vec![1])), EventLogError::DataMismatch { index: 3 });
    assert_eq!(refusal(&with(|log| log[5].hashed = vec![1])), EventLogError::DataMismatch { index: 5 });
    assert_eq!(refusal(&with(|log| log[4].data = vec![0; 3])), EventLogError::SeparatorMalformed { index: 4 });
    assert_eq!(refusal(&with(|log| log[3].data.truncate(40))), EventLogError::VariableMalformed { index: 3 });
    assert_eq!(refusal(&with(|log| log[0].data[16] = 1)), EventLogError::LocalityMalformed { index: 0 });
    let twice = with(|log| log.insert(1, log[0].clone()));
    assert_eq!(refusal(&twice), EventLogError::LocalityMisplaced { index: 1 });
    let late = with(|log| log.swap(0, 1));
    assert_eq!(refusal(&late), EventLogError::LocalityMisplaced { index: 1 });

    let of = |change: fn(&mut Vec<u8>)| {
        let mut bytes = event(&good()[2]);
        change(&mut bytes);
        refusal(&[spec_id(&BANKS), bytes].concat())
    };
    assert_eq!(of(|bytes| bytes[8] = 1), EventLogError::DigestCount { index: 0, found: 1 });
    assert_eq!(of(|bytes| bytes[12] = 5), EventLogError::DigestAlgorithm { index: 0, id: 5 });
    assert_eq!(of(|bytes| bytes[34] = 4), EventLogError::DigestRepeated { index: 0, id: 4 });
    assert_eq!(of(|bytes| bytes.truncate(30)), EventLogError::Truncated);
}

#[test]
fn log_that_is_too_long_is_refused() {
    let found = EVENT_LOG_BYTES_MAX + 1;
    assert_eq!(refusal(&vec![0; found]), EventLogError::TooLong { found });
    let many = vec![entry(0, EV_SEPARATOR, &[0; 4]); EVENTS_MAX + 1];
    assert_eq!(refusal(&write(&many)), EventLogError::TooManyEvents);
    assert!(EventLog::parse(&write(&many[1..])).is_ok());
}

#[test]
fn log_that_does_not_lead_to_the_quoted_values_answers_nothing() {
    let bytes = write(&good());
    let against = |values: &BTreeMap<u32, [u8; 32]>, pcrs: &[u32]| {
        let pcrs = PcrSelection::try_from(pcrs).unwrap();
        EventLog::parse(&bytes).unwrap().replay().against_values(values, &pcrs).map(|_| ())
    };
    let mut quoted = values(&bytes);
    assert_eq!(against(&quoted, &[0, 4, 7, 9]), Ok(()));
    assert_eq!(against(&quoted, &[5]), Err(EventLogError::PcrNotQuoted { pcr: 5 }));
    quoted.insert(5, [0; 32]);
    assert_eq!(against(&quoted, &[5]), Ok(()));
    quoted.insert(5, [1; 32]);
    assert_eq!(against(&quoted, &[5]), Err(EventLogError::ReplayMismatch { pcr: 5 }));
    quoted.insert(7, [1; 32]);
    assert_eq!(against(&quoted, &[4, 7]), Err(EventLogError::ReplayMismatch { pcr: 7 }));
    assert_eq!(measured(&bytes).digests(5).map(|_| ()), Err(EventLogError::PcrNotMeasured { pcr: 5 }));
}

#[test]
fn secure_boot_counts_only_as_the_first_event_of_pcr_7() {
    assert_eq!(measured(&write(&good())).secure_boot(), Ok(()));
    let off = with(|log| log[3] = entry(7, EV_EFI_VARIABLE_DRIVER_CONFIG, &variable_data("SecureBoot", &[0])));
    assert_eq!(measured(&off).secure_boot(), Err(EventLogError::SecureBootOff));
    // The firmware's event hidden under an opaque type, and a good one extended later by whatever booted.
    let hidden = with(|log| {
        let good = log[3].clone();
        log[3] = opaque(7, 1, b"x", &variable_data("SecureBoot", &[0]));
        log.insert(4, good);
    });
    assert_eq!(measured(&hidden).secure_boot(), Err(EventLogError::SecureBootNotFirst));
    let other = with(|log| log[3] = entry(7, EV_EFI_VARIABLE_DRIVER_CONFIG, &variable_data("secureBoot", &[1])));
    assert_eq!(measured(&other).secure_boot(), Err(EventLogError::SecureBootNotFirst));
}

#[test]
fn boot_application_that_is_not_listed_is_found_under_any_type() {
    let listed = [Sha256Digest::of(b"kernel image")];
    assert_eq!(measured(&write(&good())).boot_applications_only(&listed), Ok(()));
    let digest = *Sha256Digest::of(b"evil").as_bytes();
    let unlisted = Err(EventLogError::BootApplicationUnlisted { digest });
    let disguises = [
        opaque(4, EV_EFI_BOOT_SERVICES_APPLICATION, b"x", b"evil"),
        opaque(4, EV_EVENT_TAG, b"x", b"evil"),
        entry(4, EV_EFI_ACTION, b"evil"),
        entry(4, EV_IPL, b"evil"),
    ];
    for disguise in disguises {
        let bytes = with(|log| log.push(disguise));
        assert_eq!(measured(&bytes).boot_applications_only(&listed), unlisted);
    }
    let none = with(|log| log.retain(|entry| entry.pcr != 4 || entry.event_type != EV_EFI_BOOT_SERVICES_APPLICATION));
    assert_eq!(measured(&none).boot_applications_only(&listed), Err(EventLogError::BootApplicationMissing));
    let failed = with(|log| log.push(entry(4, EV_SEPARATOR, &[1, 0, 0, 0])));
    assert_eq!(measured(&failed).boot_applications_only(&listed), Err(EventLogError::ErrorSeparator { pcr: 4 }));
}

#[test]
fn command_line_is_all_that_pcr_9_holds_beside_listed_initrds() {
    let initrd = [Sha256Digest::of(b"initrd")];
    let line = |bytes: &[u8], text: &str, initrds: &[Sha256Digest]| {
        measured(bytes).kernel_command_line(text, initrds).map(|line| line.text().to_owned())
    };
    let bytes = write(&good());
    assert_eq!(line(&bytes, "quiet", &initrd), Ok("quiet".to_owned()));
    assert_eq!(line(&bytes, "quiet2", &initrd), Err(EventLogError::CommandLineMismatch));
    let unlisted = |digest: Sha256Digest| Err(EventLogError::InitrdUnlisted { digest: *digest.as_bytes() });
    assert_eq!(line(&bytes, "quiet", &[]), unlisted(initrd[0]));
    assert_eq!(line(&bytes, "quiet", &[Sha256Digest::of(b"other")]), unlisted(initrd[0]));
    assert_eq!(line(&bytes, "quiét", &initrd), Err(EventLogError::CommandLineNotAscii));
    // Without its initrd nobody checks the root hash that the command line names.
    let without = with(|log| drop(log.remove(10)));
    assert_eq!(line(&without, "quiet", &initrd), Err(EventLogError::InitrdMissing));
    assert_eq!(line(&without, "quiet", &[]), Ok("quiet".to_owned()));
    // A bad line first, and then the digest of a good one.
    let second = with(|log| log.insert(9, opaque(9, EV_EVENT_TAG, b"x", b"bad line")));
    assert_eq!(line(&second, "quiet", &initrd), Err(EventLogError::CommandLineMismatch));
    assert_eq!(measured(&bytes).kernel_command_line("quiet", &initrd).unwrap().verity_root_hashes(), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = EventLog::parse(&bytes);
        let _ = EventLog::parse(&[spec_id(&BANKS), bytes].concat()).map(EventLog::replay);
    }

    #[test]
    fn good_log_with_bytes_changed_or_cut_never_panics_or_grows(at in 0..900usize, to in any::<u8>(), cut in 0..900usize) {
        let mut bytes = write(&good());
        let len = bytes.len();
        bytes[at % len] = to;
        if let Ok(log) = EventLog::parse(&bytes) {
            prop_assert!(log.events().len() <= 12);
            let data: usize = log.events().iter().map(|event| event.data().len()).sum();
            prop_assert!(data < len);
        }
        let _ = EventLog::parse(&bytes[..cut % len]);
    }
}
