//! Which PCRs of the SHA-256 bank.

use super::alg;
use crate::error::DecodeError;

/// PCRs that a PC Client TPM has.
pub(crate) const PCRS: u32 = 24;

/// A non-empty set of PCRs of the SHA-256 bank, 0 to 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PcrSelection(u32);

impl PcrSelection {
    /// The indices, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<> {
        let bits = self.0;
        (0..PCRS).filter(move |index| bits & (1 << index) != 0)
    }

    /// Whether the PCR is selected.
    #[must_use]
    pub const fn contains(&self, index: u32) -> bool {
        index < PCRS && self.0 & (1 << index) != 0
    }

    /// TPML_PCR_SELECTION (TPM 2.0 Part 2): one bank, SHA-256, three octets, PCR 0 the lowest bit of the first.
    #[must_use]
    pub const fn tpml(&self) -> [u8; 10] {
        let [high, low] = alg::SHA256.to_be_bytes();
        let [first, second, third, _] = self.0.to_le_bytes();
        [0, 0, 0, 1, high, low, 3, first, second, third]
    }
}

impl TryFrom<&[u32]> for PcrSelection {
    type Error = DecodeError;

    /// Takes indices in any order; none, one twice, or one above 23 is refused.
    fn try_from(indices: &[u32]) -> Result<Self, DecodeError> {
        let mut bits = 0;
        for &index in indices {
            if index >= PCRS {
                return Err(DecodeError::PcrIndex { index });
            }
            if bits & (1 << index) != 0 {
                return Err(DecodeError::PcrRepeated { index });
            }
            bits |= 1 << index;
        }
        if bits == 0 {
            return Err(DecodeError::PcrSelectionEmpty);
        }
        Ok(Self(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_is_one_sha256_bank_of_three_octets() {
        let selection = PcrSelection::try_from([23, 0, 11, 1].as_slice()).unwrap();
        assert_eq!(selection.tpml(), [0, 0, 0, 1, 0, 0x0b, 3, 0b11, 0b1000, 0x80]);
        assert_eq!(selection.iter().collect::<Vec<_>>(), [0, 1, 11, 23]);
        assert!(selection.contains(11) && !selection.contains(12) && !selection.contains(99));
    }

    #[test]
    fn selection_of_nothing_of_a_pcr_twice_or_of_none_that_exists_is_refused() {
        let select = |indices: &[u32]| PcrSelection::try_from(indices);
        assert_eq!(select(&[]), Err(DecodeError::PcrSelectionEmpty));
        assert_eq!(select(&[1, 2, 1]), Err(DecodeError::PcrRepeated { index: 1 }));
        assert_eq!(select(&[24]), Err(DecodeError::PcrIndex { index: 24 }));
    }
}
