//! A counter that only goes up, in the TPM's non-volatile memory, and which run may count with it.

use subtle::ConstantTimeEq;
use tss_esapi::Context;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::{NvIndexType, SessionType};
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Auth, MaxNvBuffer, NvPublic};

use super::device::Device;
use super::error::{AUTH_FAIL, BAD_AUTH, HANDLE, NV_DEFINED, NV_SPACE};
use super::{TpmError, TpmName};
use crate::secret::CounterAuth;

/// A counter, and beside it a register that names the run which counts. What they are depends on their names, which the
/// TPM computes over index, attributes and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// NV index of the counter.
    pub index: u32,
    /// Its name once it has a value.
    pub name: TpmName,
    /// NV index of the register.
    pub run_index: u32,
    /// Its name once it was written.
    pub run_name: TpmName,
}

/// Names one run of a program: 32 random bytes.
pub type RunId = [u8; 32];

/// Where counters and registers are put: a range that the TCG leaves to the owner. The first free index is taken.
const INDEX_FIRST: u32 = 0x0180_7700;
const INDICES: u32 = 64;
const COUNTER_BYTES: u16 = 8;
const RUN_BYTES: u16 = 32;

impl Device {
    /// A counter has no value before its first increment, which starts it above every counter that was ever deleted from
    /// this TPM; its name changes then too, as a register's does when it is first written.
    pub(super) fn define_counter(&mut self, auth: &CounterAuth, run: &RunId) -> Result<(Counter, u64), TpmError> {
        let index = self.define(NvIndexType::Counter, COUNTER_BYTES, auth)?;
        let run_index = self.define(NvIndexType::Ordinary, RUN_BYTES, auth)?;
        self.with_pair([index, run_index], auth, |device, [handle, register], session| {
            device.increment(handle, session)?;
            device.write(register, session, run)?;
            let (name, run_name) = (device.nv_name(handle)?, device.nv_name(register)?);
            Ok((Counter { index, name, run_index, run_name }, device.count(handle, session)?))
        })
    }

    pub(super) fn read_counter(&mut self, counter: &Counter, auth: &CounterAuth) -> Result<u64, TpmError> {
        self.with_counter(counter, auth, |device, [handle, _], session| device.count(handle, session))
    }

    /// Makes `run` the one that may count, and returns where the counter stands then.
    pub(super) fn claim_counter(
        &mut self,
        counter: &Counter,
        auth: &CounterAuth,
        run: &RunId,
    ) -> Result<u64, TpmError> {
        self.with_counter(counter, auth, |device, [handle, register], session| {
            device.write(register, session, run)?;
            device.count(handle, session)
        })
    }

    /// Refuses where another run has the counter, or it does not stand at `at`. The register is read last: whoever takes the
    /// counter takes it after that.
    pub(super) fn check_run(
        &mut self,
        counter: &Counter,
        auth: &CounterAuth,
        (run, at): (&RunId, u64),
    ) -> Result<(), TpmError> {
        self.with_counter(counter, auth, |device, [handle, register], session| {
            let found = device.count(handle, session)?;
            match device.read(register, session, RUN_BYTES)?.ct_eq(run).into() {
                true if found == at => Ok(()),
                true => Err(TpmError::CounterMoved { expected: at, found }),
                false => Err(TpmError::CounterClaimed),
            }
        })
    }

    /// Sets `sent` as soon as the TPM may have counted.
    pub(super) fn increment_counter(
        &mut self,
        counter: &Counter,
        auth: &CounterAuth,
        (run, from): (&RunId, u64),
        sent: &mut bool,
    ) -> Result<u64, TpmError> {
        self.with_counter(counter, auth, |device, [handle, register], session| {
            let found = device.count(handle, session)?;
            if found != from {
                return Err(TpmError::CounterMoved { expected: from, found });
            }
            *sent = true;
            device.increment(handle, session)?;
            let found = device.count(handle, session)?;
            match device.read(register, session, RUN_BYTES)?.ct_eq(run).into() {
                true => Ok(found),
                false => Err(TpmError::CounterClaimed),
            }
        })
    }

