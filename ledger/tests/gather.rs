//! Commits of a log with witnesses: what they are asked, what their answers are worth, and that nothing is released
//! without a quorum.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "gather/follow.rs"]
mod follow;

use attestation::{LogKey, Sha256Digest, UnixTime};
use ledger::checkpoint::{Checkpoint, LogVerifier, Seen};
use ledger::cosignature::{Answer, Gathering, NoQuorum, Outcome, WitnessKey, WitnessPolicy};
use ledger::merkle::Hash;
use ledger::note::VerifierKey;
use ledger::release_log::{Batch, ClosedLog, Log, LogError, LogReader, Loggable, Writer};
use ledger::witness::{AddCheckpoint, AddCheckpointError, Step, step};
use ring::signature::{Ed25519KeyPair, KeyPair};

const GENESIS: &[u8] = b"genesis";
const TIME: UnixTime = UnixTime(1_679_315_147);

struct Grant;

impl Loggable for Grant {
    fn entry_bytes(&self) -> Vec<u8> {
        b"grant".to_vec()
    }
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(seed: u8) -> LogKey {
    LogKey::try_from(pair(seed).public_key().as_ref()).unwrap()
}

fn key(seed: u8) -> WitnessKey {
    WitnessKey::new(&format!("witness.example/{seed}"), public(seed)).unwrap()
}

fn log_key() -> LogVerifier {
    LogVerifier::new(Sha256Digest::of(GENESIS), public(1))
}

/// Three witnesses, two of which must have cosigned.
fn verifier() -> LogVerifier {
    log_key().witnessed_by(WitnessPolicy::new([11, 12, 13].map(key).to_vec(), 2, 0).unwrap())
}

/// A witness that does as the specification says, and what stands between it and the keeper.
#[derive(Clone)]
struct Witness {
    seed: u8,
    latest: Option<Checkpoint>,
    fault: Fault,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Silent,
    Unreached,
    Says(u16, &'static str),
    /// Signs with the key of another seed under its own name and id.
    KeyOf(u8),
    /// Cosigns other text than was asked for.
    OtherRoot,
    /// An honest answer that is repeated with a stranger's line before it.
    StrangerFirst,
}

impl Witness {
    fn ask(&mut self, body: &str) -> Option<Answer> {
        match self.fault {
            Fault::Silent => return None,
            Fault::Unreached => return Some(Answer::Unreached { why: "refused\n".repeat(100) }),
            Fault::Says(status, body) => return Some(Answer::Response { status, body: body.into() }),
            Fault::None | Fault::KeyOf(_) | Fault::OtherRoot | Fault::StrangerFirst => {}
        }
        let known: VerifierKey = log_key().key().clone();
        let answer = match step(&known, self.latest, AddCheckpoint::parse(body).unwrap()) {
            Ok(step) => {
                self.latest = Some(step.checkpoint());
                Answer::Response { status: 200, body: self.lines(&step).into_bytes() }
            }
            Err(AddCheckpointError::Conflict { size }) => {
                Answer::Response { status: 409, body: format!("{size}\n").into_bytes() }
            }
            Err(error) => Answer::Response { status: error.status(), body: error.code().into() },
        };
        Some(answer)
    }

