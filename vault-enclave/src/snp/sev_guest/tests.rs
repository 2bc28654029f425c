use rustix::io::Errno;

use super::*;
use crate::snp::key_request::{GuestFields, KeySpec, RootKey};

fn refusal(hypervisor: u32, firmware: u32, errno: Errno) -> SnpDeviceError {
    let exit_info = u64::from(hypervisor) << 32 | u64::from(firmware);
    SevGuest::new("/dev/sev-guest".into()).refused(GuestRequestError { errno, exit_info })
}

#[test]
fn each_refusal_of_the_driver_says_who_refused() {
    let path = PathBuf::from("/dev/sev-guest");
    let too_long = SnpDeviceError::Oversize { what: "certificate table", max: 16384 };
    assert_eq!(refusal(1, 0xff, Errno::IO), too_long);
    assert_eq!(refusal(2, 0, Errno::IO), SnpDeviceError::Busy);
    assert_eq!(refusal(3, 0, Errno::IO), SnpDeviceError::Hypervisor(3));
    assert_eq!(refusal(0, 0x16, Errno::IO), SnpDeviceError::Firmware(0x16));
    assert_eq!(refusal(0, 0x05, Errno::IO), SnpDeviceError::Firmware(5));
    assert_eq!(refusal(0, 0xff, Errno::AGAIN), SnpDeviceError::Busy);
    assert_eq!(refusal(0, 0xff, Errno::PERM), SnpDeviceError::Denied(path));
    let system = SnpDeviceError::System { what: "guest request", errno: Errno::NOTTY };
    assert_eq!(refusal(0, 0, Errno::NOTTY), system);
}

#[test]
fn a_device_that_is_absent_or_none_is_refused() {
    let spec = KeySpec {
        root_key: RootKey::Default,
        fields: GuestFields::default(),
        guest_svn: None,
        tcb_version: None,
        launch_mit_vector: None,
        vmpl: 0,
    };
    let request = KeyRequest::new(spec).unwrap();
    let absent = SevGuest::new("/nonexistent/sev-guest".into());
    let missing = SnpDeviceError::Absent("/nonexistent/sev-guest".into());
    assert_eq!(absent.report(&[0; 64], None).err(), Some(missing.clone()));
    assert_eq!(absent.derived_key(&request).err(), Some(missing));
    let other = SevGuest::new("/dev/null".into());
    let no_driver = SnpDeviceError::System { what: "guest request", errno: Errno::NOTTY };
    assert_eq!(other.report(&[0; 64], None).err(), Some(no_driver.clone()));
    assert_eq!(other.derived_key(&request).err(), Some(no_driver));
    assert_eq!(other.report(&[0; 64], Some(4)).err(), Some(SnpDeviceError::Vmpl(4)));
}

#[test]
fn a_report_is_taken_at_its_length_and_status_alone() {
    let mut response = [0; 4000];
    response[4..8].copy_from_slice(&1184_u32.to_le_bytes());
    response[32..32 + 1184].fill(7);
    assert_eq!(report(&response), Ok(vec![7; 1184]));
    response[4] ^= 1;
    assert_eq!(report(&response), Err(SnpDeviceError::ReportLength(1185)));
    response[0] = 0x16;
    assert_eq!(report(&response), Err(SnpDeviceError::Firmware(0x16)));
}

#[test]
fn a_key_is_taken_at_status_zero_alone_and_never_as_zeros() {
    let mut response = [0; 64];
    response[32..].fill(9);
    let taken = |response: [u8; 64]| key(&Secret::known(response));
    taken(response).ok().unwrap().with_bytes(|key| assert_eq!(key, &[9; 32]));
    let refusals = [
        (0, 0x16, SnpDeviceError::KeyParameters),
        (0, 0x27, SnpDeviceError::KeySelect),
        (0, 0x01, SnpDeviceError::Firmware(1)),
        (1, 0x01, SnpDeviceError::Firmware(256)),
        (4, 0x01, SnpDeviceError::KeyMalformed),
        (31, 0x01, SnpDeviceError::KeyMalformed),
    ];
    for (position, value, refusal) in refusals {
        let mut changed = response;
        changed[position] = value;
        assert_eq!(taken(changed).err(), Some(refusal), "byte {position}");
    }
    assert_eq!(taken([0; 64]).err(), Some(SnpDeviceError::KeyMalformed));
}

#[test]
fn a_certificate_table_is_cut_to_what_it_takes_and_never_reaches_outside() {
    let entry = |offset: u32, length: u32| [&[1; 16][..], &offset.to_le_bytes(), &length.to_le_bytes()].concat();
    let table = |entries: &[Vec<u8>]| {
        let mut buffer = entries.concat();
        buffer.resize(16 << 10, 0);
        table_bytes(&buffer)
    };
    assert_eq!(table(&[]), 0);
    assert_eq!(table(&[entry(48, 100)]), 148);
    assert_eq!(table(&[entry(300, 100), entry(72, 10)]), 400);
    assert_eq!(table(&[entry(0, 0)]), 48);
    assert_eq!(table(&[entry(u32::MAX, u32::MAX)]), 16 << 10);
    assert_eq!(table_bytes(&[1; 16 << 10]), 16 << 10);
}
