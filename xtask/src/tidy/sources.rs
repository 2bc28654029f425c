//! Rules about Rust code: what may stand in which file.

use super::{Finding, RustSource, Tree};

/// The one file with unsafe code.
const UNSAFE_FILE: &str = "vault-enclave/src/region.rs";
/// Crates that promise no IO, no clock and no async.
const PURE: [&str; 2] = ["attestation/src/", "ledger/src/"];
/// Crate roots that must forbid unsafe code, so that no `allow` further down can bring it back.
const FORBID_UNSAFE: [&str; 4] =
    ["attestation/src/lib.rs", "ledger/src/lib.rs", "vault-host/src/lib.rs", "vault-host/src/main.rs"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in tree.rust_files() {
        findings.extend(unsafe_code(path, source, tree));
        findings.extend(unfinished(path, source));
        if path.starts_with("vault-enclave/src/") || path.starts_with("vaultctl/src/") {
            findings.extend(key_material(path, source));
        }
        if PURE.iter().any(|dir| path.starts_with(dir)) {
            findings.extend(purity(path, source));
        }
    }
    for path in FORBID_UNSAFE {
        let Some(source) = tree.file(path).and_then(|file| file.rust.as_ref()) else {
            findings.push(Finding::new(path, 0, "missing: it must forbid unsafe code"));
            continue;
        };
        if !source.code.contains("#![forbid(unsafe_code)]") {
            findings.push(Finding::new(path, 1, "must say #![forbid(unsafe_code)]"));
        }
    }
    findings
}

fn unsafe_code(path: &str, source: &RustSource, tree: &Tree) -> Vec<Finding> {
    let allowed = path == UNSAFE_FILE;
    let mut findings = Vec::new();
    for offset in source.words("unsafe") {
        let line = source.line(offset);
        if !allowed {
            findings.push(Finding::new(path, line, format!("unsafe code belongs in {UNSAFE_FILE} alone")));
        } else if !is_justified(tree.file(path).map_or("", |file| &file.text), line) {
            findings.push(Finding::new(
                path,
                line,
                "unsafe code needs a comment with SAFETY: and JUSTIFICATION: just above",
            ));
        }
    }
    if !allowed {
        for offset in source.words("unsafe_code") {
            let before = source.code[..offset].trim_end_matches(['(', ' ']);
            if before.ends_with("allow") || before.ends_with("expect") {
                findings.push(Finding::new(path, source.line(offset), "no one else may allow unsafe code"));
            }
        }
    }
    findings
}

/// Whether the comment that ends nearest above this line, at most a statement's first lines away, has both words.
fn is_justified(text: &str, line: usize) -> bool {
    const STATEMENT_LINES_MAX: usize = 4;
    let above: Vec<&str> = text.lines().take(line - 1).collect();
    let is_comment = |line: &&&str| line.trim_start().starts_with("//");
    let code = above.iter().rev().take_while(|line| !is_comment(line)).count();
    let comment: String = above.iter().rev().skip(code).take_while(is_comment).copied().collect();
    code <= STATEMENT_LINES_MAX && comment.contains("SAFETY:") && comment.contains("JUSTIFICATION:")
}

fn unfinished(path: &str, source: &RustSource) -> Vec<Finding> {
    let macros = ["todo", "unimplemented", "dbg"];
    let calls = macros.iter().flat_map(|name| {
        let called = source.words(name).filter(move |at| source.rest(at + name.len()).starts_with('!'));
        called.map(move |at| Finding::new(path, source.line(at), format!("{name}! does not belong in what lands")))
    });
    calls.collect()
}

/// One file names the TPM library's crate, one the AEADs, one HPKE: to review the use of keys is to read those.
fn key_material(path: &str, source: &RustSource) -> Vec<Finding> {
    let inside = path.trim_start_matches("vault-enclave/src/");
    let mut findings = Vec::new();
    let mut only_in = |allowed: bool, offsets: Vec<usize>, message: &str| {
        let wrong = offsets.into_iter().filter(|_| !allowed);
        findings.extend(wrong.map(|at| Finding::new(path, source.line(at), message)));
    };
    let is_tpm = inside.starts_with("tpm/") || inside == "tpm.rs" || inside.starts_with("tpm_");
    only_in(is_tpm, source.words("tss_esapi").collect(), "tss_esapi is named under vault-enclave/src/tpm alone");
    let aead = "AEADs are named in vault-enclave/src/aead.rs alone";
    for name in ["aes_gcm", "chacha20poly1305"] {
        only_in(inside == "aead.rs", source.words(name).collect(), aead);
    }
    let of_ring = source.children_of("ring").into_iter().filter(|(_, name)| name == "aead");
    only_in(inside == "aead.rs", of_ring.map(|(at, _)| at).collect(), aead);
    // The crate, not a variable or a module of that name: it starts a path.
    let hpke = source.words("hpke").filter(|&at| {
        let starts_path = !source.code[..at].trim_end().ends_with("::");
        starts_path && source.rest(at + "hpke".len()).starts_with("::")
    });
    let custodian = path == "vaultctl/src/custodian.rs";
    let message = "hpke is named in vault-enclave/src/wrap.rs and vaultctl/src/custodian.rs alone";
    only_in(inside == "wrap.rs" || custodian, hpke.collect(), message);
    findings
}

