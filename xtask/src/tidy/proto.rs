//! Every service, call, message, enum, value and field of the wire protocol has a comment: it is the API's documentation.

use super::{Finding, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let protos = tree.files.iter().filter(|file| file.path.ends_with(".proto"));
    protos.flat_map(|file| check_file(&file.path, &file.text)).collect()
}

fn check_file(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut commented = false;
    // A statement may go over several lines; the comment stands above its first.
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        let (code, comment) = line.split_once("//").map_or((line, None), |(code, comment)| (code, Some(comment)));
        let code = code.trim();
        if code.is_empty() {
            // An empty line parts a comment from what follows.
            commented = comment.is_some_and(|comment| !comment.trim().is_empty()) || (inside && commented);
            continue;
        }
        if !inside
            && let Some(name) = declared(code)
            && !commented
            && comment.is_none()
        {
            findings.push(Finding::new(path, number + 1, format!("{name} has no comment")));
        }
        inside = !code.ends_with([';', '{', '}']);
        commented = false;
    }
    findings
}

/// What this line declares, if that needs a comment.
fn declared(code: &str) -> Option<&str> {
    let mut words = code.split(|c: char| c.is_whitespace() || "({=;".contains(c)).filter(|word| !word.is_empty());
    match words.next()? {
        "syntax" | "package" | "import" | "option" | "reserved" | "}" => None,
        "message" | "service" | "enum" | "rpc" | "oneof" => words.next(),
        // A field or a value: `bytes nonce = 1;`, `repeated Unit units = 2;`, `ACTION_LOAD = 1;`
        _ => code.split_once('=')?.0.split_whitespace().last(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "syntax = \"proto3\";\npackage a;\n\n// A.\nmessage A {\n  // B.\n  bytes b = 1;\n  \
        // C\n  // D.\n  oneof c {\n    uint32 d = 2; // D.\n  }\n  reserved 3;\n}\n// E.\nenum E {\n  // F.\n  F = 0;\n}\n\
        // S.\nservice S {\n  // R.\n  rpc R(A) returns (stream\n    A);\n}\n";

    #[test]
    fn commented_file_is_fine() {
        assert_eq!(check_file("a.proto", FINE), []);
    }

    #[test]
    fn each_missing_comment_is_found() {
        for (comment, name) in [
            ("// A.\n", "A"),
            ("  // B.\n", "b"),
            ("  // C\n  // D.\n", "c"),
            (" // D.\n  }", "d"),
            ("// E.\n", "E"),
            ("  // F.\n", "F"),
            ("// S.\n", "S"),
            ("  // R.\n", "R"),
        ] {
            let kept = if comment.ends_with('}') { "\n  }" } else { "" };
            let found = check_file("a.proto", &FINE.replacen(comment, kept, 1));
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert_eq!(found[0].message, format!("{name} has no comment"));
        }
    }

    #[test]
    fn comment_apart_from_what_follows_does_not_count() {
        assert_eq!(check_file("a.proto", "// About the file.\n\nmessage A {}\n").len(), 1);
    }
}
