use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use ring::rand::SystemRandom;
use serde_json::{Value, json};

use super::*;
use crate::snp::{Pace, SoftSnp, Way};

const STATE: GuestState =
    GuestState { guest_svn: 3, committed_tcb: [4, 0, 0, 0, 0, 0, 23, 210], launch_mit_vector: None, vmpl: 0 };

fn sealing(state: GuestState) -> SnpSealing {
    SnpSealing::new(&state, RootKey::Vcek, &SystemRandom::new()).unwrap()
}

fn code(json: &Value) -> Option<&'static str> {
    SnpSealing::parse(&serde_json::to_vec(json).unwrap()).err().map(|error| error.code())
}

#[test]
fn a_record_is_read_as_it_was_written() {
    for launch_mit_vector in [None, Some(0), Some(u64::MAX - 1)] {
        let sealing = sealing(GuestState { launch_mit_vector, ..STATE });
        assert_eq!(SnpSealing::parse(&sealing.encode()), Ok(sealing.clone()));
        let inside = serde_json::to_value(&sealing).unwrap();
        assert_eq!(serde_json::from_value::<SnpSealing>(inside).unwrap(), sealing);
    }
    let json: Value = serde_json::from_slice(&sealing(STATE).encode()).unwrap();
    assert_eq!((&json["root_key"], &json["tcb"]), (&json!("vcek"), &json!("04000000000017d2")));
    assert_eq!(json["fields"], json!(["policy", "measurement", "guest-svn", "tcb"]));
}

#[test]
fn a_record_with_one_thing_changed_is_refused_for_it() {
    let with_vector = GuestState { launch_mit_vector: Some(1), ..STATE };
    let good: Value = serde_json::from_slice(&sealing(with_vector).encode()).unwrap();
    assert_eq!(code(&good), None);
    let changed = |name: &str, value: Value| {
        let mut json = good.clone();
        json[name] = value;
        code(&json)
    };
    assert_eq!(changed("v", json!(2)), Some("snp-sealing-version"));
    assert_eq!(changed("vmpl", json!(4)), Some("snp-vmpl-range"));
    for fields in [
        json!([]),
        json!(["policy", "guest-svn", "tcb", "launch-mit-vector"]),
        json!(["measurement", "guest-svn", "tcb", "launch-mit-vector"]),
        json!(["policy", "measurement", "guest-svn", "tcb"]),
        json!(["measurement", "policy", "guest-svn", "tcb", "launch-mit-vector"]),
    ] {
        assert_eq!(changed("fields", fields), Some("snp-sealing-fields"));
    }
    assert_eq!(changed("launch_mit_vector", Value::Null), Some("snp-sealing-fields"));
    let malformed = [
        ("root_key", json!("VCEK")),
        ("tcb", json!("04000000000017D2")),
        ("tcb", json!("04")),
        ("salt", json!("00")),
        ("launch_mit_vector", json!("1")),
        ("guest_svn", json!(-1)),
        ("more", json!(1)),
    ];
    for (name, value) in malformed {
        assert_eq!(changed(name, value), Some("snp-sealing-malformed"), "{name}");
    }
    for name in good.as_object().unwrap().keys().filter(|name| *name != "launch_mit_vector") {
        let mut json = good.clone();
        json.as_object_mut().unwrap().remove(name);
        assert_eq!(code(&json), Some("snp-sealing-malformed"), "{name}");
    }
}

#[test]
fn two_records_of_one_guest_differ_in_their_salt_alone() {
    let (one, two) = (sealing(STATE), sealing(STATE));
    assert_ne!(one.salt(), two.salt());
    assert_eq!(one.request(), two.request());
}

#[test]
fn the_request_is_for_what_the_record_says() {
    let request = sealing(GuestState { launch_mit_vector: Some(9), ..STATE }).request().unwrap();
    let spec = request.spec();
    assert!(spec.fields.policy && spec.fields.measurement);
    assert_eq!((spec.guest_svn, spec.tcb_version, spec.vmpl), (Some(3), Some(STATE.committed_tcb), 0));
    assert_eq!((spec.launch_mit_vector, request.message_version()), (Some(9), 2));
}

