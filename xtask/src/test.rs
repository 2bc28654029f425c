//! `cargo xtask test`: builds everything and runs every test.

use crate::setup::{self, PythonSet, Venv};
use crate::{Result, shell};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::ops::AddAssign;
use std::process::{Command, Stdio};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Install nothing; tests that need what is missing say that they are skipped.
    #[arg(long)]
    offline: bool,
    /// Only tests whose names contain one of these (examples in docs are then left out).
    #[arg(last = true, value_name = "FILTER")]
    filters: Vec<String>,
}

/// Runs the subcommand. Its last line is `tests: N passed, N failed, N skipped`, of all runners together.
pub(crate) fn run(args: &TestArgs) -> Result<()> {
    setup::system_packages(args.offline)?;
    let python = match Venv::ensure(&[PythonSet::Demo, PythonSet::Test], args.offline) {
        Ok(venv) => Some(venv.python()),
        Err(error) if shell::is_ci() => return Err(error),
        Err(error) => {
            println!("test: comparisons with Python implementations are skipped: {error}");
            None
        }
    };
    let s3_server = match setup::s3::ensure(args.offline) {
        Ok(server) => Some(server),
        Err(error) if shell::is_ci() => return Err(error),
        Err(error) => {
            println!("test: hosts on a bucket are skipped: {error}");
            None
        }
    };
    if let Err(error) = setup::postgres(args.offline) {
        if shell::is_ci() {
            return Err(error);
        }
        println!("test: hosts on a database are skipped: {error}");
    }
    build()?;
    let mut runners = Vec::new();
    if args.filters.is_empty() {
        let mut docs = shell::cargo();
        docs.args(["test", "--workspace", "--doc", "--no-fail-fast"]);
        runners.push((Runner::Cargo, docs));
    }
    runners.push(unit_and_integration(&args.filters));

    let mut total = Counts::default();
    let mut failed = false;
    for (runner, mut command) in runners {
        command.env_remove("WEIGHTVAULT_PYTHON").envs(python.iter().map(|python| ("WEIGHTVAULT_PYTHON", python)));
        command.env_remove("WEIGHTVAULT_S3_SERVER").envs(s3_server.iter().map(|path| ("WEIGHTVAULT_S3_SERVER", path)));
        let (counts, success) = run_counted(runner, &mut command)?;
        total += counts;
        failed |= !success;
    }
    println!("tests: {} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    if total.passed + total.failed == 0 {
        return Err("no test ran".into());
    }
    if failed { Err("tests failed".into()) } else { Ok(()) }
}

/// Builds binaries and tests in one go: dependencies then have one set of features, and nothing is built twice.
pub(crate) fn build() -> Result<()> {
    shell::run(shell::cargo().args(["build", "--workspace", "--bins", "--lib", "--tests"]))
}

/// cargo-nextest where it is installed: one process a test, so one cannot disturb another. Else what comes with Cargo; set-up
/// does not install nextest, since that is compiled for many minutes.
fn unit_and_integration(filters: &[String]) -> (Runner, Command) {
    let mut command = shell::cargo();
    if shell::succeeds(shell::cargo().args(["nextest", "--version"])) {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]).args(filters);
        return (Runner::Nextest, command);
    }
    command.args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast", "--"]).args(filters);
    (Runner::Cargo, command)
}

/// What runs tests, and sums them up in a line of its own.
#[derive(Clone, Copy, Debug)]
enum Runner {
    /// What comes with Cargo: a line for each program of tests.
    Cargo,
    /// One line in all. What a failed test said comes before it, and ends with the line of the test's own program.
    Nextest,
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs it, passes its output on as it comes, and adds up its summary lines.
fn run_counted(runner: Runner, command: &mut Command) -> Result<(Counts, bool)> {
    println!("$ {}", shell::display(command));
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    // Cargo's runner sums up on stdout, nextest on stderr.
    let counts = std::thread::scope(|scope| {
        let err =
            scope.spawn(move || err.map_or_else(Counts::default, |from| pass_on(runner, from, std::io::stderr())));
        let mut counts = out.map_or_else(Counts::default, |from| pass_on(runner, from, std::io::stdout()));
        counts += err.join().unwrap_or_default();
        counts
    });
    Ok((counts, child.wait()?.success()))
}

fn pass_on(runner: Runner, from: impl Read, mut to: impl Write) -> Counts {
    let mut counts = Counts::default();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        // A reader that went away ends the output, not the tests.
        let _ = to.write_all(&line);
        if let Some(more) = runner.summary(&String::from_utf8_lossy(&line)) {
            counts += more;
        }
        line.clear();
    }
    counts
}

