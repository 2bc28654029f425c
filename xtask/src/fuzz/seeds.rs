//! What each target starts from: files of this tree, and public evidence where it lies. None of it is kept in the tree for
//! fuzzing alone.

use crate::{Result, shell};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Directories in the tree, and the ends of the names of the files in them.
const TREE: [(&str, &str, &[&str]); 12] = [
    ("evidence_blob", "tests/golden/v1/host/blobs", &[""]),
    ("manifest", "tests/golden/v1/host/models/demo", &["manifest.json"]),
    ("model_signature", "tests/golden/v1/host/models/demo", &["model.sig"]),
    ("model_signature", "ledger/tests/data/model_signature", &[".sig", ".pem"]),
    ("note", "tests/golden/v1", &["checkpoint"]),
    ("policy", "tests/golden/v1/host/log", &["policy.toml"]),
    ("policy", "vaultctl/src/commands", &[".toml"]),
    ("sshsig", "ledger/tests/governance/data", &[".sig", ".pub", ".json"]),
    ("tile_bundle", "tests/golden/v1/host/log/tile/entries", &[""]),
    ("vault_file", "tests/golden/v1", &["vault.json"]),
    ("vault_file", "tests/golden/v1/keeper", &["core"]),
    ("tlog_proof", "tests/golden/v1", &["checkpoint"]),
];

/// The same of the public evidence.
const VECTORS: [(&str, &str, &[&str]); 8] = [
    ("certificate", "snp", &[".der"]),
    ("certificate", "azure-snp-vtpm", &[".der"]),
    ("hcl", "azure-snp-vtpm", &["hcl-report.bin"]),
    ("model_signature", "crypto/oms", &[".sig", ".bundle.json"]),
    ("quote", "azure-snp-vtpm", &[".msg", ".sig"]),
    ("report", "snp", &["report.bin"]),
    ("report", "azure-snp-vtpm", &["report.bin"]),
    ("event_log", "eventlog", &[".bin"]),
];

/// How deep a directory is looked into.
const DEPTH: usize = 4;

/// Where public evidence is expected.
pub(super) fn vectors_place() -> PathBuf {
    let named = std::env::var_os("WEIGHTVAULT_VECTORS").map(PathBuf::from);
    named.unwrap_or_else(|| shell::root().join("../shared/vectors"))
}

/// Where public evidence is, if it is there.
pub(super) fn vectors() -> Option<PathBuf> {
    vectors_place().canonicalize().ok()
}

/// Puts the seeds of a target into its corpus. Says how many there are.
pub(super) fn write(target: &str, corpus: &Path) -> Result<usize> {
    fs::create_dir_all(corpus)?;
    let mut seeds = generated(target)?;
    let mut collect = |root: &Path, table: &[(&str, &str, &[&str])]| -> Result<()> {
        for (_, dir, ends) in table.iter().filter(|(of, ..)| *of == target) {
            files(&root.join(dir), ends, DEPTH, &mut seeds)?;
        }
        Ok(())
    };
    collect(&shell::root(), &TREE)?;
    if let Some(vectors) = vectors() {
        collect(&vectors, &VECTORS)?;
    }
    for (number, seed) in seeds.iter().enumerate() {
        let seed = framed(target, seed);
        fs::write(corpus.join(format!("seed-{number}")), seed)?;
    }
    Ok(seeds.len())
}

fn files(dir: &Path, ends: &[&str], depth: usize, seeds: &mut Vec<Vec<u8>>) -> Result<()> {
    let mut paths = fs::read_dir(dir)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let name = path.to_string_lossy();
        if path.is_dir() {
            if depth > 0 {
                files(&path, ends, depth - 1, seeds)?;
            }
        } else if ends.iter().any(|end| name.ends_with(end)) {
            seeds.push(fs::read(&path)?);
        }
    }
    Ok(())
}

/// Seeds that no file has as they are.
fn generated(target: &str) -> Result<Vec<Vec<u8>>> {
    Ok(match target {
        "bulk_frames" => vec![sealed_stream()],
        "log_entry" => recorded_entries()?,
        "quote" => recorded(|quote| ["ak_public", "attest", "signature"].map(|part| &quote[part]).to_vec(), "quotes")?,
        "certificate" => recorded(|certificate| vec![certificate], "ek_certificates")?,
        "certificate_table" => vec![certificate_table()],
        "crl" => vec![revocation_list()],
        "safetensors" => vec![safetensors()],
        _ => Vec::new(),
    })
}

