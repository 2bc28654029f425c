//! A reader of an agent, by hand: the line that it sends and the frames that it gets (FORMAT.md §12).

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::thread::{Gid, Uid};
use serde_json::Value;

/// How long a frame may take.
const FRAME_WITHIN: Duration = Duration::from_secs(60);

/// A connection to an agent.
pub struct Reader {
    stream: UnixStream,
    /// The files that came so far, by path.
    pub files: Vec<(String, File)>,
}

impl Reader {
    /// Connects and asks.
    pub fn ask(socket: &Path, line: &str) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        stream.set_read_timeout(Some(FRAME_WITHIN)).expect("a time");
        // Whoever is refused may have been told so before he asks.
        let _ = stream.write_all(line.as_bytes());
        Self { stream, files: Vec::new() }
    }

    /// Asks for a model and waits until all of its files are there.
    pub fn open(socket: &Path, model: &str) -> Self {
        let mut reader = Self::ask(socket, &format!("v1 open {model}\n"));
        loop {
            let frame = reader.frame().expect("the agent goes on");
            match frame["frame"].as_str() {
                Some("loading" | "file") => {}
                Some("ready") => return reader,
                _ => panic!("{frame}"),
            }
        }
    }

    /// Waits longer, or less long, for frames from now on.
    pub fn wait_at_most(&self, time: Duration) {
        self.stream.set_read_timeout(Some(time)).expect("a time");
    }

    /// The next frame; `None` where the agent has closed the connection.
    pub fn frame(&mut self) -> Option<Value> {
        let mut length = [0; 4];
        let descriptor = self.receive(&mut length)?;
        let mut json = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut json).expect("a whole frame");
        let frame: Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(descriptor.is_some(), frame["frame"] == "file", "{frame}");
        if let Some(descriptor) = descriptor {
            self.files.push((frame["path"].as_str().expect("a path").to_owned(), descriptor.into()));
        }
        Some(frame)
    }

    /// A file that came.
    pub fn file(&self, path: &str) -> &File {
        let found = self.files.iter().find(|(name, _)| name == path);
        &found.unwrap_or_else(|| panic!("no {path}")).1
    }

    /// Reads a length, and the descriptor that comes with it; `None` at the end.
    fn receive(&self, length: &mut [u8; 4]) -> Option<Option<OwnedFd>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(length)];
        let received = rustix::net::recvmsg(&self.stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC);
        let bytes = received.expect("a frame in time").bytes;
        if bytes == 0 {
            return None;
        }
        assert_eq!(bytes, 4, "a frame comes whole");
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        assert!(descriptors.len() <= 1, "one descriptor a frame");
        Some(descriptors.pop())
    }
}

/// Runs `work` as another user: the kernel knows users by thread.
pub fn as_user<T: Send + 'static>(uid: u32, gid: u32, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::thread::set_thread_groups(&[]).expect("root may");
        rustix::thread::set_thread_res_gid(gid, gid, gid).expect("root may");
        rustix::thread::set_thread_res_uid(uid, uid, uid).expect("root may");
        work()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
