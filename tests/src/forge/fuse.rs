//! A file system whose files are computed when they are read: the kernel's FUSE protocol (`linux/fuse.h`, version 7.31), as
//! far as a tree of small attributes needs it.
//!
//! Where this process may mount, it does so itself; else `fusermount3` does it for it. Every file is read and written past the
//! page cache, so that a second reader gets a second answer.

mod mount;
mod wire;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::io::Errno;

pub use mount::unmount;
use mount::{Mounted, mount};
use wire::{Opcode, Reply, Request};

/// The inode of the root.
pub const ROOT: u64 = 1;
/// The longest thing that may be written at once.
const WRITE_MAX: u32 = 64 * 1024;

/// A file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number; [`ROOT`] is the root's.
    pub inode: u64,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file, and what may be done with it. This holds for root too.
    File {
        /// It can be read.
        readable: bool,
        /// It can be written.
        writable: bool,
        /// What is written takes effect with each `write`, not with the `close` after it.
        immediate: bool,
        /// The most bytes that it takes.
        limit: usize,
    },
}

/// What is in the file system.
pub trait Tree: Send + 'static {
    /// A node by its number.
    fn node(&self, inode: u64) -> Option<Node>;

    /// What is in a directory.
    fn list(&self, directory: u64) -> Vec<(String, Node)>;

    /// `mkdir`.
    ///
    /// # Errors
    /// What the caller gets.
    fn make_directory(&mut self, parent: u64, name: &str) -> Result<Node, Errno>;

    /// `rmdir`.
    ///
    /// # Errors
    /// What the caller gets.
    fn remove_directory(&mut self, parent: u64, name: &str) -> Result<(), Errno>;

    /// The content of a file, asked for with the first read after each `open`.
    ///
    /// # Errors
    /// What the reader gets.
    fn read(&mut self, inode: u64) -> Result<Vec<u8>, Errno>;

    /// New content of a file.
    ///
    /// # Errors
    /// What the writer gets.
    fn write(&mut self, inode: u64, content: &[u8]) -> Result<(), Errno>;
}

/// A mounted tree. Dropping it takes it away.
pub struct FileSystem {
    mounted: Mounted,
    thread: Option<JoinHandle<()>>,
}

impl FileSystem {
    /// Mounts the tree over an existing directory and serves it in a thread of its own.
    ///
    /// # Errors
    /// There is no `/dev/fuse`, or neither this process nor `fusermount3` may mount.
    pub fn mount(at: &Path, tree: Arc<Mutex<impl Tree>>) -> io::Result<Self> {
        let (mounted, device) = mount(at)?;
        let mut server = Server { device, tree, handles: HashMap::new(), next_handle: 1 };
        let thread = std::thread::Builder::new().name("fuse".to_owned()).spawn(move || server.run())?;
        Ok(Self { mounted, thread: Some(thread) })
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // Only a forced end is sure to end the thread, and only who mounted it himself can force it.
        if self.mounted.end()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// An open file.
struct Handle {
    inode: u64,
    content: Option<Vec<u8>>,
    written: Vec<u8>,
}

struct Server<T> {
    device: File,
    tree: Arc<Mutex<T>>,
    handles: HashMap<u64, Handle>,
    next_handle: u64,
}

impl<T: Tree> Server<T> {
    fn run(&mut self) {
        let mut buffer = vec![0; WRITE_MAX as usize + 8192];
        loop {
            let len = match self.device.read(&mut buffer) {
                Ok(len) => len,
                // ENOENT: the request was taken back before it was read.
                Err(error)
                    if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::INTR | Errno::AGAIN)) =>
                {
                    continue;
                }
                Err(_) => return,
            };
            let Some(request) = Request::parse(&buffer[..len]) else { return };
            if let Some(answer) = self.answer(&request) {
                // The kernel refuses an answer only when nobody waits for it any more.
                let _ = self.device.write(&wire::message(request.unique, answer));
            }
        }
    }