    fn lines(&self, step: &Step) -> String {
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        let own = key(self.seed);
        let line = |seed: u8, text: &str| {
            let signature = pair(seed).sign(&WitnessKey::message(text, TIME));
            key(seed).line(text, TIME, signature.as_ref().try_into().unwrap()).unwrap()
        };
        match self.fault {
            Fault::KeyOf(seed) => {
                let id = own.to_string().split('+').nth(1).map(hex::decode).unwrap().unwrap();
                let other = line(seed, step.text());
                let bytes = BASE64_STANDARD.decode(other.trim_end().rsplit(' ').next().unwrap()).unwrap();
                format!("— {} {}\n", own.name(), BASE64_STANDARD.encode([&id, &bytes[4..]].concat()))
            }
            Fault::OtherRoot => line(self.seed, &format!("{}more\n", step.text())),
            Fault::StrangerFirst => line(99, step.text()) + &line(self.seed, step.text()),
            Fault::None | Fault::Silent | Fault::Unreached | Fault::Says(..) => line(self.seed, step.text()),
        }
    }
}

/// The keeper's disk, and its witnesses.
struct World {
    witnesses: Vec<Witness>,
    entries: Vec<Vec<u8>>,
    heads: Vec<Checkpoint>,
    published: Vec<String>,
    asked: usize,
    /// Bundles that were asked for.
    recalled: Vec<u64>,
    /// Gives one entry less than the bundle has.
    forgetful: bool,
}

impl World {
    fn new() -> Self {
        let witnesses = [11, 12, 13].map(|seed| Witness { seed, latest: None, fault: Fault::None }).to_vec();
        Self {
            witnesses,
            entries: vec![],
            heads: vec![],
            published: vec![],
            asked: 0,
            recalled: vec![],
            forgetful: false,
        }
    }

    fn started() -> (Self, Log) {
        let mut world = Self::new();
        let log = ClosedLog::empty().start(verifier(), batch(&[GENESIS]), &mut world).unwrap();
        (world, log)
    }

    /// What is there after a kill, folded again.
    fn reopened(&self) -> ClosedLog {
        let mut reader = LogReader::new(*self.heads.last().unwrap());
        self.entries.iter().for_each(|entry| reader.push(entry).unwrap());
        reader.finish().unwrap()
    }

    fn restart(&mut self) -> Result<Log, LogError<()>> {
        self.reopened().start(verifier(), batch(&[b"start"]), self)
    }

    fn faults(&mut self, faults: [Fault; 3]) {
        self.witnesses.iter_mut().zip(faults).for_each(|(witness, fault)| witness.fault = fault);
    }
}

impl Writer for World {
    type Error = ();

    fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<(), ()> {
        self.entries.truncate(first as usize);
        self.entries.extend_from_slice(entries);
        Ok(())
    }

    fn commit(&mut self, size: u64, root: Hash) -> Result<(), ()> {
        self.heads.push(Checkpoint { size, root });
        Ok(())
    }

    fn sign(&mut self, text: &str) -> Result<[u8; 64], ()> {
        Ok(pair(1).sign(text.as_bytes()).as_ref().try_into().unwrap())
    }

    fn cosign(&mut self, gathering: &mut Gathering<'_>) -> Result<(), ()> {
        let mut asks = gathering.asks();
        loop {
            if let Some(bundle) = gathering.wants() {
                self.recalled.push(bundle);
                let first = 256 * bundle as usize;
                gathering.recall(bundle, &self.entries[first..first + if self.forgetful { 255 } else { 256 }]);
            }
            asks.extend(gathering.asks());
            let Some(ask) = asks.pop() else { return Ok(()) };
            self.asked += 1;
            let body = ask.body.clone();
            if let Some(answer) = self.witnesses[ask.witness].ask(&body) {
                gathering.answer(ask.witness, answer.clone());
                // An answer to what was not asked yet, and one of a witness that does not exist, change nothing.
                gathering.answer(ask.witness, Answer::Unreached { why: "refused".to_owned() });
                gathering.answer(17, answer);
            }
        }
    }

