//! As much of Rust's syntax as the rules need: what is code and what is comment or text, and what is test.

use std::ops::Range;

/// A Rust file, taken apart.
pub(super) struct RustSource {
    /// The file with a space for each byte of comments and literals. Offsets and lines are those of the file.
    pub(super) code: String,
    /// String literals: offset of the first byte inside, and what is there (escapes as written).
    pub(super) strings: Vec<(usize, String)>,
    /// The file is compiled for tests only.
    pub(super) all_is_test: bool,
    /// Modules declared `#[cfg(test)] mod name;`.
    pub(super) test_modules: Vec<String>,
    test_ranges: Vec<Range<usize>>,
}

impl RustSource {
    pub(super) fn parse(text: &str) -> Self {
        let (code, strings) = mask(text);
        let mut source = Self { code, strings, all_is_test: false, test_modules: Vec::new(), test_ranges: Vec::new() };
        source.find_tests();
        source
    }

    /// Whether this byte belongs to a test.
    pub(super) fn is_test(&self, offset: usize) -> bool {
        self.all_is_test || self.test_ranges.iter().any(|range| range.contains(&offset))
    }

    /// The line of this byte, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.code.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
    }

    /// Where this whole word is in the code.
    pub(super) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.match_indices(word).map(|(offset, _)| offset).filter(move |&offset| {
            let before = self.code[..offset].chars().next_back();
            let after = self.code[offset + word.len()..].chars().next();
            !before.is_some_and(is_ident) && !after.is_some_and(is_ident)
        })
    }

    /// All words of the code.
    pub(super) fn idents(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let start = from + self.code[from..].find(is_ident)?;
            let length = self.code[start..].find(|c| !is_ident(c)).unwrap_or(self.code.len() - start);
            from = start + length;
            Some((start, &self.code[start..from]))
        })
    }

    /// What follows this byte, past white space.
    pub(super) fn rest(&self, offset: usize) -> &str {
        self.code[offset..].trim_start()
    }

    /// The modules named right below `parent`, in paths and in `use` groups: `std::fs`, `use std::{env, io::Read}`.
    pub(super) fn children_of(&self, parent: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for offset in self.words(parent) {
            let Some(below) = self.rest(offset + parent.len()).strip_prefix("::").map(str::trim_start) else {
                continue;
            };
            let group = below.strip_prefix('{').map(|group| &group[..closing(group, '{', '}')]);
            for path in group.map_or_else(|| vec![below], split_at_commas) {
                let path = path.trim_start();
                let end = path.find(|c| !is_ident(c)).unwrap_or(path.len());
                found.push((offset, path[..end].to_string()));
            }
        }
        found
    }

    /// The body of the block that opens at or after this byte, without its braces; none if a `;` comes first.
    pub(super) fn block_after(&self, offset: usize) -> Option<Range<usize>> {
        let open = offset + self.code[offset..].find(['{', ';'])?;
        if self.code.as_bytes().get(open) != Some(&b'{') {
            return None;
        }
        Some(open + 1..open + 1 + closing(&self.code[open + 1..], '{', '}'))
    }

    fn find_tests(&mut self) {
        let mut from = 0;
        while let Some(found) = self.code[from..].find("#[cfg(test)]") {
            let start = from + found;
            let mut item = start;
            // Past this attribute and those that follow it.
            while self.rest(item).starts_with("#[") {
                let open = self.code.len() - self.rest(item).len() + 2;
                item = open + closing(&self.code[open..], '[', ']') + 1;
            }
            match self.block_after(item) {
                Some(body) => {
                    from = body.end;
                    self.test_ranges.push(start..body.end);
                }
                None => {
                    let declaration = self.rest(item).split(';').next().unwrap_or_default();
                    if let Some(name) = declaration.split_whitespace().skip_while(|word| *word != "mod").nth(1) {
                        self.test_modules.push(name.to_string());
                    }
                    from = item;
                }
            }
        }
    }
}

