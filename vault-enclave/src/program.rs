//! The program that runs, as a keeper says it in its log: by its own word, which is worth what its machine proves.

use std::fs::File;
use std::io::Read;

use attestation::Sha256Digest;
use ledger::entry::Program;
use ledger::names::Version;
use ledger::snapshot::FOLD_NUMBER;
use ring::digest::{Context, SHA256};

/// The file that the kernel started, whatever lies under its name by now.
const FILE: &str = "/proc/self/exe";

/// The version that it was built as.
pub(crate) fn version() -> Version {
    Version::try_from(env!("CARGO_PKG_VERSION").to_owned()).expect("cargo's versions have the grammar of ours")
}

/// This one. Without a digest where there is no `/proc`.
pub(crate) fn this() -> Program {
    let digest = File::open(FILE).and_then(digest_of);
    let digest = digest.inspect_err(
        |error| tracing::warn!(%error, "the file of this program can't be read: the log has no digest of it"),
    );
    Program { version: version(), fold: FOLD_NUMBER, digest: digest.ok() }
}

fn digest_of(mut file: impl Read) -> std::io::Result<Sha256Digest> {
    let (mut context, mut buffer) = (Context::new(&SHA256), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => context.update(buffer.get(..read).unwrap_or_default()),
        }
    }
    let digest = <[u8; 32]>::try_from(context.finish().as_ref()).expect("SHA-256 gives 32 bytes");
    Ok(Sha256Digest::from_bytes(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_the_digest_of_its_whole_file() {
        let bytes: Vec<u8> = (0..700_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        assert_eq!(digest_of(bytes.as_slice()).unwrap(), Sha256Digest::of(&bytes));
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(this().digest, Some(Sha256Digest::of(&own)));
    }
}
