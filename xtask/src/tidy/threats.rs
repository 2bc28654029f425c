//! Rules about THREATS.md: what is said to stop an attack is shown by tests that are there.

use super::{Finding, RustSource, Tree};
use std::collections::BTreeSet;

const PATH: &str = "THREATS.md";

/// Every row of a table whose last column is `test` names tests, and each of them exists.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(threats) = tree.file(PATH) else { return Vec::new() };
    let tests: BTreeSet<&str> = tree.rust_files().flat_map(|(_, source)| test_functions(source)).collect();
    let mut findings = Vec::new();
    let mut in_table = false;
    for (number, line) in (1..).zip(threats.text.lines()) {
        let Some(row) = line.strip_prefix('|') else {
            in_table = false;
            continue;
        };
        let last = row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or_default().trim();
        if last == "test" {
            in_table = true;
        } else if in_table && !last.starts_with("---") {
            let named: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
            if named.is_empty() {
                findings.push(Finding::new(PATH, number, "names no test"));
            }
            let missing = named.into_iter().filter(|name| !tests.contains(name));
            findings.extend(missing.map(|name| Finding::new(PATH, number, format!("there is no test `{name}`"))));
        }
    }
    findings
}

fn test_functions(source: &RustSource) -> impl Iterator<Item = &str> {
    let named = source.idents().filter(|(at, _)| source.is_test(*at));
    named.filter(|(at, _)| source.code[..*at].trim_end().ends_with("fn")).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(row: &str) -> Vec<Finding> {
        let threats = format!("| attack | what stops it | test |\n|---|---|---|\n{row}\n");
        let source = "fn helper() {}\n#[cfg(test)]\nmod tests { #[test] fn it_is_refused() {} }";
        check(&Tree::of(&[(PATH, &threats), ("a/src/lib.rs", source)]))
    }

    #[test]
    fn row_without_a_test_that_is_there_is_found() {
        assert_eq!(found("| a | b | `it_is_refused` |"), []);
        assert_eq!(found("| a | b | `it_was_refused` |"), [Finding::new(PATH, 3, "there is no test `it_was_refused`")]);
        assert_eq!(
            found("| a | b | `it_is_refused`, `helper` |"),
            [Finding::new(PATH, 3, "there is no test `helper`")]
        );
        assert_eq!(found("| a | b | trust me |"), [Finding::new(PATH, 3, "names no test")]);
    }
}
