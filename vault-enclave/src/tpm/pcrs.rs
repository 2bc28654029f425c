//! PCRs of the SHA-256 bank.

use std::collections::BTreeMap;

use attestation::{PcrSelection, Sha256Digest};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{PcrSelectSize, PcrSelectionList, PcrSlot};

use super::TpmError;
use super::device::Device;

/// Values of a non-empty set of PCRs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrValues(BTreeMap<u32, [u8; 32]>);

impl PcrValues {
    /// Index and value, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8; 32])> {
        self.0.iter().map(|(index, value)| (*index, value))
    }

    /// Which PCRs these are.
    ///
    /// # Errors
    /// None where the values came from a TPM; otherwise an index above 23, or none at all.
    pub fn selection(&self) -> Result<PcrSelection, attestation::DecodeError> {
        let indices: Vec<u32> = self.0.keys().copied().collect();
        PcrSelection::try_from(&indices[..])
    }

    /// The PCRs whose values differ.
    #[must_use]
    pub fn changed(&self, now: &Self) -> Vec<u32> {
        self.0.iter().filter(|(index, value)| now.0.get(index) != Some(value)).map(|(index, _)| *index).collect()
    }

    /// What a quote has as pcrDigest: SHA-256 of the values, ascending.
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        let values: Vec<u8> = self.0.values().flatten().copied().collect();
        Sha256Digest::of(&values)
    }

    /// The authPolicy of an object that opens while the PCRs have these values (TPM 2.0 Part 3, TPM2_PolicyPCR).
    pub(super) fn policy(&self) -> Result<[u8; 32], TpmError> {
        const CC_POLICY_PCR: [u8; 4] = [0, 0, 0x01, 0x7f];
        let selection = self.selection().map_err(|_| TpmError::ObjectMalformed)?.tpml();
        let policy = [&[0; 32][..], &CC_POLICY_PCR, &selection, self.digest().as_bytes()].concat();
        Ok(*Sha256Digest::of(&policy).as_bytes())
    }
}

impl FromIterator<(u32, [u8; 32])> for PcrValues {
    fn from_iter<I: IntoIterator<Item = (u32, [u8; 32])>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// The selection as tss-esapi takes it: one bank, three octets.
pub(super) fn selection_list(pcrs: impl Iterator<Item = u32>) -> Result<PcrSelectionList, TpmError> {
    let slots: Result<Vec<PcrSlot>, _> = pcrs.map(|index| PcrSlot::try_from(1 << index)).collect();
    let slots = slots.map_err(|error| TpmError::of("TPML_PCR_SELECTION", error))?;
    PcrSelectionList::builder()
        .with_size_of_select(PcrSelectSize::ThreeOctets)
        .with_selection(HashingAlgorithm::Sha256, &slots)
        .build()
        .map_err(|error| TpmError::of("TPML_PCR_SELECTION", error))
}

/// TPM2_PCR_Read answers with at most this many values.
const PCRS_A_READ: usize = 8;

impl Device {
    /// Whether the TPM does what it does not do in failure mode.
    pub(super) fn answers(&mut self) -> bool {
        let list = selection_list([0].into_iter());
        list.is_ok_and(|list| self.command("TPM2_PCR_Read", |tpm| tpm.pcr_read(list)).is_ok())
    }

    pub(super) fn read_pcrs(&mut self, pcrs: PcrSelection) -> Result<PcrValues, TpmError> {
        let indices: Vec<u32> = pcrs.iter().collect();
        let mut values = BTreeMap::new();
        for some in indices.chunks(PCRS_A_READ) {
            let list = selection_list(some.iter().copied())?;
            let (_, read, digests) = self.command("TPM2_PCR_Read", |tpm| tpm.pcr_read(list.clone()))?;
            // A TPM without a SHA-256 bank answers with an empty selection.
            if read != list || digests.len() != some.len() {
                return Err(TpmError::Unavailable("the TPM has no SHA-256 PCR bank".into()));
            }
            for (index, digest) in some.iter().zip(digests.value()) {
                let value = digest.value().try_into().map_err(|_| TpmError::ObjectMalformed)?;
                values.insert(*index, value);
            }
        }
        Ok(PcrValues(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_names_the_pcrs_that_differ_or_are_absent() {
        let sealed: PcrValues = [(0, [0; 32]), (7, [7; 32]), (11, [11; 32])].into_iter().collect();
        let now: PcrValues = [(0, [0; 32]), (7, [8; 32])].into_iter().collect();
        assert_eq!(sealed.changed(&now), [7, 11]);
        assert!(sealed.changed(&sealed).is_empty());
    }
}
