//! An audit bundle (FORMAT.md §11): a log and the evidence that it names, as files in a folder.
//!
//! Whoever made the folder is not believed. Every name in it follows from the size of the log or from a digest, so nothing in
//! it says where to read; each file is read up to the length that it may have.

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use attestation::Sha256Digest;
use ledger::merkle::Tree;
use ledger::tiles::{Tile, TileKind, changed_tiles, decode_bundle, encode_bundle};
use serde::{Deserialize, Serialize};
use vault_proto::limits::{BLOB_BYTES_MAX, CHECKPOINT_BYTES_MAX};

use crate::failure::{Failure, Kind};

const FORMAT: u64 = 1;
const INDEX: &str = "bundle.json";
const CHECKPOINT: &str = "checkpoint";
const INDEX_BYTES_MAX: usize = 4096;
/// 256 entries of 16 KiB, each with 2 bytes of length.
const TILE_BYTES_MAX: usize = 256 * (16 * 1024 + 2);

/// What the folder says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    format: u64,
    /// The vault whose log it is.
    pub vault: Sha256Digest,
    /// Entries of the log.
    pub size: u64,
    /// Evidence is there of the entries from this one on.
    pub evidence_from: u64,
    /// And of those before this one.
    pub evidence_to: u64,
}

impl Index {
    /// For a log of `size` entries.
    pub fn new(vault: Sha256Digest, size: u64, (evidence_from, evidence_to): (u64, u64)) -> Self {
        Self { format: FORMAT, vault, size, evidence_from, evidence_to }
    }

    /// Whether evidence of this entry ought to be there.
    pub fn has_evidence_of(&self, entry: u64) -> bool {
        (self.evidence_from..self.evidence_to).contains(&entry)
    }
}

/// A folder that is being written. Until [`finish`](Self::finish) it is no bundle.
pub struct BundleWriter {
    dir: PathBuf,
}

impl BundleWriter {
    /// Makes the folder, or goes on with one that was not finished.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir).map_err(|error| Failure::file("make", dir, &error))?;
        let writer = Self { dir: dir.to_owned() };
        if dir.join(INDEX).exists() {
            return Err(Failure::new(Kind::Usage, "bundle-exists", format!("{} is a bundle already", dir.display()))
                .next("choose another folder: a bundle is evidence, and is not overwritten"));
        }
        let mut there = std::fs::read_dir(dir).map_err(|error| Failure::file("read", dir, &error))?;
        let ours = |name: &std::ffi::OsStr| ["tile", "blob", CHECKPOINT].iter().any(|known| name == *known);
        if there.any(|entry| entry.is_ok_and(|entry| !ours(&entry.file_name()))) {
            return Err(Failure::new(Kind::Usage, "folder-not-empty", format!("{} has other files", dir.display()))
                .next("choose an empty folder, or one that does not exist"));
        }
        Ok(writer)
    }

    /// Writes the log: bundles of entries as they come, then the tiles of hashes and the checkpoint.
    pub fn entries(&self, first: u64, entries: &[Vec<u8>]) -> Result<(), Failure> {
        let bundle = encode_bundle(entries).map_err(|error| malformed(&self.dir, error))?;
        let end = first + entries.len() as u64;
        // `first` is a multiple of 256, so there is one such tile.
        match changed_tiles(first, end).find(|tile| tile.kind() == TileKind::Entries) {
            Some(tile) => self.put(&tile.to_string(), &bundle),
            None => Ok(()),
        }
    }

    /// Writes the tiles of hashes.
    pub fn hashes(&self, tree: &Tree) -> Result<(), Failure> {
        changed_tiles(0, tree.len())
            .filter_map(|tile| Some((tile, tile.hashes(tree)?)))
            .try_for_each(|(tile, hashes)| self.put(&tile.to_string(), &hashes))
    }

    /// Whether an evidence file is there from an earlier run, whole.
    pub fn has_blob(&self, digest: Sha256Digest) -> bool {
        read_file(&self.dir, &blob_name(digest), BLOB_BYTES_MAX).is_ok_and(|blob| Sha256Digest::of(&blob) == digest)
    }

    /// Writes an evidence file; the caller has checked its digest.
    pub fn blob(&self, digest: Sha256Digest, blob: &[u8]) -> Result<(), Failure> {
        self.put(&blob_name(digest), blob)
    }

    /// Makes the folder a bundle.
    pub fn finish(self, index: &Index, checkpoint: &str) -> Result<(), Failure> {
        self.put(CHECKPOINT, checkpoint.as_bytes())?;
        let text = serde_json::to_vec_pretty(index).expect("integers and digests");
        self.put(INDEX, &text)
    }

    /// Whole or not at all.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.dir.join(name);
        let failed = |error: std::io::Error| Failure::file("write", &path, &error);
        let parent = path.parent().unwrap_or(&self.dir);
        std::fs::create_dir_all(parent).map_err(failed)?;
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(parent)
            .map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        file.persist(&path).map(drop).map_err(|error| failed(error.error))
    }
}

