//! How far it is: a bar on a terminal, now and then a line elsewhere. On standard error; the result goes to standard output.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A line at most so often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Bytes of one step.
pub(super) struct Progress(Form);

enum Form {
    Quiet,
    Bar(ProgressBar),
    Lines { what: &'static str, total: u64, state: Mutex<(u64, Instant)> },
}

impl Progress {
    /// Of a step with `total` bytes.
    pub(super) fn new(what: &'static str, total: u64, quiet: bool) -> Self {
        Self(match (quiet, stderr().is_terminal()) {
            (true, _) => Form::Quiet,
            (false, true) => Form::Bar(bar(what, total)),
            (false, false) => {
                eprintln!("{what} {} …", size(total));
                Form::Lines { what, total, state: Mutex::new((0, Instant::now())) }
            }
        })
    }

    /// Further by so many bytes.
    pub(super) fn add(&self, bytes: u64) {
        match &self.0 {
            Form::Quiet => (),
            Form::Bar(bar) => bar.inc(bytes),
            Form::Lines { what, total, state } => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.0 += bytes;
                if state.1.elapsed() >= LINE_EVERY {
                    eprintln!("{what}: {} of {}", size(state.0), size(*total));
                    state.1 = Instant::now();
                }
            }
        }
    }

    /// Back by so many, which will come again.
    pub(super) fn take_back(&self, bytes: u64) {
        match &self.0 {
            Form::Quiet => (),
            Form::Bar(bar) => bar.dec(bytes),
            Form::Lines { state, .. } => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.0 = state.0.saturating_sub(bytes);
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Form::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str, total: u64) -> ProgressBar {
    const TEMPLATE: &str = "{msg:8} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_message(what)
}

/// A size in decimal units.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal() {
        let sizes = [0, 999, 1_500, 90_868_376, 4_000_000_000].map(size);
        assert_eq!(sizes, ["0 bytes", "999 bytes", "1.5 kB", "90.9 MB", "4.00 GB"]);
    }
}
