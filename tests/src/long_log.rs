//! A log as long as one likes: what a keeper would have written in days, made in seconds.
//!
//! Every entry goes through the fold as it is made. Its releases are copies of one that a guest really got, for other
//! sessions, leases and platforms; their evidence is that one's.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use attestation::{Sha256Digest, UnixTime, lease_id};
use ledger::checkpoint::{Checkpoint, LogVerifier};
use ledger::entry::{Action, Cause, Deny, DenySummary, End, Entry, Release, Renew, Renewal, Start, TimeSource};
use ledger::merkle::{Tree, leaf_hash};
use ledger::state::State;
use ledger::tiles::{Tile, TileKind, changed_tiles, decode_bundle, encode_bundle};
use vault_enclave::head::Anchor;
use vault_enclave::keeper_dir::KeeperDir;
use vault_enclave::root;
use vault_enclave::tpm::Tpm;
use vault_enclave::vault_keys::VaultKeys;

use crate::World;

/// Entries a second: days pass, and leases end as they do.
const PER_SECOND: u64 = 2;
/// Entries of one run of the keeper: about seven hours.
const PER_RUN: u64 = 50_000;
/// Machines that ask.
const PLATFORMS: u64 = 2000;

/// A log that grows, and its fold.
pub struct LongLog {
    /// The fold of all entries.
    pub state: State,
    /// Their tree.
    pub tree: Tree,
    /// All of them, exact bytes.
    pub entries: Vec<Vec<u8>>,
    template: Release,
    leases: VecDeque<Sha256Digest>,
    vault: Sha256Digest,
    began: UnixTime,
}

