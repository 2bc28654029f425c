//! A secret that only this TPM gives back, and only while PCRs stand where they stood.

use std::hint::black_box;
use std::ops::RangeInclusive;

use attestation::PcrSelection;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::ObjectHandle;
use tss_esapi::interface_types::session_handles::PolicySession;
use tss_esapi::structures::{CreateKeyResult, Digest, Public, SensitiveData};
use tss_esapi::traits::Marshall;
use zeroize::Zeroizing;

use super::device::Device;
use super::error::{PCR_CHANGED, POLICY_FAIL};
use super::identity::{parse, refused_object};
use super::pcrs::{PcrValues, selection_list};
use super::{TpmError, TpmObject, template};
use crate::secret::TpmSecret;
use crate::stack::wiped_deep;

/// A sealed secret as it is stored. Not secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecret {
    /// The object, under the storage root key.
    pub object: TpmObject,
    /// The PCR values that open it.
    pub pcrs: PcrValues,
}

impl Device {
    pub(super) fn seal(&mut self, secret: &TpmSecret, pcrs: PcrSelection) -> Result<SealedSecret, TpmError> {
        let pcrs = self.read_pcrs(pcrs)?;
        self.seal_for(secret, pcrs)
    }

    pub(super) fn seal_for(&mut self, secret: &TpmSecret, pcrs: PcrValues) -> Result<SealedSecret, TpmError> {
        let template = template::sealed(&pcrs.policy()?)?;
        let created = wiped_deep(|| self.create_sealed(&template, |zeros| secret.with_bytes(|bytes| *zeros = *bytes)))?;
        // libtss2 keeps what it was given until it is given the next: zeros.
        self.create_sealed(&template, |_| {})?;
        self.overwrite_transfer_buffer()?;
        let public = self.command(CREATE, |_| created.out_public.marshall())?;
        Ok(SealedSecret { object: TpmObject { public, private: created.out_private.value().to_vec() }, pcrs })
    }

    fn create_sealed(
        &mut self,
        template: &Public,
        fill: impl FnOnce(&mut [u8; TpmSecret::BYTES]),
    ) -> Result<CreateKeyResult, TpmError> {
        let (srk, _) = self.srk()?;
        self.with_session(SessionType::Hmac, |device, session| {
            let mut bytes = Zeroizing::new([0; TpmSecret::BYTES]);
            fill(&mut bytes);
            let data = device.command(CREATE, |_| SensitiveData::try_from(&bytes[..]))?;
            let template = template.clone();
            device.authorised([Some(session), None], CREATE, |tpm| {
                tpm.create(srk, template, None, Some(data), None, None)
            })
        })
    }

    pub(super) fn unseal(&mut self, sealed: &SealedSecret) -> Result<TpmSecret, TpmError> {
        let (public, private) = parse(&sealed.object)?;
        let policy = sealed.pcrs.policy()?;
        let attributes = template::sealed(&policy)?.object_attributes();
        if public.auth_policy().value() != policy || public.object_attributes() != attributes {
            return Err(TpmError::ObjectMalformed);
        }
        let (srk, _) = self.srk()?;
        let object = self.with_session(SessionType::Hmac, |device, session| {
            device.authorised([Some(session), None], "TPM2_Load", |tpm| tpm.load(srk, private, public))
        });
        let object = object.map_err(refused_object)?;
        let unsealed = self.flushing(object, |device| wiped_deep(|| device.unseal_loaded(object.into(), sealed)));
        let changed = TpmError::PcrsChanged(Vec::new());
        match unsealed.map_err(|error| error.meaning(POLICY_FAIL, changed.clone()).meaning(PCR_CHANGED, changed)) {
            Ok(secret) => self.overwrite_transfer_buffer().map(|()| secret),
            Err(TpmError::PcrsChanged(_)) => {
                let selection = sealed.pcrs.selection().map_err(|_| TpmError::ObjectMalformed)?;
                Err(TpmError::PcrsChanged(sealed.pcrs.changed(&self.read_pcrs(selection)?)))
            }
            Err(other) => Err(other),
        }
    }

    fn unseal_loaded(&mut self, object: ObjectHandle, sealed: &SealedSecret) -> Result<TpmSecret, TpmError> {
        const POLICY: &str = "TPM2_PolicyPCR";
        let data = self.with_session(SessionType::Policy, |device, session| {
            let policy = device.command(POLICY, |_| PolicySession::try_from(session))?;
            let list = selection_list(sealed.pcrs.iter().map(|(index, _)| index))?;
            device.command(POLICY, |tpm| tpm.policy_pcr(policy, Digest::default(), list))?;
            // libtss2 hands the secret out in memory that is freed unwiped. With no other free memory of its size at hand,
            // that is what the next taker gets: at once, before anybody else writes over half of it.
            let others = take_free_memory();
            let data = device.authorised([Some(session), None], "TPM2_Unseal", |tpm| tpm.unseal(object));
            drop((take_free_memory(), others));
            data
        })?;
        let bytes: &[u8; TpmSecret::BYTES] = data.value().try_into().map_err(|_| TpmError::ObjectMalformed)?;
        TpmSecret::init_with(|secret| {
            secret.copy_from_slice(bytes);
            Ok(())
        })
    }

    /// libtss2 decrypts a parameter in the buffer that commands and answers pass through: a long answer takes its place.
    fn overwrite_transfer_buffer(&mut self) -> Result<(), TpmError> {
        let all: Vec<u32> = (0..24).collect();
        let all = PcrSelection::try_from(&all[..]).map_err(|_| TpmError::ObjectMalformed)?;
        self.read_pcrs(all).map(drop)
    }
}

const CREATE: &str = "TPM2_Create";

/// Takes what this thread freed last, of every size up to a kilobyte, and writes over it. An allocator gives out first
/// what it got back last; a test looks whether it worked.
fn take_free_memory() -> Vec<Vec<u8>> {
    const SIZES: RangeInclusive<usize> = 1..=64;
    const OF_EACH_SIZE: usize = 32;
    let sizes = SIZES.flat_map(|units| [units * 16; OF_EACH_SIZE]);
    let fill = |size| {
        // Not `vec![0; size]`, which asks the allocator for memory that is zero already.
        let mut memory = Vec::with_capacity(size);
        memory.resize(size, 0xff);
        memory
    };
    black_box(sizes.map(fill).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring::rand::SystemRandom;

    use super::*;
    use crate::memory_scan::Halves;
    use crate::tpm_support::{SoftTpm, pcrs};

    #[test]
    fn neither_sealing_nor_unsealing_leaves_the_secret_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let soft = SoftTpm::start(dir.path());
        let tpm = soft.connect();
        let mut halves = Halves::default();
        let secret = Arc::new(TpmSecret::generate(&SystemRandom::new()).unwrap());
        secret.with_bytes(|bytes| halves.note("secret", bytes));
        assert_eq!(halves.found().len(), 4, "in locked memory");

        let sealed = tpm.seal(secret, pcrs()).wait().unwrap();
        // The thread lets go of its share of the secret once it takes the next request.
        tpm.properties().wait().unwrap();
        assert!(halves.found().is_empty(), "after sealing");
        let unsealed = tpm.unseal(&sealed).wait().unwrap();
        assert_eq!(halves.found().len(), 4, "the very secret, and only in locked memory");
        drop(unsealed);
        assert!(halves.found().is_empty());
    }
}
