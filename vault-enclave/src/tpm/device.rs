//! One connection to the TPM, and the discipline of what is open in it.
//!
//! A TPM has room for three loaded objects and three sessions. At most the SRK and the AK stay loaded between requests,
//! so one more fits; every other object and every session is flushed by the function that opened it, on errors too.

use std::fs::File;

use attestation::EkKind;
use tss_esapi::Context;
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::{CapabilityType, PropertyTag, SessionType};
use tss_esapi::handles::{KeyHandle, ObjectHandle, SessionHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{CapabilityData, Public, SymmetricDefinition};
use tss_esapi::traits::Marshall;

use super::descriptors::kept_from_children;
use super::ek::EkChoice;
use super::error::{AUTH_FAIL, BAD_AUTH};
use super::{TctiConfig, TpmError, TpmName, template};

/// Who made the TPM, and how its dictionary-attack protection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmProperties {
    /// Four letters, as registered with the TCG.
    pub manufacturer: String,
    /// The vendor's own words.
    pub vendor: String,
    /// Vendor-defined.
    pub firmware_version: u64,
    /// Failed tries that count at present.
    pub lockout_counter: u32,
    /// Failed tries that lead to lockout.
    pub lockout_max: u32,
}

pub(super) struct Device {
    context: Context,
    srk: Option<(KeyHandle, TpmName)>,
    pub(super) ak: Option<(KeyHandle, TpmName)>,
    pub(super) ek_choice: EkChoice,
    pub(super) ek_issuers: Vec<Vec<u8>>,
    /// As [`Self::ek_choice`] turned out.
    pub(super) ek_kind: Option<EkKind>,
    leaked: bool,
}

impl Device {
    /// Connects and flushes what others left.
    pub(super) fn connect(config: &TctiConfig) -> Result<Self, TpmError> {
        if let Some(path) = config.device() {
            // libtss2 tells only that it failed; the operating system tells why.
            let opened = File::options().read(true).write(true).open(path);
            opened.map_err(|error| {
                let hint = "may this user open it (group tss)? does the machine have a TPM, and is it turned on?";
                TpmError::Unavailable(format!("{}: {error}; {hint}", path.display()))
            })?;
        }
        let connected = kept_from_children(|| config.name_conf().and_then(Context::new))
            .map_err(|error| TpmError::Inherited(format!("{config}: {error}")))?;
        let context = connected.map_err(|_| {
            TpmError::Unavailable(format!(
                "{config}: no answer; is it running, and is its libtss2-tcti library installed?"
            ))
        })?;
        let mut device = Self {
            context,
            srk: None,
            ak: None,
            ek_choice: config.ek(),
            ek_issuers: config.ek_issuers().to_vec(),
            ek_kind: None,
            leaked: false,
        };
        if !config.has_resource_manager() {
            device.flush_what_others_left()?;
        }
        Ok(device)
    }

