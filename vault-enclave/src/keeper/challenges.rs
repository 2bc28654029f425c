//! Challenges that are out, and answers that may be asked for again.
//!
//! A nonce is consumed before anything about its redemption is checked, so one challenge is one attempt. The same
//! redemption bytes get the same answer until the challenge would have expired, charged once; other bytes on a used
//! session are refused.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use attestation::{Expected, LoadChallenge, RenewChallenge, Sha256Digest};
use tokio::sync::oneshot;

use super::refusal::Refusal;
use super::service::Answer;

/// How long a challenge is good.
pub(super) const CHALLENGE_TTL_SECS: u64 = 60;
/// Challenges that are out at once.
const CHALLENGES_MAX: usize = 8192;
/// Challenges that are out at once for one platform: only an endorsed EK can have any.
const CHALLENGES_PER_PLATFORM_MAX: usize = 512;
/// Challenges that are out at once for requesters of whom nothing is known before their evidence: whoever mints them can't
/// take the room of those with an EK.
const CHALLENGES_UNNAMED_MAX: usize = CHALLENGES_MAX / 2;

/// 16 random bytes that name one exchange.
pub(super) type SessionId = [u8; 16];

/// What a challenge asks for.
pub(super) enum Asked {
    /// Unit keys.
    Load(LoadChallenge),
    /// A longer lease.
    Renew(RenewChallenge),
}

/// A challenge that is out.
pub(super) struct Pending {
    /// What it asks for; moved into the binding, once.
    pub asked: Asked,
    /// The form of evidence that it was made for, and what that is checked against.
    pub expected: Expected,
    expires: Instant,
}

/// What became of a session that was used.
struct Used {
    request: Sha256Digest,
    answer: Option<Answer>,
    waiting: Vec<oneshot::Sender<Answer>>,
    expires: Instant,
}

/// The first use of a session.
pub(super) struct Redemption {
    /// The challenge that was out.
    pub pending: Pending,
    /// To say what became of it.
    pub session: SessionId,
}

/// Bounded tables, keyed by session.
#[derive(Default)]
pub(super) struct Challenges {
    out: HashMap<SessionId, Pending>,
    per_platform: HashMap<Option<Sha256Digest>, usize>,
    used: HashMap<SessionId, Used>,
}

impl Challenges {
    /// Keeps a challenge until it is redeemed or expires.
    ///
    /// # Errors
    /// `challenges-full`, `challenges-full-platform`, `challenges-full-unnamed`.
    pub(super) fn issue(
        &mut self,
        session: SessionId,
        asked: Asked,
        expected: Expected,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.expire(now);
        if self.out.len() >= CHALLENGES_MAX || self.used.len() >= CHALLENGES_MAX {
            return Err(Refusal::busy("challenges-full", "too many challenges are out: try again in a minute"));
        }
        let platform = platform(&expected);
        let count = self.per_platform.entry(platform).or_default();
        match platform {
            Some(_) if *count >= CHALLENGES_PER_PLATFORM_MAX => {
                return Err(Refusal::busy("challenges-full-platform", "this platform has too many challenges out"));
            }
            None if *count >= CHALLENGES_UNNAMED_MAX => {
                let message = "too many challenges are out for requesters without an EK: try again in a minute";
                return Err(Refusal::busy("challenges-full-unnamed", message));
            }
            Some(_) | None => {}
        }
        *count += 1;
        let expires = now + Duration::from_secs(CHALLENGE_TTL_SECS);
        self.out.insert(session, Pending { asked, expected, expires });
        Ok(())
    }

    /// Consumes a challenge. `None`: the answer is known or on its way, and `reply` has or will get it.
    ///
    /// # Errors
    /// `challenge-unknown` (never issued, or expired), `challenge-consumed` (used with other bytes): with the reply
    /// to refuse on.
    pub(super) fn redeem(
        &mut self,
        session: SessionId,
        request: Sha256Digest,
        reply: oneshot::Sender<Answer>,
        now: Instant,
    ) -> Option<(Redemption, oneshot::Sender<Answer>)> {
        self.expire(now);
        if let Some(used) = self.used.get_mut(&session) {
            if used.request != request {
                // A stolen session must not be a second try, nor an oracle on the first one's answer.
                let refusal = Refusal::denied("challenge-consumed", "this challenge was used: ask for a new one");
                let _ = reply.send(Err(refusal));
            } else if let Some(answer) = &used.answer {
                let _ = reply.send(answer.clone());
            } else {
                used.waiting.push(reply);
            }
            return None;
        }
        let Some(pending) = self.out.remove(&session) else {
            let refusal = Refusal::try_again("challenge-unknown", "no such challenge is out, or it expired");
            let _ = reply.send(Err(refusal));
            return None;
        };
        Self::uncount(&mut self.per_platform, &pending);
        let used = Used { request, answer: None, waiting: Vec::new(), expires: pending.expires };
        self.used.insert(session, used);
        Some((Redemption { pending, session }, reply))
    }

    /// Remembers the answer of a session and tells everybody who waits for it.
    pub(super) fn answered(&mut self, session: SessionId, answer: &Answer) {
        if let Some(used) = self.used.get_mut(&session) {
            for waiting in used.waiting.drain(..) {
                let _ = waiting.send(answer.clone());
            }
            used.answer = Some(answer.clone());
        }
    }

    fn expire(&mut self, now: Instant) {
        let per_platform = &mut self.per_platform;
        self.out.retain(|_, pending| {
            let alive = pending.expires > now;
            if !alive {
                Self::uncount(per_platform, pending);
            }
            alive
        });
        self.used.retain(|_, used| used.expires > now);
    }

    fn uncount(per_platform: &mut HashMap<Option<Sha256Digest>, usize>, pending: &Pending) {
        let platform = platform(&pending.expected);
        if let Some(count) = per_platform.get_mut(&platform) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                per_platform.remove(&platform);
            }
        }
    }
}

/// Who asks, as far as it is known before the evidence: a stranger can name a chip, but not have an EK's certificate for
/// one of his own.
fn platform(expected: &Expected) -> Option<Sha256Digest> {
    match expected {
        Expected::Tpm { tpm, .. } | Expected::SnpTpm { tpm, .. } => Some(tpm.ek().platform()),
        Expected::Snp { .. } | Expected::AzureSnpVtpm { .. } => None,
    }
}
