//! Randomness drawn beforehand, where drawing can fail: the traits that some crates take have no error.

use std::convert::Infallible;

use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use crate::secret::SecretError;

/// Random bytes to be used up.
pub(crate) struct Drawn {
    bytes: Zeroizing<Vec<u8>>,
    used: usize,
}

impl Drawn {
    /// As many as the caller knows to be enough.
    pub(crate) fn new(rng: &dyn SecureRandom, length: usize) -> Result<Self, SecretError> {
        let mut bytes = Zeroizing::new(vec![0; length]);
        rng.fill(&mut bytes).map_err(|_| SecretError::Random)?;
        Ok(Self { bytes, used: 0 })
    }

    /// Bytes that a test knows.
    #[cfg(test)]
    pub(crate) fn known(bytes: Vec<u8>) -> Self {
        Self { bytes: Zeroizing::new(bytes), used: 0 }
    }
}

impl rand_core::TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Infallible> {
        let rest = self.bytes.get(self.used..).and_then(|rest| rest.get(..dest.len()));
        dest.copy_from_slice(rest.expect("the caller draws as many as are used"));
        self.used += dest.len();
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Drawn {}
