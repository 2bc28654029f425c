//! Refusals in the log, within bounds: nobody fills a log by being refused.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use attestation::{Sha256Digest, UnixTime};
use ledger::entry::DenySummary;
use ledger::names::Name;

/// A `deny-summary` covers at least this long.
const SUMMARY_EVERY: Duration = Duration::from_secs(60);
/// `deny` entries that one platform can cause in [`PER_PLATFORM_SPAN`].
const PER_PLATFORM_MAX: u32 = 6;
const PER_PLATFORM_SPAN: Duration = Duration::from_secs(60);
/// Platforms that are counted; above it a refusal is only counted in the summary.
const PLATFORMS_MAX: usize = 4096;
/// Codes in a summary: they are our own constants, so this is a proof, not a limit that is met.
const CODES_MAX: usize = 128;

/// Counters of the minute.
pub(super) struct Denials {
    counts: BTreeMap<Name, u64>,
    since: UnixTime,
    begun: Instant,
    platforms: HashMap<Sha256Digest, (Instant, u32)>,
}

impl Denials {
    /// Nothing refused yet.
    pub(super) fn new(now: UnixTime) -> Self {
        Self { counts: BTreeMap::new(), since: now, begun: Instant::now(), platforms: HashMap::new() }
    }

    /// Counts a refusal for the next summary.
    pub(super) fn count(&mut self, code: &str) {
        let Ok(code) = Name::try_from(code.to_owned()) else { return };
        if self.counts.len() < CODES_MAX || self.counts.contains_key(&code) {
            let count = self.counts.entry(code).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Whether a platform that hardware vouched for earns an entry of its own for this refusal.
    pub(super) fn earns_entry(&mut self, platform: Sha256Digest) -> bool {
        let now = Instant::now();
        self.platforms.retain(|_, (begun, _)| now.duration_since(*begun) < PER_PLATFORM_SPAN);
        if self.platforms.len() >= PLATFORMS_MAX && !self.platforms.contains_key(&platform) {
            return false;
        }
        let (_, count) = self.platforms.entry(platform).or_insert((now, 0));
        *count += 1;
        *count <= PER_PLATFORM_MAX
    }

    /// The summary, where one is due and something was refused.
    pub(super) fn due(&mut self, now: UnixTime) -> Option<DenySummary> {
        if self.begun.elapsed() < SUMMARY_EVERY || self.counts.is_empty() {
            return None;
        }
        Some(self.summary(now))
    }

    /// The same whether it is due or not: an entry that says that this keeper is here.
    pub(super) fn summary(&mut self, now: UnixTime) -> DenySummary {
        let (since, counts) = (self.since.min(now), std::mem::take(&mut self.counts));
        let summary = DenySummary { time: now, since, counts };
        self.since = now;
        self.begun = Instant::now();
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_fill_neither_log_nor_memory() {
        let mut denials = Denials::new(UnixTime(1));
        let platform = Sha256Digest::of(b"platform");
        let entries = (0..1000).filter(|_| denials.earns_entry(platform)).count();
        assert_eq!(entries, PER_PLATFORM_MAX as usize);
        assert!(denials.earns_entry(Sha256Digest::of(b"another")));

        for code in 0..10_000 {
            denials.count(&format!("code-{code}"));
        }
        assert_eq!(denials.counts.len(), CODES_MAX);
        // Not before its minute is over; then once.
        assert!(denials.due(UnixTime(2)).is_none());
        denials.begun = Instant::now().checked_sub(SUMMARY_EVERY).expect("the machine runs longer than a minute");
        assert!(denials.due(UnixTime(62)).is_some_and(|summary| summary.since == UnixTime(1)));
        assert!(denials.due(UnixTime(63)).is_none());
    }
}
