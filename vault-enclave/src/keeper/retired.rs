//! A keeper that retired: it writes nothing, serves nothing, and goes on giving the vault's keys to the one successor that
//! its last counted commit names, until that one has them. One that left others gives nobody anything.

use std::time::Instant;

use attestation::{KeptChains, Sha256Digest};
use ledger::checkpoint::Checkpoint;
use ledger::genesis::Genesis;
use ledger::keepers::{AdmittedJoiner, LetIn};
use ledger::release_log::Log;
use ledger::state::State;
use prost::Message;
use ring::rand::SystemRandom;
use vault_proto::convert::HandOver;
use vault_proto::v1::{self, join_keeper_response::Outcome, keeper_call::Request, keeper_reply::Response};

use super::challenges::{Challenges, SessionId};
use super::clock::Clock;
use super::join::Desk;
use super::refusal::Refusal;
use super::service::{Answer, Job};
use crate::hand_over::{HandOverInfo, wrap_vault_keys};
use crate::head::Anchor;
use crate::vault_keys::VaultKeys;

/// Everything that a retired keeper holds.
pub(super) struct Retired {
    pub(super) genesis: Genesis,
    pub(super) keys: VaultKeys,
    pub(super) anchor: Anchor,
    pub(super) state: State,
    pub(super) challenges: Challenges,
    pub(super) chains: KeptChains,
    pub(super) clock: Clock,
    pub(super) rng: SystemRandom,
}

/// The committed head of a log by which another keeper may have the vault's keys: of the log whose last entry retires the
/// keeper and names the successor, or under witnesses of one that has the successor's `keeper-join`. No keys are wrapped to
/// another keeper without one.
pub(super) struct HandOverHead {
    size: u64,
    root: Sha256Digest,
    /// The only one that may have the keys.
    successor: [u8; 32],
}

impl HandOverHead {
    /// `None` while the state has more than what is counted, and while it names no successor.
    pub(super) fn of(anchor: &Anchor, state: &State) -> Option<Self> {
        let successor = state.vault()?.keepers().successor()?;
        let counted = anchor.size() == state.size();
        counted.then_some(Self { size: anchor.size(), root: anchor.root(), successor: successor.machine.instance })
    }

    /// `None` until a quorum has cosigned the entry that let the keeper in.
    pub(super) fn beside(log: &Log, let_in: &LetIn) -> Option<Self> {
        let Checkpoint { size, root } = log.head();
        let root = Sha256Digest::from_bytes(root);
        (let_in.entry() < size).then_some(Self { size, root, successor: let_in.instance() })
    }

    /// Wraps the vault's keys to the successor, whose evidence was made for a challenge of this run.
    pub(super) fn hand_over(
        &self,
        keys: &VaultKeys,
        vault: Sha256Digest,
        to: &AdmittedJoiner,
        rng: &SystemRandom,
    ) -> Answer {
        let statement = to.verified().statement();
        if to.joiner().machine.instance != self.successor {
            return Err(refusal());
        }
        let info = HandOverInfo {
            vault,
            session: *statement.session(),
            nonce: *statement.nonce(),
            evidence: to.evidence(),
            policy: statement.policy(),
            instance: self.successor,
            size: self.size,
            root: self.root,
        };
        let (wrapped, signature) = wrap_vault_keys(keys, &statement.joiner().hpke_key, &info, rng)
            .map_err(|error| Refusal::denied(error.code(), error))?;
        let enc = wrapped.enc.try_into().map_err(|_| Refusal::unavailable("wrap", "HPKE gave another length"))?;
        let hand_over = HandOver { size: self.size, root: self.root, enc, wrapped_keys: wrapped.ciphertext, signature };
        tracing::info!(size = self.size, "the vault's keys were wrapped to the successor");
        let outcome = Some(Outcome::HandOver(hand_over.into()));
        Ok(Response::JoinKeeper(v1::JoinKeeperResponse { outcome }))
    }
}

impl Retired {
    /// Answers what is left to answer.
    pub(super) fn handle(&mut self, job: Job) {
        let Job { request, reply } = job;
        // One that left others has none: whoever asks for keys asks them.
        let successor = self.state.vault().is_some_and(|vault| vault.keepers().successor().is_some());
        let answer = match request {
            Request::JoinKeeper(request) if successor => return self.join_keeper(request, reply),
            Request::GetJoinChallenge(request) if successor => {
                let now = self.clock.now(self.state.time());
                self.desk().and_then(|mut desk| desk.challenge(request, now))
            }
            Request::Status(_) => Ok(self.status()),
            _ => Err(refusal()),
        };
        // The caller may be gone.
        let _ = reply.send(answer);
    }

    fn join_keeper(&mut self, request: v1::JoinKeeperRequest, reply: tokio::sync::oneshot::Sender<Answer>) {
        let digest = Sha256Digest::of(&request.encode_to_vec());
        let Ok(session) = SessionId::try_from(request.session.as_slice()) else {
            let _ = reply.send(Err(Refusal::malformed("malformed-session", "session: 16 bytes")));
            return;
        };
        let Some((redemption, reply)) = self.challenges.redeem(session, digest, reply, Instant::now()) else { return };
        let now = self.clock.now(self.state.time());
        let admitted = self.desk().and_then(|mut desk| desk.admit_successor(redemption.pending, request, now));
        let answer = admitted.and_then(|(admitted, _)| {
            let head = HandOverHead::of(&self.anchor, &self.state).ok_or_else(refusal)?;
            head.hand_over(&self.keys, self.genesis.vault_id(), &admitted, &self.rng)
        });
        self.challenges.answered(redemption.session, &answer);
        let _ = reply.send(answer);
    }

    fn desk(&mut self) -> Result<Desk<'_>, Refusal> {
        let vault = self.state.vault().ok_or_else(refusal)?;
        Ok(Desk { vault, challenges: &mut self.challenges, chains: &mut self.chains, rng: &self.rng })
    }

    fn status(&self) -> Response {
        let successor = self.state.vault().and_then(|vault| vault.keepers().successor());
        let reason = match successor {
            Some(successor) => format!(
                "this keeper handed its vault over to {} on platform {}: start that one, and point the host at it",
                hex::encode(successor.machine.instance),
                successor.machine.platform
            ),
            None => "approvers had this keeper leave: point the host at the others".to_owned(),
        };
        Response::Status(v1::StatusResponse {
            state: "retired".to_owned(),
            reason,
            vault_id: self.genesis.vault_id().as_bytes().to_vec(),
            anti_rollback: self.genesis.core().anti_rollback().as_str().to_owned(),
            log_size: self.anchor.size(),
            log_root: self.anchor.root().as_bytes().to_vec(),
            time_source: "host clock".to_owned(),
            genesis: self.genesis.bytes().to_vec(),
            ..v1::StatusResponse::default()
        })
    }
}

/// To everybody but the successor.
pub(super) fn refusal() -> Refusal {
    Refusal::unavailable("keeper-retired", "this keeper has retired: another one has the vault")
}
