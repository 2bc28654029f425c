//! The two TPM commands that the launcher itself needs, as raw bytes (TPM 2.0 Part 3): no libtss2 here.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// TPM2_PCR_Extend of `digest` into `pcr`, SHA-256 bank, empty authorisation.
pub(crate) fn pcr_extend(port: u16, pcr: u32, digest: &[u8; 32]) -> io::Result<()> {
    let mut body = pcr.to_be_bytes().to_vec();
    body.extend(PASSWORD_AUTHORISATION);
    body.extend(1u32.to_be_bytes());
    body.extend(ALG_SHA256.to_be_bytes());
    body.extend(digest);
    transmit(port, ST_SESSIONS, CC_PCR_EXTEND, &body).map(drop)
}

/// TPM2_Shutdown(CLEAR). Without it each kill after a use of a dictionary-attack protected object counts as a
/// failed try, and the third start or so ends in lockout.
pub(crate) fn shutdown(port: u16) -> io::Result<()> {
    transmit(port, ST_NO_SESSIONS, CC_SHUTDOWN, &SU_CLEAR.to_be_bytes()).map(drop)
}

const ST_NO_SESSIONS: u16 = 0x8001;
const ST_SESSIONS: u16 = 0x8002;
const CC_PCR_EXTEND: u32 = 0x0000_0182;
const CC_SHUTDOWN: u32 = 0x0000_0145;
const SU_CLEAR: u16 = 0;
const ALG_SHA256: u16 = 0x000b;
/// Size 9, TPM_RS_PW, empty nonce, no attributes, empty password.
const PASSWORD_AUTHORISATION: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
const HEADER: usize = 10;
const RESPONSE_MAX: usize = 4096;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends one command and returns the body of a successful answer.
fn transmit(port: u16, tag: u16, code: u32, body: &[u8]) -> io::Result<Vec<u8>> {
    let size = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let mut command = tag.to_be_bytes().to_vec();
    command.extend(size.to_be_bytes());
    command.extend(code.to_be_bytes());
    command.extend(body);

    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    stream.write_all(&command)?;

    let mut header = [0u8; HEADER];
    stream.read_exact(&mut header)?;
    let [_, _, s0, s1, s2, s3, r0, r1, r2, r3] = header;
    let size = usize::try_from(u32::from_be_bytes([s0, s1, s2, s3])).map_err(io::Error::other)?;
    let code = u32::from_be_bytes([r0, r1, r2, r3]);
    if code != 0 {
        return Err(io::Error::other(format!("the TPM answered with code {code:#05x}")));
    }
    if !(HEADER..=RESPONSE_MAX).contains(&size) {
        return Err(invalid("the answer has an impossible size"));
    }
    let mut answer = vec![0u8; size - HEADER];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// TPM2_PCR_Read of one PCR of the SHA-256 bank.
    pub(crate) fn pcr_read(port: u16, pcr: u8) -> io::Result<[u8; 32]> {
        let mut select = [0u8; 3];
        let byte = select.get_mut(usize::from(pcr / 8)).ok_or_else(|| invalid("no such PCR"))?;
        *byte = 1 << (pcr % 8);
        let mut body = 1u32.to_be_bytes().to_vec();
        body.extend(ALG_SHA256.to_be_bytes());
        body.push(3);
        body.extend(select);
        let response = transmit(port, ST_NO_SESSIONS, CC_PCR_READ, &body)?;
        // Update counter (4), selection (4 + 2 + 1 + 3), digest count (4) and digest size (2), then the value at the end.
        let value = response.get(20..).and_then(|value| value.try_into().ok());
        value.ok_or_else(|| invalid("the answer holds no PCR value"))
    }

    const CC_PCR_READ: u32 = 0x0000_017e;
}
