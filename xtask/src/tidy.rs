//! `cargo xtask tidy`: the house rules that the compiler does not hold. ARCHITECTURE.md says why each is there.
//!
//! A rule is a function from the tracked files, or from the graph of dependencies, to findings. Each has a test that shows it
//! fail.

mod graph;
mod lock;
mod proto;
mod refusals;
mod rust;
mod sources;
mod text;
mod threats;

use crate::{Result, shell};
use graph::Graph;
use rust::RustSource;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Checks every rule and prints all findings.
///
/// # Errors
/// If there is any.
pub(crate) fn run() -> Result<()> {
    let tree = Tree::load(&shell::root())?;
    let graph = Graph::load()?;
    let mut findings = Vec::new();
    findings.extend(graph::check(&graph));
    findings.extend(lock::check(&tree, &graph.built));
    findings.extend(sources::check(&tree));
    findings.extend(text::check(&tree));
    findings.extend(proto::check(&tree));
    findings.extend(refusals::check(&tree));
    findings.extend(threats::check(&tree));
    for note in text::notes(&tree).iter().chain(&refusals::notes(&tree)) {
        println!("note: {note}");
    }
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {} files keep the house rules", tree.files.len());
            Ok(())
        }
        count => Err(format!("{count} against the house rules").into()),
    }
}

/// What is wrong, and where.
#[derive(Debug, PartialEq)]
struct Finding {
    path: String,
    /// From 1; 0 for the file as a whole.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// The files that git tracks, and those that it would.
struct Tree {
    files: Vec<SourceFile>,
}

/// One file of text. Other files are in the tree with no text.
struct SourceFile {
    /// From the root, with `/`.
    path: String,
    text: String,
    /// For `.rs` files.
    rust: Option<RustSource>,
}

impl Tree {
    fn load(root: &Path) -> Result<Self> {
        let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let paths = shell::output(Command::new("git").current_dir(root).args(list))?;
        let mut files = Vec::new();
        for path in paths.split('\0').filter(|path| !path.is_empty()) {
            let file = root.join(path);
            // Deleted but not committed, or a link: what it points to is looked at in its own place.
            if fs::symlink_metadata(&file).is_ok_and(|data| data.is_file()) {
                files.push((path.to_string(), fs::read(&file)?));
            }
        }
        Ok(Self::new(files))
    }

    fn new(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let files = files.into_iter().map(|(path, bytes)| {
            let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).unwrap_or_default();
            let rust = path.ends_with(".rs").then(|| RustSource::parse(&text));
            SourceFile { path, text, rust }
        });
        let mut tree = Self { files: files.collect() };
        tree.mark_test_files();
        tree
    }

    /// A file is a test as a whole if it lies in a `tests` or `benches` directory, or if its `mod` is under `#[cfg(test)]`.
    fn mark_test_files(&mut self) {
        let mut tests = Vec::new();
        for (path, source) in self.rust_files() {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            let below = match name {
                "lib.rs" | "main.rs" | "mod.rs" => dir.to_string(),
                name => format!("{dir}/{}", name.trim_end_matches(".rs")),
            };
            tests.extend(source.test_modules.iter().map(|module| format!("{below}/{module}")));
        }
        for file in &mut self.files {
            let in_tests =
                file.path.contains("/tests/") || file.path.starts_with("tests/") || file.path.contains("/benches/");
            let of_module = |module: &String| {
                file.path.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            };
            if let Some(rust) = file.rust.as_mut()
                && (in_tests || tests.iter().any(of_module))
            {
                rust.all_is_test = true;
            }
        }
    }

    fn rust_files(&self) -> impl Iterator<Item = (&str, &RustSource)> {
        self.files.iter().filter_map(|file| Some((file.path.as_str(), file.rust.as_ref()?)))
    }

    fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// A tree of these files, for tests of the rules.
    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        Self::new(files.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_that_is_compiled_for_tests_only_is_a_test_with_all_below_it() {
        let tree = Tree::of(&[
            ("a/src/lib.rs", "#[cfg(test)]\nmod checks;\nmod real;"),
            ("a/src/checks.rs", "mod deep;"),
            ("a/src/checks/deep.rs", ""),
            ("a/src/real.rs", "#[cfg(test)]\n#[path = \"x\"]\nmod inner;"),
            ("a/src/real/inner.rs", ""),
            ("a/tests/all.rs", ""),
        ]);
        let tests: Vec<&str> = tree.rust_files().filter(|(_, rust)| rust.all_is_test).map(|(path, _)| path).collect();
        assert_eq!(tests, ["a/src/checks.rs", "a/src/checks/deep.rs", "a/src/real/inner.rs", "a/tests/all.rs"]);
    }

    #[test]
    fn finding_shows_where() {
        assert_eq!(Finding::new("a.rs", 3, "wrong").to_string(), "a.rs:3: wrong");
        assert_eq!(Finding::new("a.rs", 0, "wrong").to_string(), "a.rs: wrong");
    }
}
