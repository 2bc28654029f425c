//! This machine's TPM 2.0, as one thread with a bounded queue.
//!
//! A TPM does one thing at a time and libtss2 blocks, so one thread owns the connection and everything that is open in
//! the TPM. Each call queues a request and gives a [`Reply`], to wait on or to await; a request has a deadline, and one
//! whose caller is gone is not begun. When the connection fails, or the TPM lost what was loaded, the thread connects
//! anew, flushes whatever was left (by itself or by a process that was killed) and tries once more, except for a counter
//! increment, which is never sent twice. A TPM without a resource manager is open in one process at a time, for as long as
//! that process has a handle on it.
//!
//! Secrets cross the bus encrypted: sessions are salted to the storage root key (SRK), whose name the caller can pin.
//! Only the files of this module name `tss_esapi`.

mod counter;
mod descriptors;
mod device;
mod ek;
mod error;
mod identity;
mod lock;
mod pcrs;
mod persistent;
mod queue;
mod sealing;
mod tcti;
mod template;

pub use counter::{Counter, RunId};
pub use descriptors::starting_child;
pub use device::TpmProperties;
pub use ek::{EkChoice, EkChoiceError};
pub use error::TpmError;
pub use identity::{Quote, TpmClock};
pub use lock::TpmHolder;
pub use pcrs::PcrValues;
pub use queue::Reply;
pub use sealing::SealedSecret;
pub use tcti::{TctiConfig, TctiError};

use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use attestation::{ActivationSecret, Credential, PcrSelection, Sha256Digest};
use tss_esapi::interface_types::resource_handles::NvAuth;

use crate::secret::{CounterAuth, TpmSecret};

/// A handle on the thread that owns the TPM. Clones share it; the thread ends with the last of them.
#[derive(Clone)]
pub struct Tpm(queue::Queue);

/// A key or a sealed object as it is stored outside the TPM that made it, and useless without that TPM: not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmObject {
    /// TPMT_PUBLIC.
    pub public: Vec<u8>,
    /// The buffer of TPM2B_PRIVATE, encrypted by the TPM.
    pub private: Vec<u8>,
}

/// The name of a TPM entity: `000b` ‖ SHA-256 of its public area (TPM 2.0 Part 1, "Names").
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TpmName([u8; 34]);

impl Tpm {
    /// Connects, and flushes what a killed process left behind (not under the kernel's resource manager, which did so).
    /// Without a resource manager it waits up to 30 seconds for other processes, and for other handles of this one than
    /// clones: share those.
    ///
    /// # Errors
    /// [`TpmError::Unavailable`] with what to check; [`TpmError::InUse`], [`TpmError::LockFile`].
    pub fn open(config: TctiConfig) -> Result<Self, TpmError> {
        let tpm = Self(queue::Queue::start(config)?);
        tpm.properties().wait()?;
        Ok(tpm)
    }

