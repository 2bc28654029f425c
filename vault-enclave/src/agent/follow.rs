//! A file that says which version of a model is to be used, and that may change while a command runs.

use std::path::Path;

use ledger::names::{Name, Version};

use super::options::read_file;
use crate::failure::{Failure, Kind};

const BYTES_MAX: usize = 1 << 10;

/// The version that `file` names, as `VERSION` or `MODEL@VERSION`. It is not trusted: what it names is released by the
/// vault's policy, or not at all.
///
/// # Errors
/// `io`, or `follow-malformed`.
pub(super) fn followed(file: &Path, model: &Name) -> Result<Version, Failure> {
    let bytes = read_file(file, BYTES_MAX)?;
    parse(&bytes, model).ok_or_else(|| {
        let message = format!("{} names no version of {model}", file.display());
        Failure::new(Kind::Usage, "follow-malformed", message).next(format!("write a line into it: {model}@VERSION"))
    })
}

fn parse(bytes: &[u8], model: &Name) -> Option<Version> {
    let line = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= BYTES_MAX)?.trim();
    let version = match line.split_once('@') {
        Some((named, version)) if named == model.as_str() => version,
        Some(_) => return None,
        None => line,
    };
    Version::try_from(version.to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_alone_or_behind_its_model() {
        let model = Name::try_from("llama".to_owned()).unwrap();
        let version = |text: &str| parse(text.as_bytes(), &model).map(|version| version.as_str().to_owned());
        assert_eq!(version("3\n").as_deref(), Some("3"));
        assert_eq!(version("llama@3.1").as_deref(), Some("3.1"));
        for bad in ["", "\n", "other@3", "llama@", "llama@3@4", "3\n4", "../3", &"3".repeat(2000)] {
            assert_eq!(version(bad), None, "{bad:?}");
        }
        assert_eq!(parse(&[0xff], &model), None);
    }
}
