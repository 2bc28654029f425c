//! The tree of [`super::tsm`] as plain files, for where FUSE cannot be had, such as a container without privileges.
//!
//! A thread looks every few milliseconds for new directories and writes, and does in files what the kernel does in a call. So
//! a guest must wait a little for attributes to appear and for `outblob` to have content, must use an entry for one report,
//! and sees a refusal only in that nothing comes. `rmdir` needs the files removed first.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::fuse::{Kind, Node, ROOT, Tree};

const LOOKS_EVERY: Duration = Duration::from_millis(3);

/// A tree of files that is being kept. Dropping it ends that; the files stay.
pub struct PlainTree {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PlainTree {
    /// Keeps the tree in this directory.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn keep(root: &Path, tree: Arc<Mutex<impl Tree>>) -> io::Result<Self> {
        let ends = Arc::new(AtomicBool::new(false));
        let (end, root) = (Arc::clone(&ends), root.to_owned());
        let mut entries = BTreeMap::new();
        let thread = std::thread::Builder::new().name("plain-tree".to_owned()).spawn(move || {
            while !end.load(Ordering::SeqCst) {
                let mut tree = tree.lock().unwrap_or_else(PoisonError::into_inner);
                // An entry that goes away while it is looked at is gone at the next look.
                let _ = look(&root, &mut *tree, &mut entries);
                drop(tree);
                std::thread::sleep(LOOKS_EVERY);
            }
        })?;
        Ok(Self { ends, thread: Some(thread) })
    }
}

impl Drop for PlainTree {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What of an entry was taken: file name to content.
struct Taken {
    directory: Node,
    written: BTreeMap<String, Vec<u8>>,
}

fn look(root: &Path, tree: &mut impl Tree, entries: &mut BTreeMap<String, Taken>) -> io::Result<()> {
    let mut present = BTreeMap::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            present.insert(entry.file_name().to_string_lossy().into_owned(), entry.path());
        }
    }
    entries.retain(|name, _| present.contains_key(name) || tree.remove_directory(ROOT, name).is_err());
    for (name, path) in present {
        if let Some(taken) = entries.get_mut(&name) {
            take(&path, tree, taken)?;
        } else {
            let directory = tree.make_directory(ROOT, &name)?;
            fill(&path, tree, directory)?;
            entries.insert(name, Taken { directory, written: BTreeMap::new() });
        }
    }
    Ok(())
}

/// The attributes of a new entry, `provider` last: with it the entry is ready.
fn fill(path: &Path, tree: &mut impl Tree, directory: Node) -> io::Result<()> {
    let mut attributes = tree.list(directory.inode);
    attributes.sort_by_key(|(name, _)| name == "provider");
    for (name, node) in attributes {
        let content = if is_readable(node) { tree.read(node.inode).unwrap_or_default() } else { Vec::new() };
        replace(&path.join(name), &content)?;
    }
    Ok(())
}

/// Takes what was written, and once something was asked for with `inblob`, answers.
fn take(path: &Path, tree: &mut impl Tree, taken: &mut Taken) -> io::Result<()> {
    let attributes = tree.list(taken.directory.inode);
    let writable = attributes.iter().filter(|(_, node)| !is_readable(*node));
    // `inblob` is read first and taken last: where it is seen, what was written before it is seen as well.
    let mut seen: Vec<(&String, Node, Vec<u8>)> =
        writable.map(|(name, node)| Ok((name, *node, fs::read(path.join(name))?))).collect::<io::Result<_>>()?;
    seen.sort_by_key(|(name, ..)| *name == "inblob");
    let mut is_asked = false;
    for (name, node, content) in seen {
        if content.is_empty() || taken.written.get(name) == Some(&content) {
            continue;
        }
        // What the tree refuses counts as not written.
        is_asked |= tree.write(node.inode, &content).is_ok() && name == "inblob";
        taken.written.insert(name.clone(), content);
    }
    if is_asked {
        let mut readable: Vec<_> = attributes.iter().filter(|(_, node)| is_readable(*node)).collect();
        // Where the report is, all else that came with it is.
        readable.sort_by_key(|(name, _)| name == "outblob");
        for (name, node) in readable {
            replace(&path.join(name), &tree.read(node.inode).unwrap_or_default())?;
        }
    }
    Ok(())
}

fn is_readable(node: Node) -> bool {
    matches!(node.kind, Kind::File { readable: true, .. })
}

/// Writes a file so that no one sees half of it.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().and_then(Path::parent).unwrap_or(path);
    let half: PathBuf = directory.join(".half");
    fs::write(&half, content)?;
    fs::rename(half, path)
}
