//! What the demo prints while it goes on.

use crate::Result;
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Numbered steps with their times: `[ 3/12] Seal the model   0.8 s`, and below each what it found.
pub(crate) struct Steps<W: Write = io::Stdout> {
    total: usize,
    current: usize,
    is_terminal: bool,
    out: W,
}

/// What a step has to say, shown when it is done.
#[derive(Default)]
pub(crate) struct Details(Vec<String>);

impl Details {
    pub(crate) fn line(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }
}

impl Steps {
    pub(crate) fn new(total: usize) -> Self {
        Self { total, current: 0, is_terminal: io::stdout().is_terminal(), out: io::stdout() }
    }
}

impl<W: Write> Steps<W> {
    /// Does one step that prints nothing itself: on a terminal its time comes onto its own line.
    pub(crate) fn step<T>(&mut self, title: &str, act: impl FnOnce(&mut Details) -> Result<T>) -> Result<T> {
        self.act(title, self.is_terminal, act)
    }

    /// Does one step that runs programs with an output of their own.
    pub(crate) fn noisy_step<T>(&mut self, title: &str, act: impl FnOnce(&mut Details) -> Result<T>) -> Result<T> {
        self.act(title, false, act)
    }

    fn act<T>(&mut self, title: &str, in_place: bool, act: impl FnOnce(&mut Details) -> Result<T>) -> Result<T> {
        self.current += 1;
        let width = self.total.to_string().len();
        let head = format!("[{:>width$}/{}] {title}", self.current, self.total);
        write!(self.out, "{head}{}", if in_place { " …" } else { "\n" })?;
        self.out.flush()?;
        let start = Instant::now();
        let mut details = Details::default();
        let result = act(&mut details);
        let time = start.elapsed().as_secs_f64();
        let indent = " ".repeat(2 * width + 4);
        let outcome = if result.is_ok() { format!("{time:.1} s") } else { format!("FAILED after {time:.1} s") };
        if in_place {
            writeln!(self.out, "\r{head:<60}  {outcome}")?;
        }
        for line in &details.0 {
            writeln!(self.out, "{indent}{line}")?;
        }
        if !in_place {
            writeln!(self.out, "{indent}{outcome}")?;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(is_terminal: bool, fails: bool) -> String {
        let mut out = Vec::new();
        let mut steps = Steps { total: 12, current: 2, is_terminal, out: &mut out };
        let result = steps.step("Seal the model", |details| {
            details.line("8 units");
            if fails { Err("no".into()) } else { Ok(()) }
        });
        assert_eq!(result.is_err(), fails);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_lines_where_there_is_no_terminal() {
        assert_eq!(printed(false, false), "[ 3/12] Seal the model\n        8 units\n        0.0 s\n");
    }

    #[test]
    fn time_comes_onto_the_line_of_the_step_on_a_terminal() {
        let text = printed(true, false);
        assert!(
            text.starts_with("[ 3/12] Seal the model …\r[ 3/12] Seal the model  ") && text.contains("  0.0 s\n"),
            "{text:?}"
        );
    }

    #[test]
    fn failed_step_says_so() {
        assert!(printed(false, true).contains("FAILED after 0.0 s"));
    }
}
