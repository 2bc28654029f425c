//! Rules about the codes of refusals: `fn code(&self) -> &'static str` names each, and each has a test.

use super::rust::is_ident;
use super::{Finding, RustSource, Tree};
use std::collections::BTreeSet;
use std::ops::Range;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in tree.rust_files() {
        for body in code_functions(source) {
            let mut seen = BTreeSet::new();
            for (at, code) in source.strings.iter().filter(|(at, _)| body.contains(at)) {
                let line = source.line(*at);
                if !is_kebab_case(code) {
                    findings.push(Finding::new(path, line, format!("code {code:?} is not kebab-case")));
                }
                if !seen.insert(code) {
                    findings.push(Finding::new(path, line, format!("code {code:?} stands for two refusals")));
                }
            }
        }
    }
    findings
}

/// Refusals that no test names, neither by variant nor by code.
pub(super) fn notes(tree: &Tree) -> Vec<String> {
    let tested: BTreeSet<&str> = tree.rust_files().flat_map(|(_, source)| words_of_tests(source)).collect();
    let codes_tested: BTreeSet<&str> = tree
        .rust_files()
        .flat_map(|(_, source)| {
            source.strings.iter().filter(|(at, _)| source.is_test(*at)).map(|(_, text)| text.as_str())
        })
        .collect();
    let mut notes = Vec::new();
    for (path, source) in tree.rust_files() {
        let refusals = code_functions(source).into_iter().flat_map(|body| arms(source, body));
        let untested = refusals.filter(|(variants, code)| {
            !codes_tested.contains(code.as_str()) && !variants.iter().any(|variant| tested.contains(variant.as_str()))
        });
        let untested: Vec<String> = untested.map(|(_, code)| code).collect();
        if !untested.is_empty() {
            notes.push(format!("{path}: no test names the refusals {}", untested.join(", ")));
        }
    }
    notes
}

/// The bodies of functions called `code` that return a text.
fn code_functions(source: &RustSource) -> Vec<Range<usize>> {
    let named = source.words("code").filter(|&at| source.code[..at].trim_end().ends_with("fn") && !source.is_test(at));
    let with_body = named.filter_map(|at| Some((at, source.block_after(at)?)));
    // Literals are blanked in `code`, lifetimes are not.
    with_body.filter(|(at, body)| source.code[*at..body.start].contains("&'static str")).map(|(_, body)| body).collect()
}

/// The match arms: the variants left of the code, and the code.
fn arms(source: &RustSource, body: Range<usize>) -> Vec<(Vec<String>, String)> {
    let mut from = body.start;
    let mut arms = Vec::new();
    for (at, code) in source.strings.iter().filter(|(at, _)| body.contains(at)) {
        let pattern = &source.code[from..*at];
        let variants = pattern.match_indices("::").map(|(colons, _)| {
            let rest = &pattern[colons + 2..];
            rest[..rest.find(|c| !is_ident(c)).unwrap_or(rest.len())].to_string()
        });
        arms.push((variants.collect(), code.clone()));
        from = at + code.len();
    }
    arms
}

fn words_of_tests(source: &RustSource) -> impl Iterator<Item = &str> {
    source.idents().filter(|(at, _)| source.is_test(*at)).map(|(_, word)| word)
}

fn is_kebab_case(code: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    code.split('-').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(arms: &str, tests: &str) -> String {
        format!(
            "impl E {{ pub fn code(&self) -> &'static str {{ match self {{ {arms} }} }} }}\n\
             #[cfg(test)] mod tests {{ {tests} }}"
        )
    }

    #[test]
    fn code_that_is_not_kebab_case_or_not_unique_is_found() {
        let found = |arms: &str| check(&Tree::of(&[("a.rs", &source(arms, ""))]));
        assert_eq!(found(r#"Self::A => "too-few", Self::B { .. } => "sha256-mismatch""#), []);
        assert!(found(r#"Self::A => "TooFew""#)[0].message.contains("kebab"));
        assert!(found(r#"Self::A => "too--few""#)[0].message.contains("kebab"));
        assert!(found(r#"Self::A => "same", Self::B => "same""#)[0].message.contains("two refusals"));
    }

    #[test]
    fn refusal_without_a_test_is_noted() {
        let arms = r#"Self::Short => "short", Self::Long(_) => "long", Self::Wide => "wide""#;
        let text = source(arms, "assert_eq!(e, E::Short); assert_eq!(e.code(), \"wide\");");
        assert_eq!(notes(&Tree::of(&[("a.rs", &text)])), ["a.rs: no test names the refusals long"]);
    }
}
