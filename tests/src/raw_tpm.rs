//! Raw commands to a software TPM, for what its owner's machine does to it behind the programs' backs (TPM 2.0 Part 3).

use std::io::{Read, Write};
use std::net::TcpStream;

/// NV index of the certificate of the RSA-2048 EK (TCG EK Credential Profile, "NV Indices").
pub const RSA_2048_CERTIFICATE: u32 = 0x01c0_0002;
/// NV index of the certificate of the P-256 EK.
pub const P256_CERTIFICATE: u32 = 0x01c0_000a;
/// NV index of the certificate of the P-384 EK.
pub const P384_CERTIFICATE: u32 = 0x01c0_0016;

const PLATFORM: u32 = 0x4000_000c;
/// TPMS_AUTH_COMMAND with an empty password, and its size.
const PASSWORD: &[u8] = &[0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];

/// TPM2_NV_UndefineSpace by the platform.
pub fn undefine(tcti: &str, index: u32) {
    let body = [&PLATFORM.to_be_bytes()[..], &index.to_be_bytes(), PASSWORD].concat();
    transmit(tcti, 0x0122, &body);
}

/// TPM2_NV_DefineSpace and TPM2_NV_Write by the platform: an index that everybody may read, as a maker leaves certificates.
pub fn define(tcti: &str, index: u32, content: &[u8]) {
    // ppWrite, ppRead, ownerRead, authRead, noDA, platformCreate
    const ATTRIBUTES: u32 = 1 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 25 | 1 << 30;
    let length = u16::try_from(content.len()).expect("a certificate");
    let public = [&index.to_be_bytes()[..], &[0, 0x0b], &ATTRIBUTES.to_be_bytes(), &[0, 0], &length.to_be_bytes()];
    transmit(tcti, 0x012a, &[&PLATFORM.to_be_bytes()[..], PASSWORD, &[0, 0], &sized(&public.concat())].concat());
    for (piece, content) in content.chunks(512).enumerate() {
        let offset = u16::try_from(piece * 512).expect("a certificate").to_be_bytes();
        let handles = [PLATFORM.to_be_bytes(), index.to_be_bytes()].concat();
        transmit(tcti, 0x0137, &[&handles[..], PASSWORD, &sized(content), &offset].concat());
    }
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat()
}

/// Sends a command with sessions. It must succeed.
fn transmit(tcti: &str, code: u32, body: &[u8]) {
    let port: u16 =
        tcti.rsplit('=').next().and_then(|port| port.parse().ok()).expect("a TCTI of swtpm ends in its port");
    let size = u32::try_from(10 + body.len()).expect("a command is short");
    let command = [&0x8002_u16.to_be_bytes()[..], &size.to_be_bytes(), &code.to_be_bytes(), body].concat();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("swtpm listens");
    stream.write_all(&command).expect("swtpm reads");
    let mut header = [0; 10];
    stream.read_exact(&mut header).expect("swtpm answers");
    let code = u32::from_be_bytes(header[6..].try_into().expect("4 bytes"));
    assert_eq!(code, 0, "the TPM refuses a command of the test");
    let _ = stream.read_to_end(&mut Vec::new());
}
