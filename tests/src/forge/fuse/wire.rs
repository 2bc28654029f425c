//! Requests and replies of the FUSE protocol, in the byte order of this machine.

use rustix::io::Errno;

use super::{Kind, Node};

const VERSION: [u32; 2] = [7, 31];
/// Bytes before the body of a request.
const HEADER: usize = 40;
/// FOPEN_DIRECT_IO: past the page cache.
const DIRECT_IO: u32 = 1;
const DIRECTORY_TYPE: u32 = 0o04;
const FILE_TYPE: u32 = 0o10;

/// The body of a reply.
pub(super) type Reply = Vec<u8>;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Init,
    Forget,
    Lookup,
    Getattr,
    Setattr,
    Mkdir,
    Rmdir,
    Readdir,
    Opendir,
    Open,
    Read,
    Write,
    Flush,
    Release,
    Statfs,
    /// Something that needs no doing.
    Nothing,
    /// Something that no such tree allows.
    Forbidden,
    Unknown,
}

impl Opcode {
    fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Lookup,
            // FORGET, INTERRUPT, BATCH_FORGET: nobody waits for an answer.
            2 | 36 | 42 => Self::Forget,
            3 => Self::Getattr,
            4 => Self::Setattr,
            9 => Self::Mkdir,
            11 => Self::Rmdir,
            14 => Self::Open,
            15 => Self::Read,
            16 => Self::Write,
            17 => Self::Statfs,
            18 => Self::Release,
            25 => Self::Flush,
            26 => Self::Init,
            27 => Self::Opendir,
            28 => Self::Readdir,
            // FSYNC, RELEASEDIR, FSYNCDIR, ACCESS, DESTROY.
            20 | 29 | 30 | 34 | 38 => Self::Nothing,
            // SYMLINK, MKNOD, UNLINK, RENAME, LINK, CREATE, RENAME2.
            6 | 8 | 10 | 12 | 13 | 35 | 45 => Self::Forbidden,
            _ => Self::Unknown,
        }
    }
}

/// A request of the kernel: `len, opcode` u32, `unique, node` u64, 16 bytes about the caller, body.
pub(super) struct Request<'a> {
    pub(super) opcode: Opcode,
    pub(super) unique: u64,
    pub(super) node: u64,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// `None` if it is shorter than its header.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, body) = bytes.split_at_checked(HEADER)?;
        Some(Self {
            opcode: Opcode::from_number(number(header, 4) as u32),
            unique: u64::from(number(header, 8) as u32) | number(header, 12) << 32,
            node: u64::from(number(header, 16) as u32) | number(header, 20) << 32,
            body,
        })
    }

    /// A number of the body.
    pub(super) fn u32(&self, at: usize) -> u32 {
        number(self.body, at) as u32
    }

    /// A number of the body.
    pub(super) fn u64(&self, at: usize) -> u64 {
        let bytes = self.body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        u64::from_ne_bytes(bytes.unwrap_or_default())
    }

    /// What follows in the body.
    pub(super) fn rest(&self, at: usize) -> &'a [u8] {
        self.body.get(at..).unwrap_or_default()
    }

    /// A name in the body, up to its zero byte; one that is no text is none.
    pub(super) fn name(&self, at: usize) -> &'a str {
        let bytes = self.rest(at).split(|&byte| byte == 0).next().unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

/// `len` u32, `error` i32, `unique` u64, body.
pub(super) fn message(unique: u64, answer: Result<Reply, Errno>) -> Vec<u8> {
    let (error, body) = match answer {
        Ok(body) => (0, body),
        Err(errno) => (-errno.raw_os_error(), Reply::new()),
    };
    let mut out = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    out.extend(error.to_ne_bytes());
    out.extend(unique.to_ne_bytes());
    out.extend(body);
    out
}

/// `struct fuse_init_out`, 64 bytes; nothing is negotiated but the length of a write.
pub(super) fn init(write_max: u32) -> Reply {
    let mut out = words(&[VERSION[0], VERSION[1], 0, 0, 0, write_max, 1]);
    out.resize(64, 0);
    out
}

/// `struct fuse_entry_out`: the kernel must ask again each time.
pub(super) fn entry(node: Node) -> Reply {
    let mut out = node.inode.to_ne_bytes().to_vec();
    out.resize(40, 0);
    out.extend(attr(node));
    out
}

/// `struct fuse_attr_out`.
pub(super) fn attributes(node: Node) -> Reply {
    let mut out = vec![0; 16];
    out.extend(attr(node));
    out
}

/// `struct fuse_open_out`.
pub(super) fn opened(handle: u64) -> Reply {
    let mut out = handle.to_ne_bytes().to_vec();
    out.extend(words(&[DIRECT_IO, 0]));
    out
}

/// `struct fuse_write_out`.
pub(super) fn written(len: u32) -> Reply {
    words(&[len, 0])
}

/// `struct fuse_statfs_out`.
pub(super) fn statistics() -> Reply {
    vec![0; 80]
}

/// As many of `struct fuse_dirent` from `offset` on as fit into `size` bytes.
pub(super) fn directory(entries: &[(String, Node)], offset: u64, size: u32) -> Reply {
    let mut out = Reply::new();
    for (index, (name, node)) in entries.iter().enumerate().skip(offset as usize) {
        let kind = match node.kind {
            Kind::Directory => DIRECTORY_TYPE,
            Kind::File { .. } => FILE_TYPE,
        };
        let mut entry = node.inode.to_ne_bytes().to_vec();
        entry.extend((index as u64 + 1).to_ne_bytes());
        entry.extend(words(&[name.len() as u32, kind]));
        entry.extend(name.as_bytes());
        entry.resize(entry.len().next_multiple_of(8), 0);
        if out.len() + entry.len() > size as usize {
            break;
        }
        out.extend(entry);
    }
    out
}

/// `struct fuse_attr`, 88 bytes.
fn attr(node: Node) -> Vec<u8> {
    let (mode, links, size) = match node.kind {
        Kind::Directory => (DIRECTORY_TYPE << 12 | 0o755, 2, 0u64),
        Kind::File { readable, writable, .. } => {
            let mode = if readable { 0o444 } else { 0 } | if writable { 0o200 } else { 0 };
            (FILE_TYPE << 12 | mode, 1, 4096)
        }
    };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut out = node.inode.to_ne_bytes().to_vec();
    out.extend(size.to_ne_bytes());
    out.resize(60, 0);
    out.extend(words(&[mode, links, uid, gid, 0, 4096, 0]));
    out
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    u32::from_ne_bytes(bytes.unwrap_or_default()).into()
}
