//! The stores that several hosts share, each with a real server behind it.

use std::path::PathBuf;

use crate::postgres::Postgres;
use crate::s3::S3;

/// One of them, with what a test may do behind a host's back.
pub enum Shared {
    S3(S3),
    Postgres(Postgres),
}

impl Shared {
    /// All of them, one after the other. Where there is no server, a line says so.
    pub fn all() -> impl Iterator<Item = Self> {
        let starts: [fn() -> Option<Self>; 2] =
            [|| S3::start().map(Self::S3), || Postgres::start().map(Self::Postgres)];
        starts.into_iter().filter_map(|start| start())
    }

    /// Lines of a host's configuration. They come before its first section.
    pub fn config(&self, prefix: &str) -> String {
        match self {
            Self::S3(s3) => s3.config(prefix),
            Self::Postgres(postgres) => postgres.config(prefix),
        }
    }

    /// The same, for somebody whom the server does not let in.
    pub fn wrong_config(&self, prefix: &str) -> String {
        match self {
            Self::S3(s3) => s3.wrong_config(prefix),
            Self::Postgres(postgres) => postgres.wrong_config(prefix),
        }
    }

    pub fn read(&self, prefix: &str, name: &str) -> Vec<u8> {
        match self {
            Self::S3(s3) => std::fs::read(s3.object(&format!("{prefix}/{name}"))).unwrap(),
            Self::Postgres(postgres) => postgres.read(prefix, name),
        }
    }

    /// Writes over an object that is there.
    pub fn write(&self, prefix: &str, name: &str, bytes: &[u8]) {
        match self {
            Self::S3(s3) => std::fs::write(s3.object(&format!("{prefix}/{name}")), bytes).unwrap(),
            Self::Postgres(postgres) => postgres.write(prefix, name, bytes),
        }
    }

    /// Names of the objects below a name.
    pub fn names(&self, prefix: &str, dir: &str) -> Vec<String> {
        match self {
            Self::S3(s3) => files(&s3.object(prefix), dir),
            Self::Postgres(postgres) => postgres.names(prefix, dir),
        }
    }

    /// Puts all that it has aside as it is now, under a name. Units in a directory stay where they are.
    pub fn save(&mut self, name: &str) {
        match self {
            Self::S3(s3) => s3.save(name),
            Self::Postgres(postgres) => postgres.save(name),
        }
    }

    /// Puts it back as it was.
    pub fn roll_back_to(&mut self, name: &str) {
        match self {
            Self::S3(s3) => s3.roll_back_to(name),
            Self::Postgres(postgres) => postgres.roll_back_to(name),
        }
    }

    pub fn stop(&mut self) {
        match self {
            Self::S3(s3) => s3.stop(),
            Self::Postgres(postgres) => postgres.stop(),
        }
    }

    pub fn restart(&mut self) {
        match self {
            Self::S3(s3) => s3.restart(),
            Self::Postgres(postgres) => postgres.restart(),
        }
    }
}

/// All files below `dir` of `root`, by their names from `root` on.
pub fn files(root: &std::path::Path, dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = vec![root.join(dir)];
    while let Some(dir) = dirs.pop() {
        for file in std::fs::read_dir(dir).into_iter().flatten() {
            let path = file.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
