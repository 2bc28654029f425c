//! Agents: they check a grant as `vault-enclave/src/agent/session.rs` does, and reckon their term as `agent/term.rs` and
//! `agent/outage.rs` do, by a boot clock of their own.

use attestation::{LeaseKey, Sha256Digest, UnixTime};
use ledger::entry::{Entry, Release};
use ledger::extension::ExtensionFile;
use ledger::lease::{LeaseStatement, end_message, grant_message, renew_message};
use ledger::merkle::leaf_hash;
use ledger::revocation::Notice;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::bug::Bug;
use crate::decide::{load_challenge, renew_challenge};
use crate::mail::{Body, Letter, SessionId, Signed, To};
use crate::sim::Sim;
use crate::support::evidence::hpke_key;

#[derive(Default)]
pub struct Agent {
    phase: Phase,
}

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    /// Its request for a challenge is under way.
    Waits {
        request: u32,
    },
    Asks {
        session: SessionId,
        asked: u64,
        key: u32,
        policy: Sha256Digest,
    },
    Holds(Box<Holding>),
}

/// Weights in memory, and until when.
struct Holding {
    key: u32,
    statement: LeaseStatement,
    signed: Signed,
    policy: Sha256Digest,
    /// Boot time less keeper time, at most; and when the freshest request was sent.
    offset: i128,
    asked: u64,
    deadline: u64,
    /// The deadline without extensions.
    granted: u64,
    refused: bool,
    renewal: Renewal,
}

enum Renewal {
    None,
    Waits { request: u32, asked: u64 },
    Asks { session: SessionId, asked: u64, policy: Sha256Digest },
}

impl Agent {
    pub fn lease(&self) -> Option<Sha256Digest> {
        match &self.phase {
            Phase::Holds(holding) => Some(holding.statement.lease),
            _ => None,
        }
    }

    /// Whether it holds weights, and by no extension: of those a keeper may not have heard.
    pub fn holds_by_grant(&self) -> bool {
        matches!(&self.phase, Phase::Holds(held) if held.deadline == held.granted)
    }
}

fn lease_pair(key: u32) -> Ed25519KeyPair {
    let seed = Sha256Digest::of(&key.to_be_bytes());
    Ed25519KeyPair::from_seed_unchecked(seed.as_bytes()).unwrap()
}

fn lease_key(key: u32) -> LeaseKey {
    LeaseKey::try_from(lease_pair(key).public_key().as_ref()).unwrap()
}

fn signature(key: u32, message: &[u8]) -> [u8; 64] {
    lease_pair(key).sign(message).as_ref().try_into().unwrap()
}

impl Sim {
    /// Something that an agent does by itself.
    pub fn agent_acts(&mut self, number: usize) {
        match &mut self.agents[number].phase {
            Phase::Idle => {
                let request = self.post(To::Keeper, Body::GetChallenge { agent: number, lease: None });
                self.agents[number].phase = Phase::Waits { request };
            }
            // No answer came, or it came to late: it begins anew.
            Phase::Waits { .. } | Phase::Asks { .. } => {
                if self.rng.one_in(3) {
                    self.agents[number].phase = Phase::Idle;
                }
            }
            Phase::Holds(_) => match self.rng.below(12) {
                0 => self.end_lease(number),
                1 => {
                    self.say(format!("agent {number} dies"));
                    self.agents[number].phase = Phase::Idle;
                }
                2 | 3 => self.look_for_extension(number),
                _ => self.ask_renewal(number),
            },
        }
    }

    fn ask_renewal(&mut self, number: usize) {
        if let Phase::Holds(holding) = &self.agents[number].phase
            && !matches!(holding.renewal, Renewal::None)
            && !self.rng.one_in(4)
        {
            return;
        }
        let (asked, lease) = (self.now, self.agents[number].lease());
        let request = self.post(To::Keeper, Body::GetChallenge { agent: number, lease });
        if let Phase::Holds(holding) = &mut self.agents[number].phase {
            holding.renewal = Renewal::Waits { request, asked };
        }
    }

    /// It wipes first, and says so then.
    fn end_lease(&mut self, number: usize) {
        let Phase::Holds(holding) = std::mem::take(&mut self.agents[number].phase) else { return };
        let lease = holding.statement.lease;
        let signature = signature(holding.key, &end_message(&self.scene.vault(), &lease));
        self.say(format!("agent {number} ends its lease"));
        self.post(To::Keeper, Body::End { lease, signature });
    }