    fn publish(&mut self, checkpoint: &str, _: u64) -> Result<(), ()> {
        verifier().verify_checkpoint(checkpoint).unwrap();
        self.published.push(checkpoint.to_owned());
        Ok(())
    }
}

fn batch(entries: &[&[u8]]) -> Batch {
    let mut batch = Batch::new();
    entries.iter().for_each(|entry| batch.add(entry.to_vec()).unwrap());
    batch
}

/// The grant's proof, or why its commit failed; in that case its ticket gives nothing.
fn grant(world: &mut World, log: &mut Log) -> Result<String, LogError<()>> {
    let mut batch = Batch::new();
    let ticket = batch.stage(Grant).unwrap();
    match log.commit(batch, world) {
        Ok(_) => Ok(ticket.redeem().unwrap().proof()),
        Err(error) => {
            assert!(ticket.redeem().is_err(), "nothing is logged without its quorum");
            Err(error)
        }
    }
}

#[track_caller]
fn no_quorum<T: std::fmt::Debug>(result: Result<T, LogError<()>>) -> NoQuorum {
    match result {
        Err(LogError::NoQuorum(missing)) => missing,
        other => panic!("{other:?}"),
    }
}

#[test]
fn commit_is_cosigned_before_it_is_published_and_its_proof_says_so() {
    let (mut world, mut log) = World::started();
    let proof = grant(&mut world, &mut log).unwrap();
    verifier().verify_proof(&proof, b"grant").unwrap();
    let Some(Seen::Cosigned(seen)) = log.seen() else { panic!("{log:?}") };
    assert_eq!((seen.checkpoint().size, seen.cosignatures().len()), (2, 3));
    assert_eq!(log.checkpoint(), world.published.last().unwrap());
    assert_eq!(world.asked, 2 * 3, "a witness that is up to date is asked once");
}

#[test]
fn one_witness_of_three_may_fail_in_any_way_and_two_may_not() {
    let faults = [
        (Fault::Silent, Outcome::Waiting),
        (Fault::Unreached, Outcome::Unreached { why: "refused".repeat(23)[..160].to_owned() }),
        (Fault::Says(404, "no"), Outcome::Refused { status: 404 }),
        (Fault::Says(409, "soon\n"), Outcome::Refused { status: 409 }),
        (Fault::Says(200, ""), Outcome::NotCosigned),
        (Fault::Says(200, "— witness.example/11 AAAA\n"), Outcome::NotCosigned),
        (Fault::KeyOf(99), Outcome::NotCosigned),
        (Fault::OtherRoot, Outcome::NotCosigned),
    ];
    for (fault, outcome) in faults {
        let (mut world, mut log) = World::started();
        world.faults([fault, Fault::None, Fault::None]);
        grant(&mut world, &mut log).unwrap();
        world.faults([fault, Fault::None, Fault::Silent]);
        let missing = no_quorum(grant(&mut world, &mut log));
        assert_eq!(missing.code(), "witness-quorum-missing");
        let outcomes: Vec<&Outcome> = missing.witnesses().iter().map(|(_, outcome)| outcome).collect();
        assert_eq!(outcomes, [&outcome, &Outcome::Cosigned, &Outcome::Waiting]);
        assert_eq!(no_stop(&mut world, &mut log), LogError::Stopped);
    }
}

fn no_stop(world: &mut World, log: &mut Log) -> LogError<()> {
    log.commit(Batch::new(), world).unwrap_err()
}

#[test]
fn line_of_another_key_beside_its_own_does_no_harm() {
    let (mut world, mut log) = World::started();
    world.faults([Fault::StrangerFirst; 3]);
    grant(&mut world, &mut log).unwrap();
}

/// Also where it missed whole bundles of entries, of which the log forgets the leaves.
#[test]
fn witness_that_was_away_is_shown_that_the_log_continues_what_it_knows() {
    let (mut world, mut log) = World::started();
    world.faults([Fault::Unreached, Fault::None, Fault::None]);
    (0..600).for_each(|_| drop(grant(&mut world, &mut log).unwrap()));
    world.faults([Fault::None, Fault::None, Fault::Unreached]);
    (0..300).for_each(|_| drop(grant(&mut world, &mut log).unwrap()));
    assert_eq!(world.witnesses[2].latest.unwrap().size, 601);
    world.faults([Fault::None, Fault::Unreached, Fault::None]);
    let mut log = world.restart().unwrap();
    grant(&mut world, &mut log).unwrap();
    assert_eq!(world.witnesses[2].latest.unwrap().size, 903);
    // The first had cosigned 1 entry, the third 601.
    assert_eq!(world.recalled, [0, 2]);
}

/// One that can't be shown anything is one witness less, and no more.
#[test]
fn witness_whose_entries_the_host_does_not_give_is_not_asked() {
    let (mut world, mut log) = World::started();
    world.faults([Fault::Unreached, Fault::None, Fault::None]);
    (0..300).for_each(|_| drop(grant(&mut world, &mut log).unwrap()));
    world.faults([Fault::None, Fault::None, Fault::Unreached]);
    world.forgetful = true;
    let missing = no_quorum(grant(&mut world, &mut log));
    assert_eq!((missing.code(), &missing.witnesses()[0].1), ("witness-quorum-missing", &Outcome::NotShown { size: 1 }));
    assert!(missing.to_string().contains("has cosigned 1 entries, and the host does not give"), "{missing}");
    world.forgetful = false;
    let mut log = world.restart().unwrap();
    grant(&mut world, &mut log).unwrap();
}

#[test]
fn writer_that_asks_nobody_commits_nothing() {
    struct Lazy(World);
    impl Writer for Lazy {
        type Error = ();
        fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<(), ()> {
            self.0.append(first, entries)
        }
        fn commit(&mut self, size: u64, root: Hash) -> Result<(), ()> {
            self.0.commit(size, root)
        }
        fn sign(&mut self, text: &str) -> Result<[u8; 64], ()> {
            self.0.sign(text)
        }
        fn publish(&mut self, _: &str, _: u64) -> Result<(), ()> {
            panic!("it is not cosigned")
        }
    }
    no_quorum(ClosedLog::empty().start(verifier(), batch(&[GENESIS]), &mut Lazy(World::new())));
}

/// Asking is what failed, not a witness: the log stops as it does without a quorum.
#[test]
fn writer_that_cannot_ask_commits_nothing_and_stops() {
    struct Broken(World);
    impl Writer for Broken {
        type Error = ();
        fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<(), ()> {
            self.0.append(first, entries)
        }
        fn commit(&mut self, size: u64, root: Hash) -> Result<(), ()> {
            self.0.commit(size, root)
        }
        fn sign(&mut self, text: &str) -> Result<[u8; 64], ()> {
            self.0.sign(text)
        }
        fn cosign(&mut self, _: &mut Gathering<'_>) -> Result<(), ()> {
            Err(())
        }
        fn publish(&mut self, _: &str, _: u64) -> Result<(), ()> {
            panic!("it is not cosigned")
        }
    }
    let (world, mut log) = World::started();
    let mut broken = Broken(world);
    let refused = log.commit(Batch::new(), &mut broken).unwrap_err();
    assert_eq!((&refused, refused.code()), (&LogError::Cosign(()), "log-cosign"));
    assert_eq!(log.commit(Batch::new(), &mut broken.0).unwrap_err(), LogError::Stopped);
}

#[test]
fn log_whose_last_commit_was_not_cosigned_is_cosigned_before_anything_is_added() {
    let (mut world, mut log) = World::started();
    world.faults([Fault::Silent, Fault::None, Fault::Silent]);
    no_quorum(grant(&mut world, &mut log));
    // Nothing is written as long as there is no quorum.
    no_quorum(world.restart());
    assert_eq!((world.entries.len(), world.published.len()), (2, 1));
    world.faults([Fault::None, Fault::None, Fault::Silent]);
    let current = world.reopened().recosign(verifier(), &mut world).unwrap();
    let Some(Seen::Cosigned(seen)) = current.seen() else { panic!("{current:?}") };
    assert_eq!(seen.checkpoint().size, 2);
    current.start(batch(&[b"start"]), &mut world).unwrap();
    assert_eq!(world.published.len(), 2);
}

#[test]
fn older_copy_is_refused_by_its_witnesses_and_writes_nothing() {
    let (mut world, mut log) = World::started();
    let old = world.heads.len();
    grant(&mut world, &mut log).unwrap();
    world.heads.truncate(old);
    world.entries.truncate(1);
    let missing = no_quorum(world.restart());
    assert_eq!(missing.code(), "state-older-than-witnesses");
    assert_eq!(missing.witnesses()[0].1, Outcome::Ahead { size: 2 });
    assert_eq!(world.entries.len(), 1);
    // One that is not reached does not make it younger.
    world.faults([Fault::None, Fault::Unreached, Fault::None]);
    assert_eq!(no_quorum(world.restart()).code(), "state-older-than-witnesses");
}

#[test]
fn witness_that_was_away_is_brought_up_to_date_with_a_proof() {
    let (mut world, mut log) = World::started();
    world.faults([Fault::Silent, Fault::None, Fault::None]);
    (0..5).for_each(|_| drop(grant(&mut world, &mut log).unwrap()));
    assert_eq!(world.witnesses[0].latest.unwrap().size, 1);
    world.faults([Fault::None, Fault::None, Fault::Silent]);
    grant(&mut world, &mut log).unwrap();
    assert_eq!(world.witnesses[0].latest.unwrap().size, 7);
    // A new one knows nothing: it begins with the log as it is.
    world.witnesses[0].latest = None;
    grant(&mut world, &mut log).unwrap();
    assert_eq!(world.witnesses[0].latest.unwrap().size, 8);
}

#[test]
fn two_copies_that_went_on_from_one_state_are_not_both_cosigned() {
    let (world, _) = World::started();
    let mut copy =
        World { witnesses: vec![], entries: world.entries.clone(), heads: world.heads.clone(), ..World::new() };
    let mut world = world;
    let mut log = world.restart().unwrap();
    // The other copy asks the same witnesses, with another entry at the same place.
    copy.witnesses = world.witnesses.clone();
    copy.witnesses.iter_mut().for_each(|witness| witness.latest = Some(*world.heads.first().unwrap()));
    let mut other = copy.reopened().start(verifier(), batch(&[b"another start"]), &mut copy).unwrap();
    copy.witnesses = world.witnesses.clone();
    let missing = no_quorum(other.commit(Batch::new(), &mut copy));
    assert_eq!(missing.code(), "log-forked-from-witnesses");
    assert_eq!(missing.witnesses()[0].1, Outcome::Forked);
    grant(&mut world, &mut log).unwrap();
}

#[test]
fn fewer_witnesses_than_may_be_faulty_do_not_make_a_state_old() {
    // Four witnesses, one of which may be faulty, and a quorum of three.
    let policy = WitnessPolicy::new([11, 12, 13, 14].map(key).to_vec(), 3, 1).unwrap();
    let mut world = World::new();
    world.witnesses.push(Witness { seed: 14, latest: None, fault: Fault::Says(409, "99\n") });
    let log = log_key().witnessed_by(policy);
    ClosedLog::empty().start(log.clone(), batch(&[GENESIS]), &mut world).unwrap();
    world.witnesses[0].fault = Fault::Silent;
    let missing = no_quorum(world.reopened().start(log, batch(&[b"start"]), &mut world));
    assert_eq!(missing.code(), "witness-quorum-missing");
    assert_eq!(missing.witnesses()[3].1, Outcome::Ahead { size: 99 });
}

#[test]
fn witness_that_names_sizes_without_end_is_asked_three_times() {
    let (mut world, mut log) = World::started();
    world.faults([Fault::Says(409, "1\n"), Fault::None, Fault::None]);
    let before = world.asked;
    grant(&mut world, &mut log).unwrap();
    assert_eq!(world.asked - before, 5);
}
