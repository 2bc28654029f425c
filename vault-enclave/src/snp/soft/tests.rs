use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::{self, JoinHandle};

use rustix::io::Errno;

use super::*;
use crate::snp::key_request::{GuestFields, KeySpec, RootKey};

const SPEC: KeySpec = KeySpec {
    root_key: RootKey::Vcek,
    fields: GuestFields { policy: true, image_id: false, family_id: false, measurement: true },
    guest_svn: Some(3),
    tcb_version: Some([4; 8]),
    launch_mit_vector: None,
    vmpl: 1,
};

/// Answers one request, and gives what it was.
fn serve(dir: &Path, answer: Vec<u8>) -> JoinHandle<Vec<u8>> {
    let listener = UnixListener::bind(dir.join("derived-key")).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        stream.write_all(&answer).unwrap();
        request
    })
}

fn ask(spec: KeySpec, answer: Vec<u8>) -> (Vec<u8>, Result<SnpDerivedSecret, SnpDeviceError>) {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path(), answer);
    let key = SoftSnp::new(dir.path()).derived_key(&KeyRequest::new(spec).unwrap());
    (server.join().unwrap(), key)
}

#[test]
fn a_request_is_as_long_as_its_version_and_the_key_is_the_answers() {
    let answer = [[0; 32], [9; 32]].concat();
    let request = KeyRequest::new(SPEC).unwrap().encode();
    let (seen, key) = ask(SPEC, answer.clone());
    assert_eq!(seen, request[..32]);
    key.ok().unwrap().with_bytes(|key| assert_eq!(key, &[9; 32]));

    let second = KeySpec { launch_mit_vector: Some(5), ..SPEC };
    let (seen, key) = ask(second, answer);
    assert_eq!(seen, KeyRequest::new(second).unwrap().encode());
    assert!(key.is_ok());
}

#[test]
fn an_answer_that_refuses_or_is_none_is_refused() {
    let status = |status: u8| [vec![status], vec![0; 63]].concat();
    let good = [[0; 32], [9; 32]].concat();
    let cases = [
        (status(0x16), SnpDeviceError::KeyParameters),
        (status(0x27), SnpDeviceError::KeySelect),
        (status(0x01), SnpDeviceError::Firmware(1)),
        (good[..63].to_vec(), SnpDeviceError::KeyMalformed),
        (Vec::new(), SnpDeviceError::KeyMalformed),
        ([&good[..], &[0]].concat(), SnpDeviceError::KeyMalformed),
    ];
    for (answer, expected) in cases {
        assert_eq!(ask(SPEC, answer).1.err(), Some(expected));
    }
}

#[test]
fn a_platform_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let request = KeyRequest::new(SPEC).unwrap();
    let soft = SoftSnp::new(dir.path());
    let socket = dir.path().join("derived-key");
    assert_eq!(soft.derived_key(&request).err(), Some(SnpDeviceError::Absent(socket.clone())));
    drop(UnixListener::bind(socket).unwrap());
    let stale = SnpDeviceError::System { what: "derived-key", errno: Errno::CONNREFUSED };
    assert_eq!(soft.derived_key(&request).err(), Some(stale));
}