impl LongLog {
    /// The log that a stopped host has in its directory; one of its entries is a release.
    pub fn of(host: &Path) -> Self {
        let note = fs::read_to_string(host.join("log/checkpoint")).expect("a checkpoint");
        let size: u64 = note.lines().nth(1).and_then(|size| size.parse().ok()).expect("its size");
        let bundles = changed_tiles(0, size).filter(|tile| tile.kind() == TileKind::Entries);
        let read = |tile: Tile| {
            let bundle = fs::read(host.join("log").join(tile.to_string())).expect("a bundle");
            let entries = decode_bundle(&bundle, tile.width()).expect("a bundle");
            entries.into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let entries: Vec<Vec<u8>> = bundles.flat_map(read).collect();
        let (mut state, mut tree) = (State::new(), Tree::new());
        for entry in &entries {
            state.apply(state.size(), entry).expect("a keeper wrote it");
            tree.push(leaf_hash(entry));
        }
        let template = entries.iter().rev().find_map(|entry| match Entry::parse(entry) {
            Ok(Entry::Release(release)) => Some(*release),
            _ => None,
        });
        let (vault, began) = (Sha256Digest::of(&entries[0]), state.time());
        let template = template.expect("a release");
        Self { state, tree, entries, template, leases: VecDeque::new(), vault, began }
    }

    /// Adds entries until there are `size`.
    ///
    /// # Panics
    /// Where the fold refuses one.
    pub fn grow(&mut self, size: u64) {
        let policy = self.state.vault().expect("it is open").policy().digest();
        self.template.policy = policy;
        while self.state.size() < size {
            let entry = self.next();
            let bytes = entry.encode().expect("a short entry");
            self.state.apply(self.state.size(), &bytes).expect("what a keeper would write");
            self.tree.push(leaf_hash(&bytes));
            self.entries.push(bytes);
        }
    }

    /// Of 20 entries six are releases, eight renewals of up to eight leases, three ends and three refusals.
    fn next(&mut self) -> Entry {
        let n = self.state.size();
        let time = self.began.plus((n + 1) / PER_SECOND).max(self.state.time());
        let Release { rule, model, version, platform, evidence, .. } = self.template.clone();
        match n % PER_RUN {
            k if k == PER_RUN - 1 => Entry::Start(Start {
                time,
                run: *Sha256Digest::of(&n.to_be_bytes()).as_bytes().first_chunk().expect("16 of 32 bytes"),
                version: "0.1.0".parse().expect("a version"),
                tier: self.template.tier,
                keeper: None,
                time_source: TimeSource::HostClock,
            }),
            k if k % 20 < 6 => self.release(n, time),
            k if k % 20 < 14 => self.renewal(time).unwrap_or_else(|| self.release(n, time)),
            k if k % 20 < 17 => self.end(time).unwrap_or_else(|| self.release(n, time)),
            k if k % 20 < 19 => {
                let code = "pcr-not-allowed".parse().expect("a name");
                Entry::Deny(Deny {
                    time,
                    code,
                    action: Action::Load,
                    rule,
                    model,
                    version,
                    platform,
                    evidence,
                    workload: None,
                })
            }
            _ => {
                let counts = [("challenge-unknown".parse().expect("a name"), n)].into();
                Entry::DenySummary(DenySummary { time, since: time, counts })
            }
        }
    }

    fn release(&mut self, n: u64, time: UnixTime) -> Entry {
        let mut release = self.template.clone();
        release.session[..8].copy_from_slice(&n.to_be_bytes());
        release.lease = lease_id(&self.vault, &release.session, &release.lease_key);
        release.platform = Sha256Digest::of(&(n % PLATFORMS).to_be_bytes());
        let lasts = release.renew_by.seconds() - release.issued.seconds();
        (release.time, release.issued, release.renew_by) = (time, time, time.plus(lasts));
        self.leases.push_back(release.lease);
        Entry::Release(Box::new(release))
    }

    /// Leases that still run, the oldest first: they are renewed in turn.
    fn running(&mut self, time: UnixTime, count: usize) -> Vec<Sha256Digest> {
        let mut found = Vec::new();
        while let Some(lease) = self.leases.front().copied().filter(|_| found.len() < count) {
            self.leases.pop_front();
            let vault = self.state.vault().expect("it is open");
            if vault.lease(lease).is_some_and(|lease| time <= lease.renew_by) {
                found.push(lease);
            }
        }
        found
    }

    fn renewal(&mut self, time: UnixTime) -> Option<Entry> {
        let count = usize::try_from(self.state.size() % 8 + 1).expect("at most 8");
        let leases = self.running(time, count);
        self.leases.extend(&leases);
        let lasts = self.template.renew_by.seconds() - self.template.issued.seconds();
        let Release { evidence, binding, .. } = self.template;
        let renewal = |lease| Renewal { lease, issued: time, renew_by: time.plus(lasts), evidence, binding };
        let renewals: Vec<Renewal> = leases.into_iter().map(renewal).collect();
        (!renewals.is_empty()).then_some(Entry::Renew(Renew { time, renewals }))
    }

    fn end(&mut self, time: UnixTime) -> Option<Entry> {
        let lease = self.running(time, 1).pop()?;
        Some(Entry::End(End { time, lease, cause: Cause::Agent }))
    }

    /// Puts the log in the place of the one that a stopped host has, and its head in that of the stopped keeper: as if the
    /// keeper had written all of it.
    ///
    /// # Panics
    /// Where the log does not end with a whole bundle: the host keeps the rest in another form.
    pub fn put(&self, world: &World) {
        let size = self.tree.len();
        assert_eq!(size % 256, 0, "a whole number of bundles");
        let log = world.path("host").join("log");
        let put = |tile: Tile, bytes: &[u8]| {
            let path = log.join(tile.to_string());
            fs::create_dir_all(path.parent().expect("it has one")).expect("the directory is ours");
            fs::write(path, bytes).expect("the directory is ours");
        };
        for (n, entries) in self.entries.chunks(256).enumerate() {
            let first = n as u64 * 256;
            let tile = changed_tiles(first, first + 256).next().expect("bundles come first");
            put(tile, &encode_bundle(entries).expect("256 entries"));
        }
        for tile in changed_tiles(0, size) {
            if let Some(hashes) = tile.hashes(&self.tree) {
                put(tile, &hashes);
            }
        }
        fs::write(log.join("checkpoint"), self.commit(world)).expect("the directory is ours");
    }

    /// The keeper's own last step; gives the checkpoint.
    fn commit(&self, world: &World) -> String {
        let tcti = &world.keeper_tpm.as_ref().expect("it is on").tcti;
        let tpm = Tpm::open(tcti.parse().expect("an address")).expect("swtpm answers");
        let dir = std::sync::Arc::new(KeeperDir::open(&world.path("keeper")).expect("the keeper is stopped"));
        let root = root::open(&dir, &tpm, None).expect("the boot state of the keeper");
        let mut anchor = Anchor::open(dir, tpm, &root.root).expect("its head");
        let keys = VaultKeys::derive(&root.root, &anchor.context().expect("a core")).expect("its keys");
        let head = Checkpoint { size: self.tree.len(), root: self.tree.root(self.tree.len()).expect("its own size") };
        anchor.commit(head.size, head.root).expect("the log goes on");
        let verifier = LogVerifier::new(self.vault, keys.log_key().clone());
        let text = verifier.checkpoint_text(&head);
        let signature = keys.sign_log(text.as_bytes()).expect("a signature");
        verifier.key().assemble(&text, &signature).expect("the log key signed")
    }
}
