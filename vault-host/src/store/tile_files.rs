//! The published part of the log: tiles, as C2SP tlog-tiles names them, under one directory.
//!
//! A full tile never changes. Of a tile that still grows only the widest is kept; a narrower one is its beginning.

use std::fs;
use std::io;
use std::path::PathBuf;

use ledger::merkle::Tree;
use ledger::tiles::{TILE_WIDTH, Tile, TileKind, changed_tiles, decode_bundle, encode_bundle};
use vault_proto::limits::ENTRY_BYTES_MAX;

use super::StoreError;
use super::files::{self, Scratch};

const WIDTH: u64 = TILE_WIDTH as u64;
const TILE_BYTES_MAX: usize = TILE_WIDTH as usize * (2 + ENTRY_BYTES_MAX);

/// Where tiles lie, under names that begin with `tile/`.
pub(crate) trait TilePlace {
    /// Reads a file of at most `max` bytes; `None` where there is none.
    fn read(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>, StoreError>;
    /// Writes a file, durably: whole or not at all.
    fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), StoreError>;
    /// Removes a file if it is there.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
    /// Removes all files whose names begin with `name` and a slash.
    fn remove_all(&self, name: &str) -> Result<(), StoreError>;
    /// What an error calls a file.
    fn path(&self, name: &str) -> PathBuf;
}

/// A directory that has `tile/` in it.
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    dir: PathBuf,
    scratch: Scratch,
}

impl Dir {
    pub(crate) fn new(dir: PathBuf, scratch: Scratch) -> Self {
        Self { dir, scratch }
    }
}

impl TilePlace for Dir {
    fn read(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>, StoreError> {
        files::read(&self.dir.join(name), max)
    }

    fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let path = self.dir.join(name);
        if let Some(parent) = path.parent() {
            files::create_dirs(parent)?;
        }
        self.scratch.write(&path, &bytes)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        // Its directory may not be there either.
        files::remove(&self.dir.join(name))
    }

    fn remove_all(&self, name: &str) -> Result<(), StoreError> {
        let path = self.dir.join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(&path, error)),
            _ => Ok(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// The tiles of a log.
#[derive(Clone, Debug)]
pub(crate) struct Tiles<P>(pub(crate) P);

impl<P: TilePlace> Tiles<P> {
    /// Writes what a log of `from` entries lacks of one of `to`. `entries` gives the entries `start..end`, all of one
    /// bundle.
    pub(crate) fn grow(
        &self,
        tree: &Tree,
        from: u64,
        to: u64,
        entries: impl Fn(u64, u64) -> Result<Vec<Vec<u8>>, StoreError>,
    ) -> Result<(), StoreError> {
        for tile in changed_tiles(from, to) {
            let name = tile.to_string();
            let damaged = || StoreError::Damaged { path: self.0.path(&name), what: "entries of this tile are missing" };
            let bytes = match tile.kind() {
                TileKind::Entries => {
                    let bundle = entries(tile.start(), tile.start() + u64::from(tile.width()))?;
                    encode_bundle(&bundle).map_err(|_| damaged())?
                }
                TileKind::Hashes(_) => tile.hashes(tree).ok_or_else(damaged)?,
            };
            self.0.write(&name, bytes)?;
        }
        Ok(())
    }

    /// Removes narrower tiles that [`Tiles::grow`] has replaced, once the checkpoint of `to` is published.
    pub(crate) fn remove_replaced(&self, from: u64, to: u64) -> Result<(), StoreError> {
        for tile in changed_tiles(from, to) {
            let partial = format!("{}.p", base(&tile));
            if tile.width() == TILE_WIDTH {
                self.0.remove_all(&partial)?;
                continue;
            }
            let before = count(tile.kind(), from).saturating_sub(tile.start());
            if before > 0 {
                self.0.remove(&format!("{partial}/{before}"))?;
            }
        }
        Ok(())
    }

    /// A tile of a log of `size` entries; `None` where that log has no such tile, or a wider one took its place since.
    pub(crate) fn tile(&self, size: u64, tile: &Tile) -> Result<Option<Vec<u8>>, StoreError> {
        let stored = count(tile.kind(), size).saturating_sub(tile.start()).min(WIDTH);
        let width = u64::from(tile.width());
        if width > stored {
            return Ok(None);
        }
        let name = if stored == WIDTH { base(tile) } else { format!("{}.p/{stored}", base(tile)) };
        let Some(mut bytes) = self.0.read(&name, TILE_BYTES_MAX)? else { return Ok(None) };
        if width < stored {
            match tile.kind() {
                TileKind::Hashes(_) => bytes.truncate(32 * usize::from(tile.width())),
                TileKind::Entries => {
                    let damaged = || StoreError::Damaged { path: self.0.path(&name), what: "not a bundle" };
                    let entries = decode_bundle(&bytes, stored as u16).map_err(|_| damaged())?;
                    let first = entries.get(..usize::from(tile.width())).ok_or_else(damaged)?;
                    bytes = encode_bundle(first).map_err(|_| damaged())?;
                }
            }
        }
        Ok(Some(bytes))
    }

    /// The entries of bundle `n` of a log of `size` entries; `None` as for [`Tiles::tile`].
    pub(crate) fn bundle(&self, size: u64, n: u64) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        let Some(tile) = entries_tile(size, n) else { return Ok(None) };
        let Some(bytes) = self.tile(size, &tile)? else { return Ok(None) };
        let damaged = || StoreError::Damaged { path: self.0.path(&tile.to_string()), what: "not a bundle" };
        let entries = decode_bundle(&bytes, tile.width()).map_err(|_| damaged())?;
        Ok(Some(entries.into_iter().map(<[u8]>::to_vec).collect()))
    }

    /// Reads the tree of a log of `size` entries from its leaf hashes.
    pub(crate) fn tree(&self, size: u64) -> Result<Tree, StoreError> {
        let mut tree = Tree::new();
        for tile in changed_tiles(0, size).filter(|tile| tile.kind() == TileKind::Hashes(0)) {
            let damaged =
                || StoreError::Damaged { path: self.0.path(&tile.to_string()), what: "leaf hashes are missing" };
            let bytes = self.tile(size, &tile)?.ok_or_else(damaged)?;
            let (hashes, rest) = bytes.as_chunks::<32>();
            if hashes.len() != usize::from(tile.width()) || !rest.is_empty() {
                return Err(damaged());
            }
            hashes.iter().for_each(|hash| tree.push(*hash));
        }
        Ok(tree)
    }
}

/// Path of a tile without its width.
fn base(tile: &Tile) -> String {
    let path = tile.to_string();
    path.split_once(".p/").map_or(path.clone(), |(base, _)| base.to_owned())
}

/// Entries, or hashes of a level, in a log of `size` entries.
fn count(kind: TileKind, size: u64) -> u64 {
    match kind {
        TileKind::Entries => size,
        TileKind::Hashes(level) => size.checked_shr(8 * u32::from(level)).unwrap_or(0),
    }
}

/// Bundle `n` of a log of `size` entries, as wide as it is there.
fn entries_tile(size: u64, n: u64) -> Option<Tile> {
    let start = n.checked_mul(WIDTH).filter(|start| *start < size)?;
    changed_tiles(start, size.min(start + WIDTH)).find(|tile| tile.kind() == TileKind::Entries)
}
