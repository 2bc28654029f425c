//! Raw TPM commands, for what tests do to a TPM behind the program's back (TPM 2.0 Part 3).

use std::io::{Read, Write};
use std::net::TcpStream;

/// TPM2_GetCapability: handles of one kind that are in use. `0x80000000` transient objects, `0x02000000` sessions.
pub(crate) fn handles(port: u16, first: u32) -> Vec<u32> {
    let body = [1_u32.to_be_bytes(), first.to_be_bytes(), 64_u32.to_be_bytes()].concat();
    let answer = transmit(port, 0x8001, 0x017a, &body).unwrap();
    // moreData (1), capability (4), count (4)
    answer[9..].chunks(4).map(|handle| u32::from_be_bytes(handle.try_into().unwrap())).collect()
}

/// TPM2_NV_UndefineSpace with the owner's or the platform's empty password.
pub(crate) fn undefine(port: u16, hierarchy: u32, index: u32) {
    let body = [&hierarchy.to_be_bytes()[..], &index.to_be_bytes(), PASSWORD].concat();
    transmit(port, 0x8002, 0x0122, &body).unwrap();
}

/// TPM2_NV_Write at the index's start, with the platform's empty password.
pub(crate) fn overwrite(port: u16, index: u32, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap();
    let handles = [PLATFORM.to_be_bytes(), index.to_be_bytes()].concat();
    let body = [&handles, PASSWORD, &length.to_be_bytes(), bytes, &[0, 0]].concat();
    transmit(port, 0x8002, 0x0137, &body).unwrap();
}

/// TPM2_DictionaryAttackParameters with no tries allowed: lockout at once.
pub(crate) fn lock_out(port: u16) {
    let parameters = [0_u32.to_be_bytes(), 1000_u32.to_be_bytes(), 1000_u32.to_be_bytes()].concat();
    let body = [&0x4000_000a_u32.to_be_bytes()[..], PASSWORD, &parameters].concat();
    transmit(port, 0x8002, 0x013a, &body).unwrap();
}

/// TPM2_PCR_Extend, SHA-256 bank.
pub(crate) fn extend(port: u16, pcr: u32) {
    let body = [&pcr.to_be_bytes()[..], PASSWORD, &[0, 0, 0, 1, 0, 0x0b], &[7; 32]].concat();
    transmit(port, 0x8002, 0x0182, &body).unwrap();
}

/// TPM2_HierarchyChangeAuth from the empty password.
pub(crate) fn change_auth(port: u16, hierarchy: u32, password: &[u8]) {
    let length = u16::try_from(password.len()).unwrap();
    let body = [&hierarchy.to_be_bytes()[..], PASSWORD, &length.to_be_bytes(), password].concat();
    transmit(port, 0x8002, 0x0129, &body).unwrap();
}

/// TPM2_NV_DefineSpace and TPM2_NV_Write: an index that the owner may read, with this content.
pub(crate) fn define(port: u16, index: u32, content: &[u8]) {
    // ownerWrite, ownerRead, noDA
    const ATTRIBUTES: u32 = 1 << 1 | 1 << 17 | 1 << 25;
    let length = u16::try_from(content.len()).unwrap();
    let public = [&index.to_be_bytes()[..], &[0, 0x0b], &ATTRIBUTES.to_be_bytes(), &[0, 0], &length.to_be_bytes()];
    let body = [&OWNER.to_be_bytes()[..], PASSWORD, &[0, 0], &sized(&public.concat())].concat();
    transmit(port, 0x8002, 0x012a, &body).unwrap();
    for (piece, content) in content.chunks(1024).enumerate() {
        let offset = u16::try_from(piece * 1024).unwrap().to_be_bytes();
        let handles = [OWNER.to_be_bytes(), index.to_be_bytes()].concat();
        transmit(port, 0x8002, 0x0137, &[&handles[..], PASSWORD, &sized(content), &offset].concat()).unwrap();
    }
}

/// TPM2_CreatePrimary and TPM2_EvictControl: a restricted RSA-2048 key that signs with RSASSA and SHA-256, at `handle`.
pub(crate) fn persist_rsa_ak(port: u16, handle: u32) {
    // fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign
    const ATTRIBUTES: u32 = 0x0005_0472;
    let scheme = [0x00, 0x10, 0x00, 0x14, 0x00, 0x0b];
    let public = [&[0, 1, 0, 0x0b][..], &ATTRIBUTES.to_be_bytes(), &[0, 0], &scheme, &[8, 0, 0, 0, 0, 0], &[0, 0]];
    let sensitive = sized(&[0; 4]);
    let body = [&OWNER.to_be_bytes()[..], PASSWORD, &sensitive, &sized(&public.concat()), &[0, 0], &[0; 4]].concat();
    let key = transmit(port, 0x8002, 0x0131, &body).unwrap()[..4].to_vec();
    let body = [&OWNER.to_be_bytes()[..], &key, PASSWORD, &handle.to_be_bytes()].concat();
    transmit(port, 0x8002, 0x0120, &body).unwrap();
    transmit(port, 0x8001, 0x0165, &key).unwrap();
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

pub(crate) const OWNER: u32 = 0x4000_0001;
pub(crate) const PLATFORM: u32 = 0x4000_000c;
pub(crate) const ENDORSEMENT: u32 = 0x4000_000b;
pub(crate) const TRANSIENT: u32 = 0x8000_0000;
pub(crate) const LOADED_SESSIONS: u32 = 0x0200_0000;
pub(crate) const EK_CERTIFICATE: u32 = 0x01c0_0002;
const PASSWORD: &[u8] = &[0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];

fn transmit(port: u16, tag: u16, code: u32, body: &[u8]) -> Result<Vec<u8>, u32> {
    let size = u32::try_from(10 + body.len()).unwrap();
    let command = [&tag.to_be_bytes()[..], &size.to_be_bytes(), &code.to_be_bytes(), body].concat();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(&command).unwrap();
    let (code, answer) = super::link::split(&super::link::read_message(&mut stream).unwrap());
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    if code == 0 { Ok(answer) } else { Err(code) }
}
