//! Asking the vault's witnesses, through the host: the keeper has no network of its own.
//!
//! The host can refuse to relay, and can change what it relays. Neither gives a cosignature, and without a quorum of them
//! nothing leaves the keeper.

use std::collections::HashMap;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use ledger::checkpoint::Seen;
use ledger::cosignature::{Answer, Ask, Gathering, WITNESSES_MAX, WitnessPolicy};
use vault_proto::v1::{AskWitness, StoreResult, WitnessAnswer, WitnessStatus, store_call::Call, store_result};

use super::link::{Store, StoreError};

/// How long one commit waits for a quorum.
const QUORUM_WITHIN: Duration = Duration::from_secs(10);
/// How often it looks whether the host is still there.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Store {
    /// Asks every witness at once, and whoever names another size once more from there, until there is a quorum, nobody is
    /// left who could answer, or the time is over. Those that are slow hold up nobody. Entries from long ago that it takes to
    /// show one of them that this log continues what it knows come from the host.
    ///
    /// # Errors
    /// [`StoreError::Detached`].
    pub(super) fn ask_witnesses(&self, gathering: &mut Gathering<'_>) -> Result<(), StoreError> {
        let deadline = Instant::now() + QUORUM_WITHIN;
        // Each witness owes at most one answer at a time.
        let (sender, answers) = sync_channel(WITNESSES_MAX);
        let mut asked = HashMap::new();
        loop {
            for ask in gathering.asks() {
                let (witness, call) = call(ask);
                asked.insert(self.send(call, sender.clone())?, witness);
            }
            if let Some(bundle) = gathering.wants() {
                // Whoever can't be shown it is not asked, and the others may be enough.
                gathering.recall(bundle, &self.bundle(bundle).unwrap_or_default());
                continue;
            }
            if gathering.is_over() {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let (id, result) = match answers.recv_timeout(left.min(LOOK_EVERY)) {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout) if left.is_zero() => break,
                Err(RecvTimeoutError::Timeout) if self.waits_for(asked.keys().copied()) => continue,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(StoreError::Detached),
            };
            let Some(witness) = asked.remove(&id) else { continue };
            gathering.answer(witness, answer(result));
        }
        self.forget(asked.into_keys());
        Ok(())
    }
}

fn call(Ask { witness, name, body }: Ask) -> (usize, Call) {
    (witness, Call::AskWitness(AskWitness { name, body }))
}

fn answer(result: StoreResult) -> Answer {
    match result.result {
        Some(store_result::Result::WitnessAnswer(WitnessAnswer { status, body })) => {
            Answer::Response { status: u16::try_from(status).unwrap_or(0), body }
        }
        Some(store_result::Result::Error(why)) => Answer::Unreached { why },
        Some(
            store_result::Result::Done(_)
            | store_result::Result::Entries(_)
            | store_result::Result::Blob(_)
            | store_result::Result::Checkpoint(_)
            | store_result::Result::LogHead(_),
        )
        | None => Answer::Unreached { why: "the host answered something else".to_owned() },
    }
}

/// For people and dashboards: who cosigns, and the newest checkpoint that they did.
pub(super) fn witnesses(policy: &WitnessPolicy, seen: Option<&Seen>) -> WitnessStatus {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let cosigned = match seen {
        Some(Seen::Cosigned(cosigned)) => Some(cosigned),
        Some(Seen::Unwitnessed(_)) | None => None,
    };
    WitnessStatus {
        count: count(policy.witnesses().len()),
        quorum: count(policy.quorum()),
        faulty: count(policy.faulty()),
        cosigned_size: cosigned.map_or(0, |cosigned| cosigned.checkpoint().size),
        cosigned_by: cosigned
            .map(|cosigned| cosigned.cosignatures().iter().map(|by| by.witness.clone()).collect())
            .unwrap_or_default(),
    }
}