    /// Gives the room of both indices back, where they are what they were. One that is gone already is no fault: an earlier
    /// try may have been cut short.
    pub(super) fn undefine_counter(&mut self, counter: &Counter, auth: &CounterAuth) -> Result<(), TpmError> {
        for (index, name) in [(counter.run_index, counter.run_name), (counter.index, counter.name)] {
            match self.undefine(index, name, auth) {
                Ok(()) | Err(TpmError::CounterMissing) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn undefine(&mut self, index: u32, name: TpmName, auth: &CounterAuth) -> Result<(), TpmError> {
        const UNDEFINE: &str = "TPM2_NV_UndefineSpace";
        self.with_index(index, auth, |device, handle| match device.nv_name(handle)? == name {
            true => Ok(()),
            false => Err(TpmError::CounterReplaced),
        })?;
        let handle = TpmHandle::NvIndex(self.command(UNDEFINE, |_| NvIndexTpmHandle::new(index))?);
        let object = self.command(UNDEFINE, |tpm| tpm.tr_from_tpm_public(handle))?;
        // The library closes the object where it is gone; elsewhere it ends with the connection.
        self.with_session(SessionType::Hmac, |device, session| {
            let undefine = |tpm: &mut Context| tpm.nv_undefine_space(Provision::Owner, NvIndexHandle::from(object));
            device.authorised([Some(session), None], UNDEFINE, undefine)
        })
        .map_err(|error| means(error, [(AUTH_FAIL, TpmError::HierarchyAuth), (BAD_AUTH, TpmError::HierarchyAuth)]))
    }

    fn define(&mut self, kind: NvIndexType, bytes: u16, auth: &CounterAuth) -> Result<u32, TpmError> {
        let taken = self.handles(INDEX_FIRST)?;
        for index in INDEX_FIRST..INDEX_FIRST + INDICES {
            let handle = self.command(DEFINE, |_| NvIndexTpmHandle::new(index))?;
            if taken.contains(&TpmHandle::NvIndex(handle)) {
                continue;
            }
            let public = self.command(DEFINE, |_| public(handle, kind, bytes))?;
            match self.define_at(public, auth) {
                Ok(()) => return Ok(index),
                Err(TpmError::Response { code: NV_DEFINED, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(TpmError::CounterSpace)
    }

    fn define_at(&mut self, public: NvPublic, auth: &CounterAuth) -> Result<(), TpmError> {
        let auth = self.command(DEFINE, |_| auth_value(auth))?;
        let defined = self.with_session(SessionType::Hmac, |device, session| {
            let define = |tpm: &mut Context| tpm.nv_define_space(Provision::Owner, Some(auth), public);
            device.authorised([Some(session), None], DEFINE, define)
        });
        let meanings = [
            (NV_SPACE, TpmError::CounterSpace),
            (AUTH_FAIL, TpmError::HierarchyAuth),
            (BAD_AUTH, TpmError::HierarchyAuth),
        ];
        let defined = defined.map_err(|error| means(error, meanings))?;
        self.closing(defined, |_| Ok(()))
    }

    /// Runs `then` with counter, register and a session, where they are what they were.
    fn with_counter<T>(
        &mut self,
        counter: &Counter,
        auth: &CounterAuth,
        then: impl FnOnce(&mut Self, [NvIndexHandle; 2], AuthSession) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let Counter { index, name, run_index, run_name } = *counter;
        self.with_pair([index, run_index], auth, |device, handles, session| {
            for (handle, name) in handles.into_iter().zip([name, run_name]) {
                if device.nv_name(handle)? != name {
                    return Err(TpmError::CounterReplaced);
                }
            }
            then(device, handles, session)
        })
    }

    /// Runs `then` with two NV indices and a session that is salted to the SRK: who sits on the bus can neither forge what
    /// the TPM answers nor answer for another index, whose name enters every command's authorisation.
    fn with_pair<T>(
        &mut self,
        [first, second]: [u32; 2],
        auth: &CounterAuth,
        then: impl FnOnce(&mut Self, [NvIndexHandle; 2], AuthSession) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let result = self.with_index(first, auth, |device, first| {
            device.with_index(second, auth, |device, second| {
                device.with_session(SessionType::Hmac, |device, session| then(device, [first, second], session))
            })
        });
        let meanings = [(AUTH_FAIL, TpmError::CounterReplaced), (BAD_AUTH, TpmError::CounterReplaced)];
        result.map_err(|error| means(error, meanings))
    }

    fn with_index<T>(
        &mut self,
        index: u32,
        auth: &CounterAuth,
        then: impl FnOnce(&mut Self, NvIndexHandle) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let index = TpmHandle::NvIndex(self.command(READ, |_| NvIndexTpmHandle::new(index))?);
        let object = self
            .command("TPM2_NV_ReadPublic", |tpm| tpm.tr_from_tpm_public(index))
            .map_err(|error| error.meaning(HANDLE, TpmError::CounterMissing))?;
        self.closing(object, |device| {
            let auth = device.command(READ, |_| auth_value(auth))?;
            device.command(READ, |tpm| tpm.tr_set_auth(object, auth))?;
            let result = then(device, NvIndexHandle::from(object));
            // Fails only for an object that is gone, and the value with it.
            let _ = device.command(READ, |tpm| tpm.tr_set_auth(object, Auth::default()));
            result
        })
    }

    fn nv_name(&mut self, handle: NvIndexHandle) -> Result<TpmName, TpmError> {
        let name = self.command("TPM2_NV_ReadPublic", |tpm| tpm.tr_get_name(handle.into()))?;
        TpmName::try_from(name.value()).map_err(|_| TpmError::CounterReplaced)
    }

    fn increment(&mut self, handle: NvIndexHandle, session: AuthSession) -> Result<(), TpmError> {
        let increment = |tpm: &mut Context| tpm.nv_increment(NvAuth::NvIndex(handle), handle);
        self.authorised([Some(session), None], "TPM2_NV_Increment", increment)
    }

    fn write(&mut self, handle: NvIndexHandle, session: AuthSession, run: &RunId) -> Result<(), TpmError> {
        const WRITE: &str = "TPM2_NV_Write";
        let data = self.command(WRITE, |_| MaxNvBuffer::try_from(&run[..]))?;
        let write = |tpm: &mut Context| tpm.nv_write(NvAuth::NvIndex(handle), handle, data, 0);
        self.authorised([Some(session), None], WRITE, write)
    }

    fn read(&mut self, handle: NvIndexHandle, session: AuthSession, bytes: u16) -> Result<MaxNvBuffer, TpmError> {
        let read = |tpm: &mut Context| tpm.nv_read(NvAuth::NvIndex(handle), handle, bytes, 0);
        self.authorised([Some(session), None], READ, read)
    }

    fn count(&mut self, handle: NvIndexHandle, session: AuthSession) -> Result<u64, TpmError> {
        let bytes = self.read(handle, session, COUNTER_BYTES)?;
        bytes.value().try_into().map(u64::from_be_bytes).map_err(|_| TpmError::CounterReplaced)
    }
}

const READ: &str = "TPM2_NV_Read";
const DEFINE: &str = "TPM2_NV_DefineSpace";

/// Readable and writable with its own authorisation alone, not the owner's, and exempt from lockout. The owner can still
/// undefine it, which denies service; a new one in its place starts higher, under another authorisation.
fn public(index: NvIndexTpmHandle, kind: NvIndexType, bytes: u16) -> tss_esapi::Result<NvPublic> {
    let attributes = NvIndexAttributesBuilder::new()
        .with_nv_index_type(kind)
        .with_auth_read(true)
        .with_auth_write(true)
        .with_no_da(true)
        .build()?;
    NvPublic::builder()
        .with_nv_index(index)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_data_area_size(bytes.into())
        .build()
}

fn auth_value(auth: &CounterAuth) -> tss_esapi::Result<Auth> {
    auth.with_bytes(|bytes| Auth::try_from(&bytes[..]))
}

fn means<const N: usize>(error: TpmError, meanings: [(u32, TpmError); N]) -> TpmError {
    meanings.into_iter().fold(error, |error, (rc, meaning)| error.meaning(rc, meaning))
}
