//! The hands of a commit: the real `Log::commit` says what is done in which order, these do it on devices that fail, and
//! between any two steps the host has its way (`vault-enclave/src/keeper/commit.rs`).

use ledger::cosignature::Gathering;
use ledger::merkle::{BUNDLE_LEAVES, Hash};
use ledger::release_log::Writer;

use crate::bug::Bug;
use crate::devices::{Anchor, Bytes, Cut};
use crate::run::leaf;
use crate::sim::Sim;

pub struct Hands<'a> {
    pub run: u32,
    pub store: usize,
    pub anchor: &'a mut Anchor,
    pub entries: &'a mut Vec<Bytes>,
    pub unwritten: &'a mut Vec<Bytes>,
    pub sim: &'a mut Sim,
}

impl Writer for Hands<'_> {
    type Error = Cut;

    fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<(), Cut> {
        if !self.unwritten.is_empty() && !self.flush() {
            return Err(Cut::Io);
        }
        let entries: Vec<Bytes> = entries.iter().map(|entry| entry.as_slice().into()).collect();
        self.entries.truncate(usize::try_from(first).unwrap());
        self.entries.extend(entries.iter().cloned());
        self.unwritten.extend(entries);
        match self.sim.bug {
            Some(Bug::ReleaseBeforeAppend | Bug::CounterBeforeEntries) => Ok(()),
            _ => self.write(),
        }
    }

    fn commit(&mut self, size: u64, root: Hash) -> Result<(), Cut> {
        self.sim.known.insert((size, root), self.entries.clone().into());
        let head = self.anchor.head;
        let again = (head.size, head.root) == (size, root);
        if !(again && self.sim.bug == Some(Bug::OneCommitBeforeServing)) {
            self.anchor.commit(self.sim, size, root)?;
        }
        if self.sim.bug == Some(Bug::CounterBeforeEntries) { self.write() } else { Ok(()) }
    }

    fn sign(&mut self, note_body: &str) -> Result<[u8; 64], Cut> {
        self.sim.step(self.run, "before it signs")?;
        self.sim.truth.signs(self.entries);
        Ok(self.sim.scene.sign_log(note_body))
    }

    fn cosign(&mut self, gathering: &mut Gathering<'_>) -> Result<(), Cut> {
        let mut asks = Vec::new();
        while !gathering.is_over() {
            asks.extend(gathering.asks());
            if let Some(bundle) = gathering.wants() {
                let first = usize::try_from(bundle * BUNDLE_LEAVES).unwrap();
                let entries: Vec<&[u8]> = self.entries[first..].iter().take(256).map(|entry| &**entry).collect();
                gathering.recall(bundle, &entries);
                continue;
            }
            let Some(ask) = asks.pop() else { break };
            self.sim.step(self.run, "while it asks witnesses")?;
            gathering.answer(ask.witness, self.sim.ask_witness(&ask.name, &ask.body));
        }
        Ok(())
    }

    fn publish(&mut self, checkpoint: &str, _: u64) -> Result<(), Cut> {
        self.sim.step(self.run, "before it publishes the checkpoint")?;
        self.sim.stores[self.store].checkpoint = Some(checkpoint.to_owned());
        self.sim.step(self.run, "after it published the checkpoint")
    }
}

impl Hands<'_> {
    /// What stood behind the committed entries is overwritten, as the host does it.
    fn write(&mut self) -> Result<(), Cut> {
        self.sim.step(self.run, "before its entries are written")?;
        if !self.flush() {
            return Err(Cut::Io);
        }
        self.sim.step(self.run, "after its entries were written")
    }

    fn flush(&mut self) -> bool {
        let first = self.entries.len().saturating_sub(self.unwritten.len());
        let written = &mut self.sim.stores[self.store].entries;
        if written.len() < first {
            return false;
        }
        written.truncate(first);
        for (index, entry) in (first..).zip(self.unwritten.drain(..)) {
            self.sim.truth.durable(self.run, index, leaf(&entry));
            written.push(entry);
        }
        true
    }
}