/// A finished folder.
pub struct Bundle {
    dir: PathBuf,
    index: Index,
}

impl Bundle {
    /// Reads what the folder says of itself.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let text = read_file(dir, INDEX, INDEX_BYTES_MAX).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                Failure::new(Kind::Usage, "not-a-bundle", format!("{} has no {INDEX}", dir.display()))
                    .next("`vaultctl audit export --out DIR` writes a bundle; one that was interrupted is run again")
            }
            _ => Failure::file("read", &dir.join(INDEX), &error),
        })?;
        let index: Index = serde_json::from_slice(&text).map_err(|error| malformed(&dir.join(INDEX), error))?;
        if index.format != FORMAT {
            return Err(malformed(
                &dir.join(INDEX),
                format!("format {}, and this version reads {FORMAT}", index.format),
            ));
        }
        Ok(Self { dir: dir.to_owned(), index })
    }

    /// What it says of itself.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The signed note, not verified.
    pub fn checkpoint(&self) -> Result<String, Failure> {
        let path = self.dir.join(CHECKPOINT);
        let bytes = read_file(&self.dir, CHECKPOINT, CHECKPOINT_BYTES_MAX)
            .map_err(|error| Failure::file("read", &path, &error))?;
        String::from_utf8(bytes).map_err(|error| malformed(&path, error))
    }

    /// The files of entries of a log of `size` entries, in order.
    pub fn entry_tiles(size: u64) -> impl Iterator<Item = Tile> {
        changed_tiles(0, size).take_while(|tile| tile.kind() == TileKind::Entries)
    }

    /// The entries of one file, not verified.
    pub fn entries(&self, tile: Tile) -> Result<Vec<Vec<u8>>, Failure> {
        let name = tile.to_string();
        let path = self.dir.join(&name);
        let bytes =
            read_file(&self.dir, &name, TILE_BYTES_MAX).map_err(|error| Failure::file("read", &path, &error))?;
        let entries = decode_bundle(&bytes, tile.width()).map_err(|error| malformed(&path, error))?;
        Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// The first tile of hashes that is not that of the tree.
    pub fn other_hashes(&self, tree: &Tree) -> Option<Tile> {
        changed_tiles(0, tree.len()).find(|tile| {
            tile.hashes(tree).is_some_and(|hashes| {
                !read_file(&self.dir, &tile.to_string(), TILE_BYTES_MAX).is_ok_and(|found| found == hashes)
            })
        })
    }

    /// An evidence file. `None` if it is missing or not what it should be: a file under the wrong name is none.
    pub fn blob(&self, digest: Sha256Digest) -> Option<Vec<u8>> {
        let blob = read_file(&self.dir, &blob_name(digest), BLOB_BYTES_MAX).ok()?;
        (Sha256Digest::of(&blob) == digest).then_some(blob)
    }
}

fn blob_name(digest: Sha256Digest) -> String {
    format!("blob/{}", hex::encode(digest.as_bytes()))
}

/// A plain file of at most `max` bytes, and not a link or a pipe that never ends. The folders above it are followed as they
/// are: whoever can change those can have other bytes read, which are verified like any.
fn read_file(dir: &Path, name: &str, max: usize) -> std::io::Result<Vec<u8>> {
    let path = dir.join(name);
    if !std::fs::symlink_metadata(&path)?.is_file() {
        return Err(std::io::Error::new(ErrorKind::InvalidData, "it is not a plain file"));
    }
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    std::fs::File::open(&path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(std::io::Error::new(ErrorKind::InvalidData, format!("it has more than {max} bytes")));
    }
    Ok(bytes)
}

fn malformed(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(Kind::Usage, "bundle-malformed", format!("{} is not what a bundle has", path.display()))
        .why(why)
        .next("export it again, or take another copy")
}
