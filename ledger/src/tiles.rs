//! The log as static files (C2SP tlog-tiles): tiles of 256 hashes, and bundles of 256 entries.
//!
//! ```
//! use ledger::tiles::{Tile, changed_tiles};
//! // A log of 255 entries gets two more: the first tile fills up, a second begins, and so does level 1.
//! let paths: Vec<String> = changed_tiles(255, 257).map(|tile| tile.to_string()).collect();
//! assert_eq!(paths, [
//!     "tile/entries/000", "tile/entries/001.p/1", "tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1",
//! ]);
//! ```

use std::fmt;
use std::str::FromStr;

use crate::merkle::{Hash, Tree};
use crate::text::parse_decimal;

/// Hashes, or entries, of a full tile.
pub const TILE_WIDTH: u16 = 256;
/// Longest entry that a bundle can hold, in bytes.
pub const BUNDLE_ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// Levels that a log of 64-bit size can have.
const LEVELS: u8 = 8;
/// The highest level that a path may name.
const LEVEL_MAX: u64 = 63;
const LEVEL_BITS: u32 = 8;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Entries.
    Entries,
    /// Hashes of this level; those of level 0 are leaf hashes.
    Hashes(u8),
}

/// One file of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    kind: TileKind,
    index: u64,
    width: u16,
}

/// Why a path or a bundle is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileError {
    /// Not the path of a tile.
    Path,
    /// A level above 63.
    Level,
    /// A width that is not 1 to 255.
    Width,
    /// An entry has more than 65,535 bytes.
    EntryTooLong,
    /// A bundle has no entries, or more than 256.
    EntryCount,
    /// A bundle ends inside an entry, or after the last one.
    BundleLength,
}

impl Tile {
    /// What it holds.
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// Its place in its level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Hashes or entries in it: 256, or fewer in a partial tile.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Index of its first entry, for [`TileKind::Entries`] and level 0; of its first hash in the level, for others.
    pub fn start(&self) -> u64 {
        self.index.saturating_mul(u64::from(TILE_WIDTH))
    }

    /// The hashes of this tile, or `None` for a bundle and where the tree is smaller.
    pub fn hashes(&self, tree: &Tree) -> Option<Vec<u8>> {
        let TileKind::Hashes(level) = self.kind else { return None };
        let level = u32::from(level) * LEVEL_BITS;
        let hash = |offset| tree.node(level, self.start().checked_add(offset)?);
        let hashes: Option<Vec<&Hash>> = (0..u64::from(self.width)).map(hash).collect();
        Some(hashes?.into_iter().flatten().copied().collect())
    }
}

/// The files of a log of `to` entries that a log of `from` entries did not have, bundles first, then level by level.
/// A tile that grew is a new file. None where `to` is not larger.
pub fn changed_tiles(from: u64, to: u64) -> impl Iterator<Item = Tile> {
    let bundles = changed_in_level(TileKind::Entries, from, to);
    let hashes = (0..LEVELS).flat_map(move |level| {
        let shift = u32::from(level) * LEVEL_BITS;
        changed_in_level(TileKind::Hashes(level), from >> shift, to >> shift)
    });
    bundles.chain(hashes)
}

/// `from` and `to` count the hashes of the level.
fn changed_in_level(kind: TileKind, from: u64, to: u64) -> impl Iterator<Item = Tile> {
    let width = u64::from(TILE_WIDTH);
    let tiles = if to > from { from / width..to.div_ceil(width) } else { 0..0 };
    // At most 256, so it fits.
    tiles.map(move |index| Tile { kind, index, width: (to - index * width).min(width) as u16 })
}

impl fmt::Display for Tile {
    /// The path: `tile/<L>/<N>[.p/<W>]`, or `tile/entries/<N>[.p/<W>]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Entries => f.write_str("tile/entries")?,
            TileKind::Hashes(level) => write!(f, "tile/{level}")?,
        }
        let mut parts = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while rest > 0 {
            parts.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        parts.reverse();
        write!(f, "/{}", parts.join("/"))?;
        if self.width < TILE_WIDTH {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for Tile {
    type Err = TileError;

    /// Reads exactly the path that [`Display`](fmt::Display) writes.
    fn from_str(path: &str) -> Result<Self, TileError> {
        let (kind, rest) = path.strip_prefix("tile/").and_then(|rest| rest.split_once('/')).ok_or(TileError::Path)?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => match parse_decimal(level).ok_or(TileError::Path)? {
                level @ 0..=LEVEL_MAX => TileKind::Hashes(level as u8),
                _ => return Err(TileError::Level),
            },
        };
        let (index, width) = match rest.split_once(".p/") {
            None => (rest, TILE_WIDTH),
            Some((index, width)) => match parse_decimal(width) {
                Some(width @ 1..=255) => (index, width as u16),
                _ => return Err(TileError::Width),
            },
        };
        // 20 digits of a 64-bit number, in groups of three with `x` and `/`.
        if index.len() > 35 {
            return Err(TileError::Path);
        }
        let digits: String = index.chars().filter(char::is_ascii_digit).collect();
        let tile = Self { kind, index: digits.parse().map_err(|_| TileError::Path)?, width };
        // One index has many spellings and one of them counts.
        if tile.to_string() != path {
            return Err(TileError::Path);
        }
        Ok(tile)
    }
}

/// A bundle of 1 to 256 entries: each with its length in 2 bytes big-endian before it.
pub fn encode_bundle<E: AsRef<[u8]>>(entries: &[E]) -> Result<Vec<u8>, TileError> {
    if entries.is_empty() || entries.len() > usize::from(TILE_WIDTH) {
        return Err(TileError::EntryCount);
    }
    let mut bundle = Vec::new();
    for entry in entries {
        let entry = entry.as_ref();
        let length = u16::try_from(entry.len()).map_err(|_| TileError::EntryTooLong)?;
        bundle.extend(length.to_be_bytes());
        bundle.extend(entry);
    }
    Ok(bundle)
}

/// The entries of a bundle, which has exactly `width` of them.
pub fn decode_bundle(bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, TileError> {
    if !(1..=TILE_WIDTH).contains(&width) {
        return Err(TileError::EntryCount);
    }
    let mut rest = bundle;
    let mut entries = Vec::with_capacity(usize::from(width));
    for _ in 0..width {
        let (length, after) = rest.split_first_chunk().ok_or(TileError::BundleLength)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after.split_at_checked(length).ok_or(TileError::BundleLength)?;
        entries.push(entry);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(TileError::BundleLength);
    }
    Ok(entries)
}

impl TileError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            TileError::Path => "tile-path",
            TileError::Level => "tile-level",
            TileError::Width => "tile-width",
            TileError::EntryTooLong => "tile-entry-too-long",
            TileError::EntryCount => "tile-entry-count",
            TileError::BundleLength => "tile-bundle-length",
        }
    }
}

impl fmt::Display for TileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TileError::Path => "not the path of a tile",
            TileError::Level => "a tile's level is at most 63",
            TileError::Width => "a partial tile's width is 1 to 255",
            TileError::EntryTooLong => "an entry of a bundle has at most 65535 bytes",
            TileError::EntryCount => "a bundle has 1 to 256 entries",
            TileError::BundleLength => "the bundle does not end with its last entry",
        })
    }
}

impl std::error::Error for TileError {}
