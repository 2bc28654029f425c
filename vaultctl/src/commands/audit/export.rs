//! `vaultctl audit export`

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use attestation::Sha256Digest;
use ledger::merkle::{Tree, leaf_hash};
use ledger::tiles::TILE_WIDTH;
use serde::Serialize;

use super::{Progress, named_blobs};
use crate::audit::{self, LogReader};
use crate::bundle::{BundleWriter, Index};
use crate::cli::AuditExportArgs;
use crate::client::Remote;
use crate::failure::Failure;
use crate::print::{count_of, entries};
use crate::session::Session;

/// What was written.
#[derive(Debug, Serialize)]
pub(crate) struct ExportReport {
    vault: Sha256Digest,
    size: u64,
    root: Sha256Digest,
    dir: PathBuf,
    /// Evidence is there of the entries from here on, and before there.
    evidence_from: u64,
    evidence_to: u64,
    /// Evidence files written.
    evidence: u64,
    /// Evidence that entries name and the host does not have.
    missing: Vec<Sha256Digest>,
}

impl ExportReport {
    /// Whether the host had all that the entries name.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Entries that were read, and what of them has to be fetched.
struct Written {
    tree: Tree,
    wanted: BTreeSet<Sha256Digest>,
    evidence: (u64, u64),
}

pub(crate) async fn export(session: &Session, args: &AuditExportArgs) -> Result<ExportReport, Failure> {
    let vault = session.vault()?;
    let remote = session.remote(&vault).await?;
    let (checkpoint, note) = audit::checkpoint(&remote, &vault).await?;
    let writer = BundleWriter::open(&args.out)?;
    let mut reader = LogReader::new(vault.id());
    let written = write_entries(&remote, &mut reader, checkpoint.size, args, &writer).await?;
    reader.finish(checkpoint)?;
    writer.hashes(&written.tree)?;
    let (evidence, missing) = write_blobs(&remote, &written.wanted, &writer).await?;
    let (evidence_from, evidence_to) = written.evidence;
    writer.finish(&Index::new(vault.id(), checkpoint.size, written.evidence), &note)?;
    Ok(ExportReport {
        vault: vault.id(),
        size: checkpoint.size,
        root: Sha256Digest::from_bytes(checkpoint.root),
        dir: args.out.clone(),
        evidence_from,
        evidence_to,
        evidence,
        missing,
    })
}

/// Every entry is folded on its way: what does not verify becomes no bundle.
async fn write_entries(
    remote: &Remote,
    reader: &mut LogReader,
    size: u64,
    args: &AuditExportArgs,
    writer: &BundleWriter,
) -> Result<Written, Failure> {
    let progress = Progress::new("entries", size);
    let width = usize::from(TILE_WIDTH);
    let mut written = Written { tree: Tree::new(), wanted: BTreeSet::new(), evidence: (size, size) };
    let mut bundle: Vec<Vec<u8>> = Vec::with_capacity(width);
    while reader.state().size() < size {
        let first = reader.state().size();
        for bytes in remote.entries(first, size - first).await? {
            let index = reader.state().size();
            let exact = audit::entry(index, &bytes)?;
            let entry = exact.entry();
            let begun = args.from.is_none_or(|from| from.is_reached(index, entry.time()));
            let over = args.to.is_some_and(|to| to.is_reached(index, entry.time()));
            if begun {
                written.evidence.0 = written.evidence.0.min(index);
            }
            if over {
                written.evidence.1 = written.evidence.1.min(index);
            }
            if begun && !over {
                written.wanted.extend(named_blobs(entry));
            }
            reader.push_exact(exact)?;
            written.tree.push(leaf_hash(&bytes));
            bundle.push(bytes);
            if bundle.len() == width || index + 1 == size {
                writer.entries(index + 1 - bundle.len() as u64, &bundle)?;
                bundle.clear();
            }
            progress.add(1);
        }
    }
    // Nothing between them: an empty span has one spelling.
    written.evidence.0 = written.evidence.0.min(written.evidence.1);
    Ok(written)
}

async fn write_blobs(
    remote: &Remote,
    wanted: &BTreeSet<Sha256Digest>,
    writer: &BundleWriter,
) -> Result<(u64, Vec<Sha256Digest>), Failure> {
    let progress = Progress::new("evidence files", wanted.len() as u64);
    let (mut there, mut missing) = (0, Vec::new());
    for digest in wanted {
        if !writer.has_blob(*digest) {
            match remote.blob(*digest).await {
                Ok(blob) => writer.blob(*digest, &blob)?,
                Err(failure) if failure.code() == "not-found" => {
                    missing.push(*digest);
                    continue;
                }
                Err(failure) => return Err(failure),
            }
        }
        there += 1;
        progress.add(1);
    }
    Ok((there, missing))
}

impl fmt::Display for ExportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Wrote {} of vault {} to {}", entries(self.size), self.vault, self.dir.display())?;
        writeln!(f, "  root     {}", self.root)?;
        let Self { evidence_from: from, evidence_to: to, .. } = self;
        writeln!(f, "  evidence {}, of the entries from {from} on and before {to}", count_of(self.evidence, "file"))?;
        for digest in &self.missing {
            writeln!(f, "  MISSING  {digest}: the host does not have it; try another one with --host")?;
        }
        writeln!(f, "Give an auditor this folder, and by another way the vault file:")?;
        writeln!(f, "  vaultctl audit verify {} --vault FILE", self.dir.display())
    }
}
