//! Instructions that hot functions take, counted by callgrind: within 2 % the same at every run of one build, whatever else
//! the machine does.
//! They are compared with those in a file of the tree; more than a little more fails. Another compiler or C library makes other
//! code, and ring and blake3 choose theirs by the processor, which valgrind shows them as one of a few: where any of that is
//! another than recorded, nothing is compared, and that is said.
//!
//! The programs are those of `cargo bench`: `PROGRAM --times NAME COUNT`. Two counts of calls, whose difference is the calls alone.

use super::data::note;
use crate::{Result, setup, shell};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates that have such a program, and its name.
const PROGRAMS: [(&str, &str); 2] = [("vault-enclave", "data"), ("ledger", "decisions")];
/// Recorded counts, one a line: instructions, of what, name. In front of them a line with what they are of.
const RECORDED: &str = "xtask/instructions.txt";
const OF: &str = "of ";
/// How much more than recorded passes: a change elsewhere moves code about.
const TOLERANCE: f64 = 0.05;
/// The function of those programs that makes the calls, and nothing else.
const COUNTED: &str = "--toggle-collect=*calls_alone*";
/// Calls of the shorter and of the longer run.
const CALLS: [u32; 2] = [2, 10];

/// Counts; writes the file anew with `record`, and with `quick` only shows what a dev build takes, which nothing is recorded of.
pub(super) fn run(record: bool, quick: bool, as_json: bool) -> Result<()> {
    setup::valgrind(false)?;
    let recorded = Recorded::parse(&fs::read_to_string(shell::root().join(RECORDED)).unwrap_or_default())?;
    let (mut counted, mut of) = (Vec::new(), String::new());
    for (package, bench) in PROGRAMS {
        let program = build(package, bench, quick)?;
        of = what_counts_are_of(&program)?;
        for line in shell::output(Command::new(&program).arg("--list-hot"))?.lines() {
            let (bytes, name) = line.split_once(' ').ok_or_else(|| format!("no name in {line:?}"))?;
            note(&format!("instructions of {name}"));
            let [few, many] = CALLS.map(|calls| count(&program, name, calls));
            let calls = f64::from(CALLS[1] - CALLS[0]);
            counted.push(Count {
                name: name.into(),
                bytes: bytes.parse()?,
                each: (many? - few?) / calls / bytes.parse::<f64>()?,
            });
        }
    }
    if record && !quick {
        let text: String =
            counted.iter().map(|count| format!("{:.4} {} {}\n", count.each, count.unit(), count.name)).collect();
        fs::write(shell::root().join(RECORDED), format!("{HEAD}{OF}{of}\n{text}"))?;
        println!("{RECORDED}: written");
    }
    show(&counted, &recorded, quick, as_json);
    if quick || record {
        return Ok(());
    }
    if recorded.of != of {
        note(&format!("nothing is compared: {RECORDED} is of {}; these are of {of}", recorded.of));
        return Ok(());
    }
    let worse = recorded.worse(&counted);
    if worse.is_empty() {
        Ok(())
    } else {
        Err(format!("more than {:.0} % over {RECORDED}, or not in it: {}", TOLERANCE * 100.0, worse.join("; ")).into())
    }
}

const HEAD: &str = "# Instructions by callgrind of a release build, which `cargo xtask bench --instructions` compares where all of the\n\
    # first line is the same, and `--instructions --record` writes anew: how many, of what, name.\n";

/// What else than our code the counts depend on: compiler, C library, valgrind, and the processor that it shows a program.
fn what_counts_are_of(program: &Path) -> Result<String> {
    let line = |command: &mut Command| -> Result<String> { Ok(shell::output(command)?.trim().to_owned()) };
    let rustc = line(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version"))?;
    let valgrind = line(Command::new("valgrind").arg("--version"))?;
    let libc = line(Command::new("getconf").arg("GNU_LIBC_VERSION")).unwrap_or_else(|_| "another libc".into());
    let processor = line(Command::new("valgrind").args(["--tool=none", "--quiet"]).arg(program).arg("--processor"))?;
    Ok([rustc, libc, valgrind, processor].join(", "))
}

#[derive(Debug)]
struct Count {
    name: String,
    bytes: u64,
    /// Instructions a byte or a call.
    each: f64,
}

impl Count {
    fn unit(&self) -> &'static str {
        if self.bytes == 1 { "a-call" } else { "a-byte" }
    }
}

