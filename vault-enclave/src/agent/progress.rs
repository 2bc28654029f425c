//! How far a load is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, HumanDuration, ProgressBar, ProgressStyle};

use super::term::BootTime;

const LINE_EVERY: Duration = Duration::from_secs(10);
const TEMPLATE: &str = "{bar:32} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";

/// Counts bytes from any thread.
pub(super) struct Progress<'a> {
    total: u64,
    first: &'a OnceLock<BootTime>,
    began: Instant,
    done: AtomicU64,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines(Mutex<Instant>),
}

impl<'a> Progress<'a> {
    /// Of so many bytes, shown on stderr. `first` is set when the first of them have passed.
    pub(super) fn new(total: u64, first: &'a OnceLock<BootTime>) -> Self {
        let shown = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template(TEMPLATE);
            Shown::Bar(ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
        } else {
            Shown::Lines(Mutex::new(Instant::now()))
        };
        Self { total, first, began: Instant::now(), done: AtomicU64::new(0), shown }
    }

    /// So many more have passed.
    pub(super) fn add(&self, bytes: u64) {
        self.first.get_or_init(BootTime::now);
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match &self.shown {
            Shown::Bar(bar) => bar.set_position(done),
            Shown::Lines(last) => {
                // Whoever finds it locked need not write the same line.
                if let Ok(mut last) = last.try_lock()
                    && last.elapsed() >= LINE_EVERY
                {
                    *last = Instant::now();
                    eprintln!("{}", line(done, self.total, self.began.elapsed()));
                }
            }
        }
    }

    /// Nothing more comes.
    pub(super) fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// By how fast it went so far.
fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let per_second = done as f64 / elapsed.as_secs_f64().max(0.001);
    let left = Duration::from_secs_f64((total.saturating_sub(done) as f64 / per_second.max(1.0)).min(1e9));
    let (done, total, per_second) = (DecimalBytes(done), DecimalBytes(total), DecimalBytes(per_second as u64));
    format!("opened {done} of {total}, {per_second}/s, {} left", HumanDuration(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let said = line(4_000_000_000, 10_000_000_000, Duration::from_secs(20));
        assert_eq!(said, "opened 4.00 GB of 10.00 GB, 200.00 MB/s, 30 seconds left");
        // Nothing came yet.
        assert!(line(0, 1 << 40, Duration::ZERO).starts_with("opened 0 B of 1.10 TB, 0 B/s, "));
        assert!(line(5, 5, Duration::from_secs(1)).ends_with("0 seconds left"));
    }
}