/// What a target wants before the bytes of a file.
fn framed(target: &str, seed: &[u8]) -> Vec<u8> {
    match target {
        "tile_bundle" => [&[27][..], seed].concat(),
        "safetensors" => [&u64::try_from(seed.len()).unwrap_or(0).to_le_bytes()[..], seed].concat(),
        "tlog_proof" => [b"c2sp.org/tlog-proof@v1\nindex 3\n\n".as_slice(), seed].concat(),
        _ => seed.to_vec(),
    }
}

/// The entries of the golden vault's log: each has its length before it, 2 bytes, big-endian.
fn recorded_entries() -> Result<Vec<Vec<u8>>> {
    let bundle = fs::read(shell::root().join("tests/golden/v1/host/log/tile/entries/000.p/27"))?;
    let (mut entries, mut rest) = (Vec::new(), bundle.as_slice());
    while let Some((length, after)) = rest.split_first_chunk() {
        let (entry, after) =
            after.split_at_checked(u16::from_be_bytes(*length).into()).ok_or("a bundle that is cut")?;
        entries.push(entry.to_vec());
        rest = after;
    }
    Ok(entries)
}

/// Evidence of a software TPM, recorded as hex.
fn recorded(parts: impl Fn(&Value) -> Vec<&Value>, list: &str) -> Result<Vec<Vec<u8>>> {
    let text = fs::read_to_string(shell::root().join("attestation/tests/data/swtpm.json"))?;
    let recorded: Value = serde_json::from_str(&text)?;
    let items = recorded[list].as_array().ok_or("no such list")?;
    let texts = items.iter().flat_map(parts).filter_map(Value::as_str);
    texts.map(|text| Ok(hex::decode(text)?)).collect()
}

/// An entry for a VCEK, the end of the head, and what is no certificate.
fn certificate_table() -> Vec<u8> {
    let guid = 0x63da_758d_e664_4564_adc5_f4b9_3be8_accd_u128.to_be_bytes();
    [&guid[..], &48_u32.to_le_bytes(), &4_u32.to_le_bytes(), &[0; 24], b"vcek"].concat()
}

/// CertificateList (RFC 5280 §5) with one revoked certificate; what its signature would be is not there.
fn revocation_list() -> Vec<u8> {
    let pss = hex::decode("06092a864886f70d01010a").unwrap_or_default();
    let algorithm = der(0x30, &[&pss, &der(0x30, &[])]);
    let name = der(0x30, &[&der(0x31, &[&der(0x30, &[&[6, 3, 0x55, 4, 3], &der(0x0c, &[b"ARK-Milan"])])])]);
    let (from, to) = (der(0x17, &[b"260101000000Z"]), der(0x17, &[b"270101000000Z"]));
    let revoked = der(0x30, &[&der(0x30, &[&[2, 1, 5], &from])]);
    let list = der(0x30, &[&[2, 1, 1], &algorithm, &name, &from, &to, &revoked]);
    der(0x30, &[&list, &algorithm, &der(0x03, &[&[0; 9]])])
}

/// One DER value of less than 64 KiB.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let head = match u8::try_from(body.len()) {
        Ok(length) if length < 0x80 => vec![tag, length],
        _ => [&[tag, 0x82][..], &u16::try_from(body.len()).unwrap_or(0).to_be_bytes()].concat(),
    };
    [head, body].concat()
}

/// Lengths of frames, and two messages of FetchUnitsResponse: unit 3 at 5, "abc" and then "d".
fn sealed_stream() -> Vec<u8> {
    let message = |offset: u8, data: &[u8]| {
        let fields = [&[8, 3, 16, offset, 26, data.len() as u8], data].concat();
        [&[0, 0, 0, 0, fields.len() as u8], fields.as_slice()].concat()
    };
    [[1, 7, 2, 30, 3, 1, 1, 9].as_slice(), &message(5, b"abc"), &message(8, b"d")].concat()
}

/// A header of two tensors, and their 24 bytes.
fn safetensors() -> Vec<u8> {
    let header = br#"{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"h.1.b":{"dtype":"BF16","shape":[8],"data_offsets":[8,24]}}"#;
    [&u64::try_from(header.len()).unwrap_or(0).to_le_bytes()[..], header, &[0; 24]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_recorded_log_are_seeds() {
        let entries = recorded_entries().unwrap();
        assert_eq!(entries.len(), 27);
        assert!(entries.iter().all(|entry| entry.starts_with(br#"{"v":1,"type":""#)));
    }

    #[test]
    fn files_are_found_below_a_directory_by_their_ends() {
        let mut seeds = Vec::new();
        files(&shell::root().join("tests/golden/v1/host/models"), &["manifest.json"], 2, &mut seeds).unwrap();
        assert_eq!(seeds.len(), 2);
    }
}