    /// Nobody could be asked: an extension that lies beside the agent may count.
    fn look_for_extension(&mut self, number: usize) {
        let one_is_enough = self.bug == Some(Bug::OneSignatureExtends);
        let files = self.extensions.clone();
        let Phase::Holds(holding) = &mut self.agents[number].phase else { return };
        if holding.refused {
            return;
        }
        let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
        let keeper_time = (i128::from(self.now) - holding.offset).max(0);
        let keeper_time = UnixTime(u64::try_from(keeper_time).unwrap());
        for file in files {
            let Ok(file) = ExtensionFile::parse(&file) else { continue };
            let lease = holding.statement.lease;
            let until = match file.verify(self.scene.vault(), holding.policy) {
                Ok(approved) => approved.until(lease, &model, &version, keeper_time).ok(),
                Err(_) if one_is_enough => Some(file.extension.until),
                Err(_) => None,
            };
            let Some(until) = until else { continue };
            let until = u64::try_from((holding.offset + i128::from(until.seconds())).max(0)).unwrap();
            if until > holding.deadline {
                holding.deadline = until;
                let (deadline, object) = (until, file.extension.object());
                self.say(format!("agent {number} goes on by an extension"));
                self.lease_extended(object, deadline);
                return;
            }
        }
    }

    /// What time alone ends.
    pub fn deadlines(&mut self) {
        for number in 0..self.agents.len() {
            if let Phase::Holds(holding) = &self.agents[number].phase
                && holding.deadline < self.now
            {
                self.agents[number].phase = Phase::Idle;
                self.say(format!("the lease of agent {number} is over: it wipes"));
            }
        }
    }

    pub fn agent_hears(&mut self, number: usize, letter: &Letter) {
        match &letter.body {
            Body::Challenge { request, session, nonce, policy } => {
                self.challenged(number, *request, *session, *nonce, *policy);
            }
            Body::Grant { session, entry, proof, signature, lease } => {
                self.granted(number, *session, (entry, proof, signature), lease);
            }
            Body::Renewed { session, lease } => self.renewed(number, *session, lease),
            Body::Refused { session } => self.refused(number, *session),
            Body::Notice { entry, proof, leases, signature } => {
                let Some(lease) = self.agents[number].lease() else { return };
                let notice = Notice { entry, log_proof: proof, leases, signature };
                let identity = &self.scene.identity_key;
                let mut logs = self.scene.readers_verifiers(self.bug).into_iter();
                if logs.any(|log| notice.verify(lease, &log, identity).is_ok()) {
                    self.say(format!("agent {number} hears that its lease is revoked: it wipes"));
                    self.agents[number].phase = Phase::Idle;
                }
            }
            _ => {}
        }
    }

    fn challenged(&mut self, number: usize, request: u32, session: SessionId, nonce: [u8; 32], policy: Sha256Digest) {
        let (scene, now) = (self.scene, self.now);
        let next_key = self.keys + 1;
        let body = match &mut self.agents[number].phase {
            Phase::Waits { request: asked } if *asked == request => {
                self.keys = next_key;
                let key = lease_key(next_key);
                let binding = load_challenge(scene, number, session, nonce, policy).bind(hpke_key(), key.clone());
                self.agents[number].phase = Phase::Asks { session, asked: now, key: next_key, policy };
                Body::Load { session, key, quote: scene.guests[number].quote(&binding) }
            }
            Phase::Holds(holding) => {
                let Renewal::Waits { request: waits, asked } = holding.renewal else { return };
                if waits != request {
                    return;
                }
                let lease = holding.statement.lease;
                let challenge = renew_challenge(
                    scene,
                    number,
                    (session, nonce, policy),
                    (lease, holding.statement.lease_key.clone()),
                );
                let binding = challenge.bind();
                let signature = signature(holding.key, &renew_message(&session, &lease, binding.digest()));
                holding.renewal = Renewal::Asks { session, asked, policy };
                let (quote, shown) = (scene.guests[number].quote(&binding), holding.signed.clone());
                Body::Renew { session, lease, quote, shown, signature }
            }
            _ => return,
        };
        self.post(To::Keeper, body);
    }

