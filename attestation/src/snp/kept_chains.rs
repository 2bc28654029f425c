//! Chains that were verified before: a guest's is the same at every load and every renewal.

use std::collections::{HashMap, VecDeque};

use super::chain::VerifiedChain;
use super::crl::CrlRule;
use super::evidence::{EndorsedReport, SnpEvidence};
use crate::anchors::TrustAnchors;
use crate::encoding::{Sha256Digest, UnixTime};
use crate::error::SnpError;

/// The most chains that one [`KeptChains`] holds, each of about a kilobyte.
pub const KEPT_CHAINS_MAX: usize = 4096;

/// Verified chains by [`VerifiedChain::key`]: by every byte of the certificates and revocation lists that were sent.
///
/// It saves work and decides nothing. What time or a policy can change (dates, the anchor in force, the revocation lists
/// that are demanded) is checked at every use, and so is the report. A chain is kept once a report under it was endorsed:
/// certificates are public, reports are not. When it is full the one that came first goes, and is verified anew.
#[derive(Debug, Default)]
pub struct KeptChains(Newest<VerifiedChain>);

impl KeptChains {
    /// As [`EndorsedReport::verify`], with the same answer to every input; the signatures of a chain that is kept are not
    /// checked again.
    ///
    /// # Errors
    /// [`SnpError`].
    pub fn endorse(
        &mut self,
        evidence: &SnpEvidence,
        anchors: &TrustAnchors,
        rule: CrlRule,
        now: UnixTime,
    ) -> Result<EndorsedReport, SnpError> {
        let key = VerifiedChain::key(evidence);
        if let Some(chain) = self.0.values.get(&key) {
            match EndorsedReport::verify_with_chain(evidence, chain, anchors, rule, now) {
                // Another policy has its root under another name, or not at all.
                Err(SnpError::ChainChanged) => {}
                verified => return verified,
            }
        }
        let (endorsed, chain) = EndorsedReport::verify_anew(evidence, anchors, rule, now)?;
        self.0.keep(key, chain);
        Ok(endorsed)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// At most [`KEPT_CHAINS_MAX`] values: of more, the newest.
#[derive(Debug)]
struct Newest<V> {
    values: HashMap<Sha256Digest, V>,
    /// In the order in which they came; each key once.
    order: VecDeque<Sha256Digest>,
}

impl<V> Default for Newest<V> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new() }
    }
}

impl<V> Newest<V> {
    fn keep(&mut self, key: Sha256Digest, value: V) {
        if self.values.insert(key, value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > KEPT_CHAINS_MAX
            && let Some(first) = self.order.pop_front()
        {
            self.values.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Sha256Digest {
        Sha256Digest::of(&number.to_be_bytes())
    }

    #[test]
    fn of_more_than_there_is_room_for_the_newest_stay() {
        let mut newest = Newest::default();
        for number in 0..KEPT_CHAINS_MAX + 2 {
            newest.keep(key(number), number);
        }
        assert_eq!((newest.values.len(), newest.order.len()), (KEPT_CHAINS_MAX, KEPT_CHAINS_MAX));
        assert_eq!(
            [0, 1, 2, KEPT_CHAINS_MAX + 1].map(|number| newest.values.contains_key(&key(number))),
            [false, false, true, true]
        );
    }

    #[test]
    fn what_is_kept_again_takes_no_second_place() {
        let mut newest = Newest::default();
        newest.keep(key(0), 1);
        newest.keep(key(0), 2);
        assert_eq!((newest.values.get(&key(0)), newest.order.len()), (Some(&2), 1));
    }
}