    /// The same thread, asked with another deadline than 30 seconds.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self(self.0.with_deadline(deadline))
    }

    /// Who made it, and how its dictionary-attack protection stands.
    pub fn properties(&self) -> Reply<TpmProperties> {
        self.0.request(device::Device::properties)
    }

    /// The certificate of the endorsement key, as DER without padding, and the issuers that the configuration has.
    pub fn ek_certificates(&self) -> Reply<Vec<Vec<u8>>> {
        self.0.request(device::Device::ek_certificates)
    }

    /// TPMT_PUBLIC of the endorsement key, which has a certificate or not.
    pub fn ek_public(&self) -> Reply<Vec<u8>> {
        self.0.request(device::Device::ek_public)
    }

    /// Makes an attestation key under the endorsement key.
    pub fn create_ak(&self) -> Reply<TpmObject> {
        self.0.request(device::Device::create_ak)
    }

    /// Quotes these PCRs, with their values as quoted. `extra_data` is what the quote is bound to.
    pub fn quote(&self, ak: &TpmObject, extra_data: [u8; 32], pcrs: PcrSelection) -> Reply<Quote> {
        let ak = ak.clone();
        self.0.request(move |device| device.quote(&ak, extra_data, pcrs))
    }

    /// Opens a credential that was made for this TPM's endorsement key and `ak`.
    pub fn activate(&self, ak: &TpmObject, credential: &Credential) -> Reply<ActivationSecret> {
        let (ak, credential) = (ak.clone(), credential.clone());
        self.0.request(move |device| device.activate(&ak, &credential))
    }

    /// Seals to the present values of these PCRs, all of which must then be the same to unseal.
    pub fn seal(&self, secret: Arc<TpmSecret>, pcrs: PcrSelection) -> Reply<SealedSecret> {
        self.0.request(move |device| device.seal(&secret, pcrs))
    }

    /// Seals to these values of PCRs, which they need not have now.
    pub fn seal_for(&self, secret: Arc<TpmSecret>, pcrs: PcrValues) -> Reply<SealedSecret> {
        self.0.request(move |device| device.seal_for(&secret, pcrs.clone()))
    }

    /// Unseals into locked memory.
    pub fn unseal(&self, sealed: &SealedSecret) -> Reply<TpmSecret> {
        let sealed = sealed.clone();
        self.0.request(move |device| device.unseal(&sealed))
    }

    /// Name of the storage root key: the same as long as this is the same TPM and its owner was not cleared.
    pub fn srk_name(&self) -> Reply<TpmName> {
        self.0.request(device::Device::srk_name)
    }

    /// Defines a counter that only who knows `auth` can read or increment, gives it its first value and makes `run` the
    /// run that may count.
    pub fn define_counter(&self, auth: Arc<CounterAuth>, run: RunId) -> Reply<(Counter, u64)> {
        self.0.request(move |device| device.define_counter(&auth, &run))
    }

    /// Where a counter stands.
    pub fn read_counter(&self, counter: &Counter, auth: Arc<CounterAuth>) -> Reply<u64> {
        let counter = *counter;
        self.0.request(move |device| device.read_counter(&counter, &auth))
    }

    /// Takes the counter for `run`, from whichever run had it, and returns where it stands then.
    pub fn claim_counter(&self, counter: &Counter, auth: Arc<CounterAuth>, run: RunId) -> Reply<u64> {
        let counter = *counter;
        self.0.request(move |device| device.claim_counter(&counter, &auth, &run))
    }

    /// That `run` has the counter still, and that it stands at `at`.
    ///
    /// # Errors
    /// [`TpmError::CounterClaimed`], [`TpmError::CounterMoved`].
    pub fn check_run(&self, counter: &Counter, auth: Arc<CounterAuth>, run: RunId, at: u64) -> Reply<()> {
        let counter = *counter;
        self.0.request(move |device| device.check_run(&counter, &auth, (&run, at)))
    }

    /// Increments a counter that stands at `from` and returns what it reads then: reads and increment share a session, so
    /// that an answer of `from + 1` says that this very increment was the one, and that `run` still had the counter after
    /// it. It is sent at most once.
    ///
    /// # Errors
    /// [`TpmError::CounterUncertain`] where the answer got lost, [`TpmError::CounterClaimed`] where another run took it.
    pub fn increment_counter(&self, counter: &Counter, auth: Arc<CounterAuth>, run: RunId, from: u64) -> Reply<u64> {
        let counter = *counter;
        let mut sent = false;
        self.0.request(move |device| match sent {
            true => Err(TpmError::CounterUncertain),
            false => device.increment_counter(&counter, &auth, (&run, from), &mut sent),
        })
    }

    /// Removes a counter and its register, where they are the ones that were defined.
    ///
    /// # Errors
    /// [`TpmError::CounterReplaced`]; [`TpmError::HierarchyAuth`] where the owner has a password.
    pub fn undefine_counter(&self, counter: Counter, auth: Arc<CounterAuth>) -> Reply<()> {
        self.0.request(move |device| device.undefine_counter(&counter, &auth))
    }

    /// Everything in an NV index of at most `max` bytes, read with the owner's empty password.
    ///
    /// # Errors
    /// [`TpmError::NvMissing`], [`TpmError::NvTooLong`].
    pub fn nv_read(&self, index: u32, max: usize) -> Reply<Vec<u8>> {
        self.0.request(move |device| device.nv_read(index, max, |_| NvAuth::Owner))
    }

    /// TPMT_PUBLIC of a persistent key.
    ///
    /// # Errors
    /// [`TpmError::KeyMissing`].
    pub fn persistent_public(&self, handle: u32) -> Reply<Vec<u8>> {
        self.0.request(move |device| device.persistent_public(handle))
    }

    /// As [`quote`](Self::quote), by a persistent key with an empty password.
    ///
    /// # Errors
    /// [`TpmError::KeyMissing`].
    pub fn quote_persistent(&self, handle: u32, extra_data: [u8; 32], pcrs: PcrSelection) -> Reply<Quote> {
        self.0.request(move |device| device.quote_persistent(handle, extra_data, pcrs))
    }

    /// Present values of these PCRs, SHA-256 bank.
    pub fn read_pcrs(&self, pcrs: PcrSelection) -> Reply<PcrValues> {
        self.0.request(move |device| device.read_pcrs(pcrs))
    }
}

impl TpmObject {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> TpmName {
        TpmName::of(&self.public)
    }
}

impl TpmName {
    /// The name of a public area with nameAlg SHA-256.
    #[must_use]
    pub fn of(public: &[u8]) -> Self {
        let mut name = [0; 34];
        let (algorithm, digest) = name.split_at_mut(2);
        algorithm.copy_from_slice(&[0x00, 0x0b]);
        digest.copy_from_slice(Sha256Digest::of(public).as_bytes());
        Self(name)
    }

    /// The 34 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 34] {
        &self.0
    }
}

impl TryFrom<&[u8]> for TpmName {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl fmt::Debug for TpmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TpmName({})", hex::encode(self.0))
    }
}

/// Starts this program anew with libtss2's own messages turned off, unless its environment says something about them.
///
/// libtss2 prints to stderr what it is told by the environment at its first use, for errors that are expected too (a
/// PCR that changed). A program cannot change its own environment safely, so this replaces it: call it first in `main`.
///
/// # Errors
/// Only where the program cannot be started again; going on then costs nothing but silence.
pub fn silence_libtss2() -> io::Result<()> {
    const VARIABLE: &str = "TSS2_LOG";
    if std::env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut again = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    Err(again.args(arguments).env(VARIABLE, "all+none").exec())
}
