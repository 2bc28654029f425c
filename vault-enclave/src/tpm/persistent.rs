//! What others left in this TPM: NV indices and persistent keys, by their number.

use attestation::PcrSelection;
use tss_esapi::Context;
use tss_esapi::handles::{KeyHandle, NvIndexHandle, NvIndexTpmHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::NvAuth;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::traits::Marshall;

use super::TpmError;
use super::device::Device;
use super::error::HANDLE;
use super::identity::Quote;

/// All TPMs read at least this much at once.
const NV_READ_BYTES: u16 = 512;

impl Device {
    /// Everything in an NV index, with the authorisation that `auth` makes of its handle.
    pub(super) fn nv_read(
        &mut self,
        index: u32,
        max: usize,
        auth: fn(NvIndexHandle) -> NvAuth,
    ) -> Result<Vec<u8>, TpmError> {
        const READ: &str = "TPM2_NV_Read";
        let handle = TpmHandle::NvIndex(self.command(READ, |_| NvIndexTpmHandle::new(index))?);
        let object = self
            .command(READ, |tpm| tpm.tr_from_tpm_public(handle))
            .map_err(|error| error.meaning(HANDLE, TpmError::NvMissing(index)))?;
        let handle = NvIndexHandle::from(object);
        self.closing(object, |device| {
            let (public, _) = device.command("TPM2_NV_ReadPublic", |tpm| tpm.nv_read_public(handle))?;
            let size = u16::try_from(public.data_size()).ok().filter(|size| usize::from(*size) <= max);
            let size = size.ok_or(TpmError::NvTooLong(index))?;
            let mut bytes = Vec::new();
            for offset in (0..size).step_by(usize::from(NV_READ_BYTES)) {
                let length = NV_READ_BYTES.min(size - offset);
                let password = [Some(AuthSession::Password), None];
                let read = |tpm: &mut Context| tpm.nv_read(auth(handle), handle, length, offset);
                bytes.extend_from_slice(device.authorised(password, READ, read)?.value());
            }
            Ok(bytes)
        })
    }

    /// TPMT_PUBLIC of a persistent key.
    pub(super) fn persistent_public(&mut self, handle: u32) -> Result<Vec<u8>, TpmError> {
        const READ: &str = "TPM2_ReadPublic";
        self.with_persistent(handle, |device, key| {
            let (public, _, _) = device.command(READ, |tpm| tpm.read_public(key))?;
            device.command(READ, |_| public.marshall())
        })
    }

    /// A quote by a persistent key, in the scheme that the key has.
    pub(super) fn quote_persistent(
        &mut self,
        handle: u32,
        extra_data: [u8; 32],
        pcrs: PcrSelection,
    ) -> Result<Quote, TpmError> {
        self.with_persistent(handle, |device, key| device.quote_by(key, extra_data, pcrs))
    }

    fn with_persistent<T>(
        &mut self,
        handle: u32,
        then: impl FnOnce(&mut Self, KeyHandle) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        const READ: &str = "TPM2_ReadPublic";
        let missing = TpmError::KeyMissing(handle);
        let tpm_handle = TpmHandle::Persistent(self.command(READ, |_| PersistentTpmHandle::new(handle))?);
        // Asked for first: libtss2 has no stable answer for a handle that does not exist.
        if self.handles(handle)?.first() != Some(&tpm_handle) {
            return Err(missing);
        }
        let object = self
            .command(READ, |tpm| tpm.tr_from_tpm_public(tpm_handle))
            .map_err(|error| error.meaning(HANDLE, missing))?;
        self.closing(object, |device| then(device, KeyHandle::from(object)))
    }
}
