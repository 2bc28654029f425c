//! Challenges that are out, and answers that may be asked for again.
//!
//! A nonce is consumed before anything about its redemption is checked, so one challenge is one attempt. The same
//! redemption bytes get the same answer until the challenge would have expired, charged once; other bytes on a used
//! session are refused.

mod table;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use attestation::{Expected, JoinChallenge, LoadChallenge, PcrSelection, RenewChallenge, Sha256Digest};
use tokio::sync::oneshot;

use super::refusal::Refusal;
use super::service::Answer;
use table::{Asker, Table};

/// How long a challenge is good.
pub(super) const CHALLENGE_TTL_SECS: u64 = 60;
/// Challenges that are out at once.
const CHALLENGES_MAX: usize = 8192;
/// Answers that are kept at once.
const ANSWERS_MAX: usize = 8192;

/// 16 random bytes that name one exchange.
pub(super) type SessionId = [u8; 16];

/// What a challenge asks for.
pub(super) enum Asked {
    /// Unit keys.
    Load(LoadChallenge),
    /// A longer lease.
    Renew(RenewChallenge),
    /// The vault, for another keeper.
    Join(JoinChallenge),
}

/// A challenge that is out.
pub(super) struct Pending {
    /// What it asks for; moved into the binding, once.
    pub asked: Asked,
    /// The form of evidence that it was made for, and what that is checked against.
    pub expected: Expected,
    /// The PCRs whose events the rule asks about, where it asks for the event log.
    pub events: Option<PcrSelection>,
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

/// Bounded tables, keyed by session. Neither refuses anybody when it is full: see [`table`].
pub(super) struct Challenges {
    out: Table<Pending>,
    used: HashMap<SessionId, Used>,
}

impl Default for Challenges {
    fn default() -> Self {
        Self { out: Table::new(CHALLENGES_MAX), used: HashMap::new() }
    }
}

impl Challenges {
    /// Keeps a challenge until it is redeemed or expires, or until the table is full and it is the one that goes.
    pub(super) fn issue(&mut self, session: SessionId, pending: Pending, now: Instant) {
        let expires = now + Duration::from_secs(CHALLENGE_TTL_SECS);
        let asker = asker(&pending.expected);
        self.out.insert(session, asker, pending, expires, now);
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
        self.used.retain(|_, used| used.expires > now);
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
        let Some((pending, expires)) = self.out.take(&session, now) else {
            let refusal = Refusal::try_again("challenge-unknown", "no such challenge is out, or it expired");
            let _ = reply.send(Err(refusal));
            return None;
        };
        if self.used.len() >= ANSWERS_MAX {
            self.forget_answer();
        }
        let used = Used { request, answer: None, waiting: Vec::new(), expires };
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

    /// Makes room for an answer. Anybody can have refusals, so those go first; a grant took evidence. Whoever asks again for
    /// one that was forgotten is told that his challenge is unknown: it can't be used twice, since it is not out any more.
    fn forget_answer(&mut self) {
        let answered = |refused: bool| {
            let mut answered = self.used.iter().filter(move |(_, used)| match &used.answer {
                Some(answer) => answer.is_err() == refused,
                None => false,
            });
            answered.next().map(|(session, _)| *session)
        };
        if let Some(session) = answered(true).or_else(|| answered(false)) {
            self.used.remove(&session);
        }
    }
}

/// A stranger can name a chip, but not have an EK's certificate for one of his own.
fn asker(expected: &Expected) -> Asker {
    match expected {
        Expected::Tpm { tpm, .. } | Expected::SnpTpm { tpm, .. } => Some(tpm.ek().platform()),
        Expected::Snp { .. } | Expected::AzureSnpVtpm { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use attestation::{CrlRule, LeaseKey, TpmPart};

    use super::*;

    fn asked() -> Asked {
        let digest = Sha256Digest::of(b"");
        Asked::Renew(RenewChallenge {
            rule: "rule".to_owned(),
            session: [0; 16],
            nonce: [0; 32],
            vault: digest,
            policy: digest,
            lease: digest,
            lease_key: LeaseKey::try_from(&[1; 32][..]).unwrap(),
            tpm: TpmPart::Absent,
        })
    }

    fn session(number: u32) -> SessionId {
        let mut session = [0; 16];
        session[..4].copy_from_slice(&number.to_le_bytes());
        session
    }

    /// Redeems, and says no.
    fn refused(challenges: &mut Challenges, number: u32, request: Sha256Digest, now: Instant) -> Option<Answer> {
        let (reply, mut answer) = oneshot::channel();
        match challenges.redeem(session(number), request, reply, now) {
            Some((redemption, _)) => {
                challenges.answered(redemption.session, &Err(Refusal::denied("binding-mismatch", "no")));
                None
            }
            None => answer.try_recv().ok(),
        }
    }

    #[test]
    fn answers_that_fill_their_table_refuse_nobody_and_no_challenge_is_used_twice() {
        let (mut challenges, now) = (Challenges::default(), Instant::now());
        let request = Sha256Digest::of(b"rubbish");
        let rubbish = u32::try_from(ANSWERS_MAX).unwrap() + 100;
        for number in 0..rubbish {
            let expected = Expected::Snp { crl: CrlRule::IfPresent };
            challenges.issue(session(number), Pending { asked: asked(), expected, events: None }, now);
            assert!(refused(&mut challenges, number, request, now).is_none(), "{number} was redeemed");
        }
        assert_eq!(challenges.used.len(), ANSWERS_MAX);
        let codes = (0..rubbish).map(|number| {
            let answer = refused(&mut challenges, number, request, now).expect("an answer");
            answer.expect_err("a refusal").code().to_owned()
        });
        let unknown = codes.filter(|code| code == "challenge-unknown").count();
        assert_eq!(unknown, 100);
    }
}
