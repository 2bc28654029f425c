//! Exact reasons of refusals, for the operator: two files that take turns, so that strangers can't fill the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Size at which a file is put aside. The journal has at most twice that.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Seconds since the Unix epoch, by the host's clock.
    pub(crate) time: u64,
    /// The call.
    pub(crate) request_id: String,
    /// Its method.
    pub(crate) method: String,
    /// Exact code.
    pub(crate) code: String,
    /// Exact reason.
    pub(crate) message: String,
}

/// The journal. Blocks, though only for a write to the page cache: a lost line costs an explanation, not a promise.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    file_bytes_max: u64,
    newest: Mutex<Newest>,
}

#[derive(Debug)]
struct Newest {
    file: File,
    bytes: u64,
}

impl Journal {
    /// Opens or creates the journal in `dir`, which exists.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        Self::open_with(dir, FILE_BYTES_MAX)
    }

    fn open_with(dir: &Path, file_bytes_max: u64) -> io::Result<Self> {
        let newest = Mutex::new(open_at(&newest_path(dir))?);
        Ok(Self { dir: dir.to_owned(), file_bytes_max, newest })
    }

    /// Writes a record down.
    pub(crate) fn record(&self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.bytes + line.len() as u64 > self.file_bytes_max {
            // The new file first: where there is no room for it, the next record is not to find the newest put aside.
            let next = open_at(&next_path(&self.dir))?;
            match fs::rename(newest_path(&self.dir), older_path(&self.dir)) {
                // It was put aside, and then the new one did not get its name.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
            fs::rename(next_path(&self.dir), newest_path(&self.dir))?;
            *newest = next;
        }
        newest.file.write_all(&line)?;
        newest.bytes += line.len() as u64;
        Ok(())
    }

    /// Finds the record of a call.
    pub(crate) fn find(&self, request_id: &str) -> io::Result<Option<Record>> {
        let wanted = request_id.as_bytes();
        for path in [newest_path(&self.dir), older_path(&self.dir)] {
            let file = match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            for line in BufReader::new(file).split(b'\n') {
                let line = line?;
                // To look for bytes costs a fraction of taking the line apart, and one line has them.
                if !line.windows(wanted.len()).any(|bytes| bytes == wanted) {
                    continue;
                }
                // A line that a crash tore is nobody's.
                match serde_json::from_slice::<Record>(&line) {
                    Ok(record) if record.request_id == request_id => return Ok(Some(record)),
                    _ => {}
                }
            }
        }
        Ok(None)
    }
}

fn open_at(path: &Path) -> io::Result<Newest> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    // Ends a line that a crash tore, so that the next one is whole.
    file.write_all(b"\n")?;
    let bytes = file.metadata()?.len();
    Ok(Newest { file, bytes })
}

fn newest_path(dir: &Path) -> PathBuf {
    dir.join("refusals.jsonl")
}

/// What becomes the newest.
fn next_path(dir: &Path) -> PathBuf {
    dir.join("refusals.new.jsonl")
}

fn older_path(dir: &Path) -> PathBuf {
    dir.join("refusals.1.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record {
            time: 7,
            request_id: id.to_owned(),
            method: "Vault.ReleaseKeys".to_owned(),
            code: "pcr-mismatch".to_owned(),
            message: "PCR 11\nexpected a".to_owned(),
        }
    }

    #[test]
    fn a_record_is_found_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        Journal::open(dir.path()).unwrap().record(&record("a")).unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        journal.record(&record("b")).unwrap();
        assert_eq!(journal.find("a").unwrap(), Some(record("a")));
        assert_eq!(journal.find("b").unwrap(), Some(record("b")));
        assert_eq!(journal.find("c").unwrap(), None);
    }

    #[test]
    fn the_journal_never_grows_beyond_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open_with(dir.path(), 1000).unwrap();
        for n in 0..100 {
            journal.record(&record(&n.to_string())).unwrap();
        }
        let total: u64 = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(total <= 2000, "{total}");
        assert!(journal.find("99").unwrap().is_some());
        assert!(journal.find("0").unwrap().is_none());
    }

    #[test]
    fn where_there_is_no_room_for_a_new_file_the_old_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open_with(dir.path(), 1000).unwrap();
        let records =
            |ids: std::ops::Range<u32>| ids.map(|id| journal.record(&record(&format!("id-{id}-")))).collect::<Vec<_>>();
        assert!(records(0..12).iter().all(Result::is_ok) && older_path(dir.path()).exists());
        let older = fs::read(older_path(dir.path())).unwrap();
        // Nothing can be made there.
        fs::create_dir(next_path(dir.path())).unwrap();
        assert!(records(12..40).iter().any(Result::is_err));
        assert_eq!(fs::read(older_path(dir.path())).unwrap(), older);
        assert!(journal.find("id-11-").unwrap().is_some());
        fs::remove_dir(next_path(dir.path())).unwrap();
        assert!(records(40..41).iter().all(Result::is_ok));
        assert!(journal.find("id-11-").unwrap().is_some() && journal.find("id-40-").unwrap().is_some());
        // And where it was killed between the two names.
        fs::remove_file(newest_path(dir.path())).unwrap();
        assert!(records(50..60).iter().all(Result::is_ok));
    }

    #[test]
    fn a_torn_line_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(newest_path(dir.path()), b"{\"time\":7,\"requ").unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        journal.record(&record("a")).unwrap();
        assert!(journal.find("a").unwrap().is_some());
    }
}
