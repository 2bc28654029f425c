//! The files: certificates and revocation lists in whatever form they come, PCR values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use attestation::{CRL_BYTES_MAX, CertificateTable, TableEntry};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::failure::{Failure, Kind};
use crate::session::read;

/// A certificate table is the longest of them.
const CHAIN_BYTES_MAX: usize = 256 << 10;
const PCRS_BYTES_MAX: usize = 16 << 10;
/// Files of one kind.
const FILES_MAX: usize = 32;
const BEGIN: &str = "-----BEGIN ";

/// What `--chain` gave.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    /// X.509, DER, in the order of the files.
    pub(crate) certificates: Vec<Vec<u8>>,
    /// Revocation lists that stood in a certificate table.
    pub(crate) crls: Vec<Vec<u8>>,
}

/// Reads all files of `--chain` and `--crl`.
pub(crate) fn read_files(chain: &[PathBuf], crls: &[PathBuf]) -> Result<Certificates, Failure> {
    if chain.len() > FILES_MAX || crls.len() > FILES_MAX {
        return Err(Failure::new(Kind::Usage, "files-too-many", format!("more than {FILES_MAX} files of one kind")));
    }
    let mut found = Certificates::default();
    for path in chain {
        found.read_chain(path)?;
    }
    for path in crls {
        let bytes = read(path, CRL_BYTES_MAX * 2)?;
        if bytes.starts_with(BEGIN.as_bytes()) {
            found.crls.extend(pem(path, &bytes, "X509 CRL")?);
        } else {
            found.crls.push(bytes);
        }
    }
    Ok(found)
}

impl Certificates {
    fn read_chain(&mut self, path: &Path) -> Result<(), Failure> {
        let bytes = read(path, CHAIN_BYTES_MAX)?;
        if is_der(&bytes) {
            self.certificates.push(bytes);
        } else if bytes.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes()) {
            self.certificates.extend(pem(path, &bytes, "CERTIFICATE")?);
        } else {
            let table = CertificateTable::parse(&bytes).map_err(|error| not_certificates(path).why(error))?;
            for (kind, data) in table.iter() {
                match kind {
                    TableEntry::Vcek | TableEntry::Vlek | TableEntry::Ask | TableEntry::Ark => {
                        self.certificates.push(data.to_vec());
                    }
                    TableEntry::Crl => self.crls.push(data.to_vec()),
                }
            }
        }
        Ok(())
    }
}

/// One SEQUENCE of exactly this length (X.690 §8.1.3).
fn is_der(bytes: &[u8]) -> bool {
    match *bytes {
        [0x30, 0x82, high, low, ref rest @ ..] => rest.len() == usize::from(u16::from_be_bytes([high, low])),
        [0x30, 0x81, length, ref rest @ ..] => rest.len() == usize::from(length),
        _ => false,
    }
}

/// Every PEM block of the file, all of this label.
fn pem(path: &Path, bytes: &[u8], label: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let malformed = || not_certificates(path).why(format!("a PEM block is not a {label}, or is not whole"));
    let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
    let end = format!("-----END {label}-----");
    let blocks = text.split(BEGIN).skip(1).map(|block| {
        let body = block.strip_prefix(label).and_then(|rest| rest.strip_prefix("-----"));
        let (body, _) = body.and_then(|body| body.split_once(&end)).ok_or_else(malformed)?;
        let digits: String = body.split_whitespace().collect();
        BASE64_STANDARD.decode(digits).map_err(|_| malformed())
    });
    blocks.collect()
}

fn not_certificates(path: &Path) -> Failure {
    let what = format!("{} has no certificates or revocation lists that can be read", path.display());
    Failure::new(Kind::Usage, "certificates-unreadable", what)
        .next("give PEM, DER, or a certificate table as `auxblob` of configfs-tsm has it")
}

/// A list from PCR 0 on, or an object by index.
#[derive(Deserialize)]
#[serde(untagged)]
enum PcrFile {
    List(Vec<String>),
    ByIndex(BTreeMap<String, String>),
}

/// The values of `--pcrs` that the quote is over; all of them where `quoted` is not known.
pub(crate) fn read_pcrs(path: &Path, quoted: Option<&[u32]>) -> Result<Vec<(u32, [u8; 32])>, Failure> {
    let malformed = || {
        Failure::new(Kind::Usage, "pcrs-unreadable", format!("{} is not a file of PCR values", path.display()))
            .next("give JSON: a list of SHA-256 values in hex from PCR 0 on, or an object such as {\"7\": \"…\"}")
    };
    let file: PcrFile = serde_json::from_slice(&read(path, PCRS_BYTES_MAX)?).map_err(|error| malformed().why(error))?;
    let texts: Vec<(u32, String)> = match file {
        PcrFile::List(list) => (0..).zip(list).collect(),
        PcrFile::ByIndex(map) => {
            let entries = map.into_iter().map(|(index, value)| Ok((index.parse().map_err(|_| malformed())?, value)));
            entries.collect::<Result<_, Failure>>()?
        }
    };
    let mut values = Vec::new();
    for (index, text) in texts {
        let mut value = [0; 32];
        hex::decode_to_slice(&text, &mut value).map_err(|error| malformed().why(format!("PCR {index}: {error}")))?;
        if index > 23 {
            return Err(malformed().why(format!("there is no PCR {index}")));
        }
        if quoted.is_none_or(|quoted| quoted.contains(&index)) {
            values.push((index, value));
        }
    }
    values.sort_unstable();
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn der_is_one_sequence_of_exactly_its_length() {
        assert!(is_der(&[&[0x30, 0x81, 3][..], &[0; 3]].concat()));
        assert!(is_der(&[&[0x30, 0x82, 1, 0][..], &[0; 256]].concat()));
        assert!(!is_der(&[0x30, 0x81, 3, 0, 0]));
        assert!(!is_der(&[0x31, 0x81, 1, 0]));
        assert!(!is_der(b""));
    }

    #[test]
    fn pem_has_only_whole_blocks_of_its_label() {
        let path = Path::new("chain.pem");
        let block = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        let read = |text: &str| pem(path, text.as_bytes(), "CERTIFICATE").map_err(|error| error.code().to_owned());
        let two = format!("notes\n{}{}", block("CERTIFICATE", "AAEC"), block("CERTIFICATE", "AwQF"));
        assert_eq!(read(&two), Ok(vec![vec![0, 1, 2], vec![3, 4, 5]]));
        let refused = Err("certificates-unreadable".to_owned());
        assert_eq!(read(&format!("{two}{}", block("PRIVATE KEY", "AAEC"))), refused);
        assert_eq!(read("-----BEGIN CERTIFICATE-----\nAAEC\n"), refused);
        assert_eq!(read(&block("CERTIFICATE", "A?")), refused);
    }
}
