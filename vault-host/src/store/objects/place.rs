//! What the store asks of whatever keeps its objects: whole bytes under a name, replaced under a condition.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::store::StoreError;

/// What a place calls one content of an object.
pub(super) type Tag = String;

/// A condition of a write, which the place checks.
pub(super) enum If<'a> {
    /// None.
    Always,
    /// The object has this content still; `None` where there was no object.
    Unchanged(Option<&'a Tag>),
}

/// What a conditional write came to.
#[derive(Debug)]
pub(super) enum Written {
    /// It is durable under this tag.
    Yes(Tag),
    /// The condition did not hold. An answer may have been lost on its way and the request made again, so that what is
    /// there may be what was written: whoever must know reads it.
    Changed,
}

/// One name of a listing.
pub(super) struct Listed {
    /// The name.
    pub(super) name: String,
    /// When it was written, by the clock of the place.
    pub(super) written: SystemTime,
}

/// Objects by name. Every call blocks, 25 s at most: the keeper waits 30 s for one of its own.
pub(super) trait Objects: fmt::Debug + Send + Sync {
    /// Reads an object of at most `max` bytes; `None` where there is none.
    fn get(&self, name: &str, max: usize) -> Result<Option<(Vec<u8>, Tag)>, StoreError>;

    /// Length of an object; `None` where there is none.
    fn length(&self, name: &str) -> Result<Option<u64>, StoreError>;

    /// Writes an object, durably, if the condition holds.
    fn put(&self, name: &str, bytes: Vec<u8>, condition: If<'_>) -> Result<Written, StoreError>;

    /// Removes an object if it is there.
    fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// All objects whose names begin with `dir` and a slash.
    fn list(&self, dir: &str) -> Result<Vec<Listed>, StoreError>;

    /// What an error calls an object.
    fn path(&self, name: &str) -> PathBuf;

    /// Writes an object, durably, whatever was there.
    fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        match self.put(name, bytes, If::Always)? {
            Written::Yes(_) => Ok(()),
            Written::Changed => Err(self.damaged(name, "a write without a condition came to nothing")),
        }
    }

    /// An object is not what it has to be.
    fn damaged(&self, name: &str, what: &'static str) -> StoreError {
        StoreError::Damaged { path: self.path(name), what }
    }
}