    /// Runs one command without sessions, its error named.
    pub(super) fn command<T>(
        &mut self,
        name: &'static str,
        command: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, TpmError> {
        command(&mut self.context).map_err(|error| TpmError::of(name, error))
    }

    /// Runs one command with these sessions.
    pub(super) fn authorised<T>(
        &mut self,
        sessions: [Option<AuthSession>; 2],
        name: &'static str,
        command: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, TpmError> {
        let [first, second] = sessions;
        self.command(name, |tpm| tpm.execute_with_sessions((first, second, None), command))
    }

    /// Runs `then`, and flushes `handle` whatever came of it.
    pub(super) fn flushing<T>(
        &mut self,
        handle: impl Into<ObjectHandle>,
        then: impl FnOnce(&mut Self) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let result = then(self);
        self.flush(handle.into());
        result
    }

    fn flush(&mut self, handle: ObjectHandle) {
        self.leaked |= self.context.flush_context(handle).is_err();
    }

    /// Runs `then`, and forgets `handle`, of something that stays in the TPM.
    pub(super) fn closing<T>(
        &mut self,
        handle: impl Into<ObjectHandle>,
        then: impl FnOnce(&mut Self) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let result = then(self);
        self.leaked |= self.context.tr_close(&mut handle.into()).is_err();
        result
    }

    /// Runs `then` with a session that is salted to the SRK and encrypts the first parameter both ways.
    pub(super) fn with_session<T>(
        &mut self,
        kind: SessionType,
        then: impl FnOnce(&mut Self, AuthSession) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        self.with_session_of(kind, HashingAlgorithm::Sha256, then)
    }

    /// As [`Self::with_session`], with the hash that a policy of the object asks for.
    pub(super) fn with_session_of<T>(
        &mut self,
        kind: SessionType,
        hash: HashingAlgorithm,
        then: impl FnOnce(&mut Self, AuthSession) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        const START: &str = "TPM2_StartAuthSession";
        let (srk, _) = self.srk()?;
        let cipher = SymmetricDefinition::AES_128_CFB;
        let session = self.command(START, |tpm| tpm.start_auth_session(Some(srk), None, None, kind, cipher, hash))?;
        let session = session.ok_or_else(|| TpmError::Unavailable("no session".into()))?;
        self.flushing(SessionHandle::from(session), |device| {
            let (attributes, mask) = SessionAttributesBuilder::new().with_decrypt(true).with_encrypt(true).build();
            device.command(START, |tpm| tpm.tr_sess_set_attributes(session, attributes, mask))?;
            then(device, session)
        })
    }

    /// The storage root key, loaded.
    pub(super) fn srk(&mut self) -> Result<(KeyHandle, TpmName), TpmError> {
        if let Some(srk) = self.srk {
            return Ok(srk);
        }
        let srk = self.create_primary(Hierarchy::Owner, template::storage_root_key()?)?;
        self.srk = Some(srk);
        Ok(srk)
    }

    pub(super) fn srk_name(&mut self) -> Result<TpmName, TpmError> {
        Ok(self.srk()?.1)
    }

    /// TPM2_CreatePrimary: the same template gives the same key until the hierarchy's seed changes.
    pub(super) fn create_primary(
        &mut self,
        hierarchy: Hierarchy,
        template: Public,
    ) -> Result<(KeyHandle, TpmName), TpmError> {
        const CREATE: &str = "TPM2_CreatePrimary";
        let password = [Some(AuthSession::Password), None];
        let key = self
            .authorised(password, CREATE, |tpm| tpm.create_primary(hierarchy, template, None, None, None, None))
            .map_err(|error| error.meaning(AUTH_FAIL, TpmError::HierarchyAuth))
            .map_err(|error| error.meaning(BAD_AUTH, TpmError::HierarchyAuth))?;
        let public = self.command(CREATE, |_| key.out_public.marshall())?;
        Ok((key.key_handle, TpmName::of(&public)))
    }

    /// Whether something may still be open in the TPM that this connection lost track of.
    pub(super) fn has_leaked(&self) -> bool {
        self.leaked
    }

    /// Flushes the keys that stay loaded between requests.
    pub(super) fn unload(&mut self) {
        for (handle, _) in [self.srk.take(), self.ak.take()].into_iter().flatten() {
            self.flush(handle.into());
        }
    }

    pub(super) fn properties(&mut self) -> Result<TpmProperties, TpmError> {
        let mut read = |tag: PropertyTag| self.property(tag);
        let text = |words: &[u32]| {
            let bytes = words.iter().flat_map(|word| word.to_be_bytes()).filter(|byte| *byte != 0);
            bytes.map(char::from).filter(|letter| letter.is_ascii_graphic() || *letter == ' ').collect::<String>()
        };
        Ok(TpmProperties {
            manufacturer: text(&[read(PropertyTag::Manufacturer)?]).trim().to_owned(),
            vendor: text(&[
                read(PropertyTag::VendorString1)?,
                read(PropertyTag::VendorString2)?,
                read(PropertyTag::VendorString3)?,
                read(PropertyTag::VendorString4)?,
            ]),
            firmware_version: u64::from(read(PropertyTag::FirmwareVersion1)?) << 32
                | u64::from(read(PropertyTag::FirmwareVersion2)?),
            lockout_counter: read(PropertyTag::LockoutCounter)?,
            lockout_max: read(PropertyTag::MaxAuthFail)?,
        })
    }

    /// One property, read anew: tss-esapi's own function remembers what changes.
    fn property(&mut self, tag: PropertyTag) -> Result<u32, TpmError> {
        match self.capability(CapabilityType::TpmProperties, tag.into(), 1)? {
            CapabilityData::TpmProperties(list) => Ok(list.find(tag).map_or(0, |found| found.value())),
            _ => Ok(0),
        }
    }

    /// Handles of one kind, from `first` on.
    pub(super) fn handles(&mut self, first: u32) -> Result<Vec<TpmHandle>, TpmError> {
        match self.capability(CapabilityType::Handles, first, HANDLES_MAX)? {
            CapabilityData::Handles(handles) => Ok(handles.into_inner()),
            _ => Ok(Vec::new()),
        }
    }

    fn capability(&mut self, kind: CapabilityType, first: u32, count: u32) -> Result<CapabilityData, TpmError> {
        self.command("TPM2_GetCapability", |tpm| tpm.get_capability(kind, first, count)).map(|(data, _)| data)
    }

    /// A process that was killed leaves objects and sessions in a TPM that no resource manager minds, and three of
    /// either block everything.
    fn flush_what_others_left(&mut self) -> Result<(), TpmError> {
        const FLUSH: &str = "TPM2_FlushContext";
        for kind in [TRANSIENT_FIRST, LOADED_SESSION_FIRST, SAVED_SESSION_FIRST] {
            for handle in self.handles(kind)? {
                let object = self.command(FLUSH, |tpm| tpm.tr_from_tpm_public(handle))?;
                match self.context.flush_context(object) {
                    // The library's own books have no entry for a policy session of somebody else: it is flushed.
                    Ok(()) | Err(tss_esapi::Error::WrapperError(_)) => {}
                    Err(error) => return Err(TpmError::of(FLUSH, error)),
                }
            }
        }
        Ok(())
    }
}

const HANDLES_MAX: u32 = 64;
const TRANSIENT_FIRST: u32 = 0x8000_0000;
const LOADED_SESSION_FIRST: u32 = 0x0200_0000;
const SAVED_SESSION_FIRST: u32 = 0x0300_0000;