/// The program of a bench, in an optimised build; or with `quick` in the one that there is.
fn build(package: &str, bench: &str, quick: bool) -> Result<PathBuf> {
    let profile = if quick { "dev" } else { "release" };
    let mut build = shell::cargo();
    build.args(["build", "--profile", profile, "--package", package, "--bench", bench, "--message-format=json"]);
    note(&format!("building {package}'s bench {bench}, {profile}"));
    let messages = shell::output(&mut build)?;
    let built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = built
        .filter(|message| message["target"]["name"] == bench)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.ok_or_else(|| format!("{package} has no bench {bench}").into())
}

/// Instructions of so many calls.
fn count(program: &Path, name: &str, calls: u32) -> Result<f64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", COUNTED]).arg(program);
    let output = command.args(["--times", name, &calls.to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("`{}` ended with {}:\n{said}", shell::display(&command), output.status).into());
    }
    collected(&said).ok_or_else(|| format!("callgrind said no count:\n{said}").into())
}

/// From `==PID== Collected : 123456`.
fn collected(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

/// What the file has.
#[derive(Debug, Default)]
struct Recorded {
    of: String,
    counts: BTreeMap<String, f64>,
}

impl Recorded {
    fn parse(text: &str) -> Result<Self> {
        let mut recorded = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(of) = line.strip_prefix(OF) {
                of.clone_into(&mut recorded.of);
                continue;
            }
            let row = || {
                let (each, rest) = line.split_once(' ')?;
                Some((rest.split_once(' ')?.1.to_owned(), each.parse().ok()?))
            };
            let (name, each) = row().ok_or_else(|| format!("{RECORDED}: {line:?} is no count"))?;
            recorded.counts.insert(name, each);
        }
        Ok(recorded)
    }

    fn worse(&self, counted: &[Count]) -> Vec<String> {
        let limit = |count: &Count| self.counts.get(&count.name).map(|before| before * (1.0 + TOLERANCE));
        let worse = counted.iter().filter(|count| limit(count).is_none_or(|limit| count.each > limit));
        worse.map(|count| format!("{}: {:.4}", count.name, count.each)).collect()
    }
}

fn show(counted: &[Count], recorded: &Recorded, quick: bool, as_json: bool) {
    let rows: Vec<Value> = counted
        .iter()
        .map(|count| json!({ "what": count.name, "instructions": count.each, "each": count.unit(), "recorded": recorded.counts.get(&count.name) }))
        .collect();
    if as_json {
        println!("{}", json!({ "profile": if quick { "dev" } else { "release" }, "instructions": rows }));
        return;
    }
    println!("\n{:<40} {:>14} {:>8} {:>14}", "instructions", "now", "", "recorded");
    for count in counted {
        let before =
            recorded.counts.get(&count.name).filter(|_| !quick).map_or("-".to_owned(), |before| format!("{before:.4}"));
        println!("{:<40} {:>14.4} {:>8} {before:>14}", count.name, count.each, count.unit());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, each: f64) -> Count {
        Count { name: name.into(), bytes: 1, each }
    }

    #[test]
    fn a_little_more_passes_and_much_more_or_something_new_does_not() {
        let recorded =
            Recorded::parse("# head\nof rustc 1, x86_64 aes\n100.00 a-call a\n2.50 a-byte open a batch\n").unwrap();
        assert_eq!((recorded.of.as_str(), recorded.counts["open a batch"]), ("rustc 1, x86_64 aes", 2.5));
        assert!(recorded.worse(&[count("a", 104.0), count("open a batch", 1.0)]).is_empty());
        assert_eq!(recorded.worse(&[count("a", 106.0), count("new", 1.0)]), ["a: 106.0000", "new: 1.0000"]);
    }

    #[test]
    fn what_callgrind_says_is_read() {
        assert_eq!(collected("==7== \n==7== Collected : 123456\n"), Some(123_456.0));
        assert_eq!(collected("==7== Events    : Ir\n"), None);
        assert!(Recorded::parse("many a-call a").is_err());
    }
}
