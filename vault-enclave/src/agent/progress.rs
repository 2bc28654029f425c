//! How far a load is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::term::BootTime;

const LINE_EVERY: Duration = Duration::from_secs(10);

/// Counts bytes from any thread.
pub(super) struct Progress<'a> {
    total: u64,
    first: &'a OnceLock<BootTime>,
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
            let style = ProgressStyle::with_template("{bar:32} {bytes}/{total_bytes} {bytes_per_sec}");
            Shown::Bar(ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
        } else {
            Shown::Lines(Mutex::new(Instant::now()))
        };
        Self { total, first, done: AtomicU64::new(0), shown }
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
                    eprintln!("opened {} of {}", HumanBytes(done), HumanBytes(self.total));
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