pub(super) fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the text before the bracket that closes the one just before it; all of it if none does.
fn closing(text: &str, open: char, close: char) -> usize {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    text.len()
}

fn split_at_commas(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts
}

/// Blanks comments and literals, and collects the strings.
fn mask(text: &str) -> (String, Vec<(usize, String)>) {
    let mut code = text.as_bytes().to_vec();
    let mut strings = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let previous = text[..at].chars().next_back();
        let (length, inside) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), None)
        } else if rest.starts_with("/*") {
            (block_comment(rest), None)
        } else if let Some((length, inside)) =
            string(rest).filter(|_| rest.starts_with('"') || !previous.is_some_and(is_ident))
        {
            (length, Some(inside))
        } else if let Some(length) = character(rest) {
            (length, None)
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        if let Some(inside) = inside {
            strings.push((at + inside.start, rest[inside].to_string()));
        }
        for byte in &mut code[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length;
    }
    // Whole characters were blanked, so what is left is still UTF-8.
    (String::from_utf8_lossy(&code).into_owned(), strings)
}

fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the string literal that starts here, of any kind, and the range inside its quotes.
fn string(text: &str) -> Option<(usize, Range<usize>)> {
    let after_prefix = text.strip_prefix(['b', 'c']).unwrap_or(text);
    if let Some(raw) = after_prefix.strip_prefix('r') {
        let body = raw.trim_start_matches('#');
        let hashes = raw.len() - body.len();
        let body = body.strip_prefix('"')?;
        let start = text.len() - body.len();
        let end = body.find(&format!("\"{}", "#".repeat(hashes))).unwrap_or(body.len());
        return Some(((start + end + 1 + hashes).min(text.len()), start..start + end));
    }
    let body = after_prefix.strip_prefix('"')?;
    let start = text.len() - body.len();
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some((start + at + 1, start..start + at)),
            _ => {}
        }
    }
    Some((text.len(), start..text.len()))
}

/// Length of the character literal that starts here. A lifetime is none.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    if let Some(escape) = body.strip_prefix('\\') {
        let after = escape.chars().next().map_or(0, char::len_utf8);
        return Some(2 + after + escape[after..].find('\'').map_or(escape.len() - after, |at| at + 1));
    }
    let first = body.chars().next()?.len_utf8();
    body[first..].starts_with('\'').then_some(first + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = r####"a /* b /* c */ d */ e // f
            "g \" h" i r#"j " k"# l b"m" n 'o' p '\'' q '\u{1f}' <'r> s"####;
        let source = RustSource::parse(text);
        for word in 'a'..='s' {
            let found = source.words(&word.to_string()).count() > 0;
            assert_eq!(found, "aeilnpqrs".contains(word), "{word} in {}", source.code);
        }
        assert_eq!(source.code.len(), text.len());
        let strings: Vec<&str> = source.strings.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(strings, [r#"g \" h"#, r#"j " k"#, "m"]);
    }

    #[test]
    fn words_are_whole_words() {
        let source = RustSource::parse("deny(unsafe_code) unsafe { not_unsafe }");
        assert_eq!(source.words("unsafe").collect::<Vec<_>>(), [18]);
    }

    #[test]
    fn test_module_ends_at_its_brace() {
        let text = "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n fn b() { { } }\n}\nfn c() {}";
        let source = RustSource::parse(text);
        let is_test = |word: &str| source.is_test(source.words(word).next().unwrap());
        assert_eq!((is_test("a"), is_test("b"), is_test("c")), (false, true, false));
        assert_eq!(source.line(source.words("b").next().unwrap()), 5);
    }

    #[test]
    fn modules_are_found_in_paths_and_groups() {
        let source =
            RustSource::parse("use std::{fs, io::{self, Read}, env::var};\nstd::net::TcpStream; other::std_fs;");
        let names: Vec<String> = source.children_of("std").into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["fs", "io", "env", "net"]);
    }
}