    /// `Session::accept`: the grant against what this session asked, then the term.
    fn granted(
        &mut self,
        number: usize,
        session: SessionId,
        (entry, proof, signature): (&[u8], &str, &[u8; 96]),
        lease: &Signed,
    ) {
        let Phase::Asks { session: asks, asked, key, policy } = self.agents[number].phase else { return };
        if asks != session {
            return;
        }
        let Some((release, statement)) = self.accepts(session, (entry, proof, signature), lease) else {
            return self.say(format!("agent {number} refuses a grant"));
        };
        if release.session != session || release.lease_key != lease_key(key) || release.policy != policy {
            return self.say(format!("agent {number} refuses a grant of another session"));
        }
        let asked = if self.bug == Some(Bug::TermFromTheAnswer) { self.now } else { asked };
        let holding = Holding::new(key, statement, lease.clone(), policy, offset(asked, &release), asked);
        self.say(format!("agent {number} opens its keys, until {}", self.words_of(holding.deadline)));
        self.holds(holding.statement.lease, holding.deadline);
        self.agents[number].phase = Phase::Holds(Box::new(holding));
        self.counts.held += 1;
    }

    fn accepts(
        &mut self,
        session: SessionId,
        (entry, proof, signature): (&[u8], &str, &[u8; 96]),
        lease: &Signed,
    ) -> Option<(Release, LeaseStatement)> {
        let message = grant_message(&leaf_hash(entry), b"enc", b"wrapped");
        self.scene.identity_key.verify(&message, signature).ok()?;
        let logs = self.scene.readers_verifiers(self.bug);
        let (_, head) = logs.iter().find_map(|log| log.verify_proof(proof, entry).ok())?;
        let Ok(Entry::Release(release)) = Entry::parse(entry) else { return None };
        let statement = self.lease_of(lease)?;
        let same = release.session == session
            && (&statement.lease, &statement.lease_key) == (&release.lease, &release.lease_key)
            && (statement.issued, statement.renew_by) == (release.issued, release.renew_by);
        self.truth.accept(head);
        same.then_some((*release, statement))
    }

    fn lease_of(&self, lease: &Signed) -> Option<LeaseStatement> {
        let message = LeaseStatement::message(&lease.statement);
        self.scene.identity_key.verify(&message, &lease.signature).ok()?;
        LeaseStatement::parse(&lease.statement).ok().filter(|statement| statement.vault == self.scene.vault())
    }

    /// `verify_renewal`, and the term after it.
    fn renewed(&mut self, number: usize, session: SessionId, lease: &Signed) {
        let Some(statement) = self.lease_of(lease) else { return };
        let from_the_answer = self.bug == Some(Bug::TermFromTheAnswer);
        let now = self.now;
        let Phase::Holds(holding) = &mut self.agents[number].phase else { return };
        let Renewal::Asks { session: asks, asked, policy } = holding.renewal else { return };
        let held = &holding.statement;
        let same =
            statement.lease == held.lease && statement.lease_key == held.lease_key && statement.rule == held.rule;
        if asks != session || !same || statement.issued <= held.issued {
            return;
        }
        let asked = if from_the_answer { now } else { asked };
        let drift = i128::from(asked.saturating_sub(holding.asked)) / 5_000;
        let fresh = i128::from(asked) - i128::from(statement.issued.seconds());
        let offset = if from_the_answer { fresh } else { fresh.min(holding.offset + drift) };
        **holding = Holding::new(holding.key, statement, lease.clone(), policy, offset, asked);
        let (lease, deadline) = (holding.statement.lease, holding.deadline);
        self.say(format!("agent {number} renewed its lease, until {}", self.words_of(deadline)));
        self.holds(lease, deadline);
        self.counts.renewed += 1;
    }

    /// No extension counts against a refusal, not even one that did before.
    fn refused(&mut self, number: usize, session: SessionId) {
        match &mut self.agents[number].phase {
            Phase::Holds(holding) if matches!(holding.renewal, Renewal::Asks { session: asks, .. } if asks == session) =>
            {
                holding.refused = true;
                holding.deadline = holding.granted;
                holding.renewal = Renewal::None;
            }
            Phase::Asks { session: asks, .. } if *asks == session => self.agents[number].phase = Phase::Idle,
            _ => {}
        }
    }
}

impl Holding {
    fn new(
        key: u32,
        statement: LeaseStatement,
        signed: Signed,
        policy: Sha256Digest,
        offset: i128,
        asked: u64,
    ) -> Self {
        let deadline = u64::try_from((offset + i128::from(statement.renew_by.seconds())).max(0)).unwrap();
        let (refused, renewal, granted) = (false, Renewal::None, deadline);
        Self { key, statement, signed, policy, offset, asked, deadline, granted, refused, renewal }
    }
}

fn offset(asked: u64, release: &Release) -> i128 {
    i128::from(asked) - i128::from(release.issued.seconds())
}