    fn answer(&mut self, request: &Request<'_>) -> Option<Result<Reply, Errno>> {
        let tree = Arc::clone(&self.tree);
        let mut tree = tree.lock().unwrap_or_else(PoisonError::into_inner);
        Some(match request.opcode {
            Opcode::Init => Ok(wire::init(WRITE_MAX)),
            Opcode::Forget => return None,
            Opcode::Lookup => lookup(&*tree, request.node, request.name(0)).map(wire::entry),
            Opcode::Getattr | Opcode::Setattr => tree.node(request.node).ok_or(Errno::NOENT).map(wire::attributes),
            Opcode::Mkdir => tree.make_directory(request.node, request.name(8)).map(wire::entry),
            Opcode::Rmdir => tree.remove_directory(request.node, request.name(0)).map(|()| Reply::new()),
            Opcode::Readdir => Ok(wire::directory(&listing(&*tree, request.node), request.u64(8), request.u32(16))),
            Opcode::Opendir => Ok(wire::opened(0)),
            Opcode::Open => self.open(&*tree, request),
            Opcode::Read => self.read(&mut *tree, request),
            Opcode::Write => self.write(&mut *tree, request),
            Opcode::Flush => self.flush(&mut *tree, request),
            Opcode::Release => {
                self.handles.remove(&request.u64(0));
                Ok(Reply::new())
            }
            Opcode::Statfs => Ok(wire::statistics()),
            Opcode::Nothing => Ok(Reply::new()),
            Opcode::Forbidden => Err(Errno::PERM),
            Opcode::Unknown => Err(Errno::NOSYS),
        })
    }

    fn open(&mut self, tree: &T, request: &Request<'_>) -> Result<Reply, Errno> {
        let node = tree.node(request.node).ok_or(Errno::NOENT)?;
        let Kind::File { readable, writable, .. } = node.kind else { return Err(Errno::ISDIR) };
        let access = request.u32(0) & 3;
        let (reads, writes) = (access == 0 || access == 2, access == 1 || access == 2);
        if (reads && !readable) || (writes && !writable) {
            return Err(Errno::ACCESS);
        }
        let handle = self.next_handle;
        self.next_handle += 1;
        self.handles.insert(handle, Handle { inode: node.inode, content: None, written: Vec::new() });
        Ok(wire::opened(handle))
    }

    fn read(&mut self, tree: &mut T, request: &Request<'_>) -> Result<Reply, Errno> {
        let handle = self.handles.get_mut(&request.u64(0)).ok_or(Errno::BADF)?;
        if handle.content.is_none() {
            handle.content = Some(tree.read(handle.inode)?);
        }
        let content = handle.content.as_deref().unwrap_or_default();
        let from = usize::try_from(request.u64(8)).unwrap_or(usize::MAX).min(content.len());
        let to = from.saturating_add(request.u32(16) as usize).min(content.len());
        Ok(content[from..to].to_vec())
    }

    fn write(&mut self, tree: &mut T, request: &Request<'_>) -> Result<Reply, Errno> {
        let handle = self.handles.get_mut(&request.u64(0)).ok_or(Errno::BADF)?;
        let Some(Node { kind: Kind::File { immediate, limit, .. }, .. }) = tree.node(handle.inode) else {
            return Err(Errno::NOENT);
        };
        let (from, data) = (request.u64(8) as usize, request.rest(40));
        let len = from.checked_add(data.len()).filter(|&len| len <= limit).ok_or(Errno::FBIG)?;
        handle.written.resize(handle.written.len().max(len), 0);
        handle.written[from..len].copy_from_slice(data);
        if immediate {
            tree.write(handle.inode, &std::mem::take(&mut handle.written))?;
        }
        Ok(wire::written(data.len() as u32))
    }

    /// Comes with each `close`, which waits for it.
    fn flush(&mut self, tree: &mut T, request: &Request<'_>) -> Result<Reply, Errno> {
        let handle = self.handles.get_mut(&request.u64(0)).ok_or(Errno::BADF)?;
        let written = std::mem::take(&mut handle.written);
        if !written.is_empty() {
            tree.write(handle.inode, &written)?;
        }
        Ok(Reply::new())
    }
}

fn lookup(tree: &impl Tree, directory: u64, name: &str) -> Result<Node, Errno> {
    let found = tree.list(directory).into_iter().find(|(entry, _)| entry == name);
    found.map(|(_, node)| node).ok_or(Errno::NOENT)
}

fn listing(tree: &impl Tree, directory: u64) -> Vec<(String, Node)> {
    let this = Node { inode: directory, kind: Kind::Directory };
    let dots = [(".".to_owned(), this), ("..".to_owned(), Node { inode: ROOT, ..this })];
    dots.into_iter().chain(tree.list(directory)).collect()
}