fn purity(path: &str, source: &RustSource) -> Vec<Finding> {
    let words = ["SystemTime", "Instant", "now_utc", "now_local", "async", "println", "eprintln"];
    let named = words.iter().flat_map(|word| source.words(word).map(move |at| (at, word.to_string())));
    let modules = ["fs", "env", "net", "process", "thread"];
    let paths = source.children_of("std").into_iter();
    let paths =
        paths.filter(|(_, name)| modules.contains(&name.as_str())).map(|(at, name)| (at, format!("std::{name}")));
    let found = named.chain(paths).filter(|(at, _)| !source.is_test(*at));
    let message = |what| format!("{what}: this crate has no IO, no clock and no async; take it as an argument");
    found.map(|(at, what)| Finding::new(path, source.line(at), message(what))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the rules say about one file, in a tree that is in order otherwise.
    fn findings(path: &str, text: &str) -> Vec<String> {
        let forbid = "#![forbid(unsafe_code)]";
        let roots = FORBID_UNSAFE.iter().filter(|root| **root != path).map(|root| (*root, forbid));
        let files: Vec<(&str, &str)> = roots.chain([(path, text)]).collect();
        check(&Tree::of(&files)).iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn assert_finds(path: &str, text: &str, part: &str) {
        let found = findings(path, text);
        assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
    }

    #[track_caller]
    fn assert_fine(path: &str, text: &str) {
        assert_eq!(findings(path, text), [""; 0]);
    }

    #[test]
    fn unsafe_outside_its_file_is_found() {
        assert_finds(
            "vault-host/src/store.rs",
            "fn a() {}\nfn b() { unsafe { c() } }",
            "store.rs:2: unsafe code belongs",
        );
        assert_finds("vault-enclave/src/a.rs", "#![allow(unsafe_code)]", "no one else may allow");
        assert_finds(
            "vault-enclave/src/a.rs",
            "#[expect(unsafe_code, reason = \"x\")]\nfn f() {}",
            "no one else may allow",
        );
        assert_fine("vault-enclave/src/a.rs", "// unsafe\nlet a = \"unsafe\"; #![deny(unsafe_code)]");
    }

    #[test]
    fn unsafe_without_its_reasons_is_found() {
        let both = "// SAFETY: holds.\n// JUSTIFICATION: no other way.\nlet a =\n    unsafe { b() };";
        assert_fine(UNSAFE_FILE, both);
        assert_finds(UNSAFE_FILE, "// SAFETY: holds.\nunsafe { b() }", "JUSTIFICATION");
        let far = format!("// SAFETY: a\n// JUSTIFICATION: b\n{}unsafe {{ b() }}", "let a = 1;\n".repeat(6));
        assert_finds(UNSAFE_FILE, &far, "just above");
    }

    #[test]
    fn crate_root_that_does_not_forbid_unsafe_is_found() {
        assert_finds("ledger/src/lib.rs", "#![deny(unsafe_code)]", "must say");
        assert_finds("ledger/src/lib.rs", "// #![forbid(unsafe_code)]", "must say");
        let none = check(&Tree::of(&[]));
        assert_eq!(none.len(), FORBID_UNSAFE.len());
    }

    #[test]
    fn unfinished_code_is_found() {
        assert_finds("vaultctl/src/main.rs", "fn a() { todo!() }", "todo!");
        assert_finds("vaultctl/src/main.rs", "fn a() { unimplemented!(\"x\") }", "unimplemented!");
        assert_finds("tests/src/lib.rs", "fn a() { dbg!(1); }", "dbg!");
        assert_fine("vaultctl/src/main.rs", "let todo = 1; // dbg!()");
    }

    #[test]
    fn tpm_library_is_named_in_its_place_only() {
        assert_finds("vault-enclave/src/root.rs", "use tss_esapi::Context;", "tss_esapi");
        assert_fine("vault-enclave/src/tpm/seal.rs", "use tss_esapi::Context;");
        assert_fine("vault-enclave/src/tpm.rs", "use tss_esapi::Context;");
    }

    #[test]
    fn aead_is_named_in_its_file_only() {
        assert_finds("vault-enclave/src/container.rs", "use aes_gcm::Aes256Gcm;", "AEAD");
        assert_finds("vault-enclave/src/container.rs", "use ring::{aead, hkdf};", "AEAD");
        assert_finds("vault-enclave/src/container.rs", "ring::aead::seal()", "AEAD");
        assert_fine("vault-enclave/src/aead.rs", "use aes_gcm::Aes256Gcm; use ring::aead;");
        assert_fine("vault-enclave/src/container.rs", "use crate::aead; use ring::hkdf;");
    }

    #[test]
    fn hpke_is_named_in_its_file_only() {
        assert_finds("vault-enclave/src/release.rs", "use hpke::Kem;", "hpke");
        assert_fine("vault-enclave/src/wrap.rs", "use hpke::Kem;");
        assert_fine("vaultctl/src/custodian.rs", "use hpke::Kem;");
        assert_finds("vaultctl/src/session.rs", "use hpke::Kem;", "hpke");
        assert_fine("vault-enclave/src/release.rs", "let hpke = keys.hpke; crate::hpke::open()");
    }

    #[test]
    fn clock_files_and_environment_in_a_pure_crate_are_found() {
        assert_finds("ledger/src/decide.rs", "let t = time::SystemTime::now();", "SystemTime");
        assert_finds("ledger/src/decide.rs", "use std::{collections::BTreeMap, fs};", "std::fs");
        assert_finds("attestation/src/verify.rs", "std::env::var(\"A\")", "std::env");
        assert_finds("attestation/src/verify.rs", "pub async fn a() {}", "async");
        assert_fine("attestation/src/verify.rs", "// std::fs\n#[cfg(test)]\nmod tests { use std::fs; }");
        assert_fine("vault-host/src/store.rs", "use std::fs;");
    }
}