impl Runner {
    /// The counts in one of its summary lines.
    fn summary(self, line: &str) -> Option<Counts> {
        let line = without_colour(line);
        let (line, skipped_word) = match self {
            Self::Cargo => (line.trim().strip_prefix("test result:")?, "ignored"),
            Self::Nextest => (line.trim().strip_prefix("Summary [")?.split_once(':')?.1, "skipped"),
        };
        let count = |word: &str| {
            let words: Vec<&str> = line.split([' ', ',', ';', '.', '(', ')']).filter(|part| !part.is_empty()).collect();
            let found = words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok());
            found.unwrap_or(0)
        };
        // nextest counts a test that ran into its time limit apart.
        Some(Counts { passed: count("passed"), failed: count("failed") + count("timed"), skipped: count(skipped_word) })
    }
}

fn without_colour(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_runners_are_read() {
        let cargo =
            "test result: FAILED. 5 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s\n";
        assert_eq!(Runner::Cargo.summary(cargo), Some(Counts { passed: 5, failed: 1, skipped: 2 }));
        let nextest = "     Summary [   0.015s] 12 tests run: 9 passed (1 slow), 2 failed, 1 timed out, 3 skipped\n";
        assert_eq!(Runner::Nextest.summary(nextest), Some(Counts { passed: 9, failed: 3, skipped: 3 }));
        let coloured = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.015s] \u{1b}[1m1\u{1b}[0m test run: \u{1b}[1m1\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, 0 skipped";
        assert_eq!(Runner::Nextest.summary(coloured), Some(Counts { passed: 1, failed: 0, skipped: 0 }));
    }

    #[test]
    fn other_lines_are_no_summary() {
        assert_eq!(Runner::Cargo.summary("test setup::apt ... ok"), None);
        assert_eq!(Runner::Nextest.summary("Summary of the matter: 3 passed"), None);
    }

    #[test]
    fn output_is_passed_on_whole_and_its_summaries_are_added_up() {
        let said = "running\ntest result: ok. 2 passed; 0 failed; 0 ignored\né\ntest result: FAILED. 1 passed; 1 failed; 3 ignored";
        let mut passed_on = Vec::new();
        let counts = pass_on(Runner::Cargo, said.as_bytes(), &mut passed_on);
        assert_eq!(counts, Counts { passed: 3, failed: 1, skipped: 3 });
        assert_eq!(passed_on, said.as_bytes());
    }

    #[test]
    fn failure_whose_program_sums_itself_up_before_its_runner_does_is_counted_once() {
        // As nextest 0.9 says it.
        let said = "        FAIL [   0.020s] xtask test::tests::it_fails\n  stdout ---\n\n    running 1 test\n    \
                    test test::tests::it_fails ... FAILED\n\n    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; \
                    12 filtered out; finished in 0.01s\n\n     Summary [   0.021s] 13 tests run: 12 passed, 1 failed, 2 skipped\n";
        let counts = pass_on(Runner::Nextest, said.as_bytes(), std::io::sink());
        assert_eq!(counts, Counts { passed: 12, failed: 1, skipped: 2 });
    }

    #[test]
    fn failing_runner_fails_the_run() {
        assert!(!run_counted(Runner::Cargo, &mut Command::new("false")).unwrap().1);
        assert!(run_counted(Runner::Cargo, &mut Command::new("true")).unwrap().1);
    }
}
