//! A bounded table of what is out, shared fairly among those who ask.
//!
//! Whoever asks for a challenge has proved nothing yet: certificates of EKs are public, so a stranger can ask in the name of
//! a platform that is not his, and of as many as he has seen. A limit that refuses would let him refuse others: for one
//! platform with its own certificate, for the whole vault with a few. So a full table refuses nobody. It drops one that is
//! out, of the platform that has the most, chosen by chance:
//!
//! - Who floods in the name of one platform, or of many, has the most out, so what is dropped is his own. A platform that
//!   he does not name keeps its few.
//! - For the platform that he does name, chance decides, not age: the oldest first would drop every genuine one as soon as
//!   he is fast enough. A challenge survives `n` others with probability `(1 - 1/8192)^n`. At the 2,000 requests a second
//!   that a host lets through by default, a guest that takes a second to quote has better than three chances in four, and
//!   it tries again.
//!
//! How fast one connection can ask is the host's to bound (`challenges_per_second_per_connection`).

use std::collections::HashMap;
use std::time::Instant;

use attestation::Sha256Digest;

use super::SessionId;

/// Who asks, as far as it is known: `None` where nothing is known before the evidence.
pub(super) type Asker = Option<Sha256Digest>;

/// At most `max` values, each until its time.
pub(super) struct Table<T> {
    max: usize,
    entries: HashMap<SessionId, Entry<T>>,
    counts: HashMap<Asker, usize>,
}

struct Entry<T> {
    value: T,
    asker: Asker,
    expires: Instant,
}

impl<T> Table<T> {
    pub(super) fn new(max: usize) -> Self {
        Self { max, entries: HashMap::new(), counts: HashMap::new() }
    }

    /// Puts a value in. `session` is random and not known to anybody yet: it also chooses what is dropped.
    pub(super) fn insert(&mut self, session: SessionId, asker: Asker, value: T, expires: Instant, now: Instant) {
        if self.entries.len() >= self.max {
            self.expire(now);
        }
        if self.entries.len() >= self.max {
            self.drop_one(&session);
        }
        *self.counts.entry(asker).or_default() += 1;
        self.entries.insert(session, Entry { value, asker, expires });
    }

    /// Takes a value out, with its time, unless that is over.
    pub(super) fn take(&mut self, session: &SessionId, now: Instant) -> Option<(T, Instant)> {
        let entry = self.remove(session)?;
        (entry.expires > now).then_some((entry.value, entry.expires))
    }

    fn expire(&mut self, now: Instant) {
        let over: Vec<SessionId> =
            self.entries.iter().filter(|(_, entry)| entry.expires <= now).map(|(session, _)| *session).collect();
        for session in over {
            self.remove(&session);
        }
    }

    /// One of the asker who has the most.
    fn drop_one(&mut self, random: &SessionId) {
        let Some((most, count)) = self.counts.iter().max_by_key(|(_, count)| **count) else { return };
        let chosen = (u128::from_le_bytes(*random) % (*count).max(1) as u128) as usize;
        let of_asker = self.entries.iter().filter(|(_, entry)| entry.asker == *most).map(|(session, _)| *session);
        if let Some(session) = of_asker.skip(chosen).take(1).next() {
            self.remove(&session);
        }
    }

    fn remove(&mut self, session: &SessionId) -> Option<Entry<T>> {
        let entry = self.entries.remove(session)?;
        if let Some(count) = self.counts.get_mut(&entry.asker) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&entry.asker);
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ring::rand::{SecureRandom, SystemRandom};

    use super::*;

    const MAX: usize = 64;

    /// A table whose clock stands still unless a test moves it.
    struct Scene {
        table: Table<u32>,
        rng: SystemRandom,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self { table: Table::new(MAX), rng: SystemRandom::new(), now: Instant::now() }
        }

        fn ask(&mut self, asker: Asker) -> SessionId {
            let mut session = [0; 16];
            self.rng.fill(&mut session).unwrap();
            self.table.insert(session, asker, 7, self.now + Duration::from_secs(60), self.now);
            session
        }

        fn is_out(&self, session: &SessionId) -> bool {
            self.table.entries.contains_key(session)
        }
    }

    fn platform(number: u8) -> Asker {
        Some(Sha256Digest::from_bytes([number; 32]))
    }

    #[test]
    fn who_floods_drops_his_own() {
        for flooder in [platform(1), None] {
            let mut scene = Scene::new();
            let others = [platform(2), platform(3), if flooder.is_none() { platform(4) } else { None }];
            let genuine: Vec<SessionId> =
                others.iter().flat_map(|asker| [scene.ask(*asker), scene.ask(*asker)]).collect();
            for _ in 0..50 * MAX {
                scene.ask(flooder);
            }
            assert!(genuine.iter().all(|session| scene.is_out(session)));
            assert_eq!(scene.table.entries.len(), MAX);
        }
    }

    #[test]
    fn many_names_do_not_crowd_out_one_that_is_not_among_them() {
        let mut scene = Scene::new();
        let genuine = scene.ask(platform(200));
        for round in 0..50 * MAX {
            scene.ask(platform((round % 16) as u8));
        }
        assert!(scene.is_out(&genuine));
    }

    #[test]
    fn a_flood_in_the_name_of_a_platform_leaves_it_most_of_its_chances() {
        let mut kept = 0;
        for _ in 0..200 {
            let mut scene = Scene::new();
            for _ in 0..MAX {
                scene.ask(platform(1));
            }
            let genuine = scene.ask(platform(1));
            // As many as a quarter of all places: the oldest first would drop none yet, but all a moment later.
            for _ in 0..MAX / 4 {
                scene.ask(platform(1));
            }
            kept += u32::from(scene.is_out(&genuine));
        }
        // 200 × (1 - 1/64)^16 is 155; fewer than 100 comes once in more than 10^15 runs.
        assert!(kept > 100, "{kept} of 200");
    }

    #[test]
    fn a_value_is_taken_once_and_not_after_its_time() {
        let mut scene = Scene::new();
        let (first, second) = (scene.ask(None), scene.ask(None));
        assert_eq!(scene.table.take(&first, scene.now).map(|(value, _)| value), Some(7));
        assert!(scene.table.take(&first, scene.now).is_none());
        assert!(scene.table.take(&second, scene.now + Duration::from_secs(60)).is_none());
        assert!(scene.table.counts.is_empty());
    }

    #[test]
    fn what_is_over_goes_before_what_is_not() {
        let mut scene = Scene::new();
        for _ in 0..MAX - 1 {
            scene.ask(platform(1));
        }
        scene.now += Duration::from_secs(59);
        let alive = scene.ask(platform(2));
        scene.now += Duration::from_secs(2);
        scene.ask(platform(3));
        assert!(scene.is_out(&alive));
        assert_eq!(scene.table.entries.len(), 2);
    }
}