#[test]
fn an_update_is_offered_a_new_record_and_what_went_back_is_refused() {
    let rng = SystemRandom::new();
    let sealed = sealing(GuestState { launch_mit_vector: Some(3), ..STATE });
    let now = |change: &dyn Fn(&mut GuestState)| {
        let mut state = GuestState { launch_mit_vector: Some(3), ..STATE };
        change(&mut state);
        sealed.successor(&state, &rng).map_err(|error| error.code())
    };
    assert_eq!(now(&|_| {}), Ok(None));
    let later = now(&|state| state.committed_tcb[6] += 1).unwrap().unwrap();
    assert_eq!(later.request().unwrap().spec().tcb_version, Some([4, 0, 0, 0, 0, 0, 24, 210]));
    assert_ne!(later.salt(), sealed.salt());
    assert_eq!(now(&|state| state.guest_svn += 1).unwrap().unwrap().request().unwrap().spec().guest_svn, Some(4));
    assert!(now(&|state| state.launch_mit_vector = Some(7)).unwrap().is_some());
    assert_eq!(now(&|state| state.guest_svn -= 1), Err("snp-svn-went-back"));
    // One component lower is lower, however much another rose: never compared as one number.
    assert_eq!(now(&|state| state.committed_tcb = [5, 0, 0, 0, 0, 0, 22, 255]), Err("snp-tcb-went-back"));
    assert_eq!(now(&|state| state.launch_mit_vector = Some(1)), Err("snp-mitigations-missing"));
    assert_eq!(now(&|state| state.launch_mit_vector = None), Err("snp-mitigations-missing"));
}

#[test]
fn the_state_of_a_guest_is_read_from_its_report() {
    let mut report = vec![0; crate::snp::REPORT_BYTES];
    report[0] = 5;
    report[4..8].copy_from_slice(&3_u32.to_le_bytes());
    report[0x30] = 2;
    report[0x1e0..0x1e8].copy_from_slice(&STATE.committed_tcb);
    report[0x1f8] = 6;
    let of = |report: &[u8]| {
        GuestState::of(&RawReport { report: report.to_vec(), certificate_table: vec![], manifest: None })
    };
    let state = GuestState { launch_mit_vector: Some(6), vmpl: 2, ..STATE };
    assert_eq!(of(&report), Ok(state));
    report[0] = 3;
    assert_eq!(of(&report), Ok(GuestState { launch_mit_vector: None, ..state }));
    assert_eq!(of(&report[1..]), Err(SealingError::Report));
    report[0x31] = 1;
    assert_eq!(of(&report), Err(SealingError::Report));
    report[0x31] = 0;
    for version in [0, 1, 6] {
        report[0] = version;
        assert_eq!(of(&report), Err(SealingError::Report), "version {version}");
    }
}

/// After an update of the firmware the old record still gives the old key, and its successor another.
#[test]
fn a_key_is_derived_again_after_an_update_and_its_successor_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("derived-key")).unwrap();
    // Firmware in one line: the key is a function of the request.
    let firmware = std::thread::spawn(move || {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            stream.read_to_end(&mut request).unwrap();
            let key = attestation::Sha256Digest::of(&request);
            stream.write_all(&[&[0; 32], &key.as_bytes()[..]].concat()).unwrap();
        }
    });
    let device = SnpDevice { way: Way::Soft(SoftSnp::new(dir.path())), pace: Pace::none() };
    let record = sealing(STATE).encode();
    let first = SnpSealing::parse(&record).unwrap().derive(&device).unwrap();
    let again = SnpSealing::parse(&record).unwrap();
    let updated = GuestState { committed_tcb: [4, 0, 0, 0, 0, 0, 24, 215], ..STATE };
    let successor = again.successor(&updated, &SystemRandom::new()).unwrap().unwrap();
    let (second, third) = (again.derive(&device).unwrap(), successor.derive(&device).unwrap());
    first.with_bytes(|first| second.with_bytes(|second| assert_eq!(first, second)));
    first.with_bytes(|first| third.with_bytes(|third| assert_ne!(first, third)));
    firmware.join().unwrap();
}
