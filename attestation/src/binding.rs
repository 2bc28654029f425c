//! Challenges and bindings (FORMAT.md §3): what evidence must have been made for.
//!
//! A challenge is moved into its binding, a binding into its verification. Neither can be cloned or serialised, so one
//! challenge checks one piece of evidence. Agent and keeper build the same challenge type: the transcript exists once.

mod join;
mod keeper;
mod load;
mod recover;
mod renew;
mod workload;

use ring::digest::{SHA512, digest};
use zeroize::Zeroizing;

pub use join::{Join, JoinChallenge, JoinerKeys};
pub use keeper::{Genesis, GenesisChallenge, Keeper, KeeperChallenge};
pub use load::{Load, LoadChallenge};
pub use recover::{Recover, RecoverChallenge};
pub use renew::{Renew, RenewChallenge};
pub use workload::{ProgramForm, ProgramFormError, Workload, arguments_digest, environment_digest, script_program};

use crate::encoding::{Sha256Digest, lv};
use crate::keys::LeaseKey;
use crate::tpm::{ActivationSecret, AkName};

const BIND_TAG: &[u8] = b"weightvault/v1 bind\0";
const GENESIS_TAG: &[u8] = b"weightvault/v1 genesis\0";
const KEEPER_TAG: &[u8] = b"weightvault/v1 keeper\0";
const RECOVER_TAG: &[u8] = b"weightvault/v1 recover evidence\0";
const LEASE_TAG: &[u8] = b"weightvault/v1 lease";

/// Those of a keeper (FORMAT.md §3): it runs itself, and no program beside.
const RUNTIME_CLAIMS: &[u8] = b"";

/// What a requester states, with the exact bytes that stand for it. Sealed: [`Load`], [`Renew`], [`Join`],
/// [`Recover`], [`Genesis`], [`Keeper`] are all there are.
pub trait Transcript: sealed::Sealed {
    /// The preimage of the binding (FORMAT.md §3). It contains the activation secret.
    fn preimage(&self) -> Vec<u8>;

    /// The TPM that takes part, if one does.
    fn tpm(&self) -> &TpmPart;
}

/// The part of a TPM in a transcript: the fields "AK name" and "activation secret" (FORMAT.md §3).
pub enum TpmPart {
    /// No TPM takes part. Both fields are empty.
    Absent,
    /// A TPM that its EK endorses: only the TPM that has that EK and this AK could open the credential.
    Activated {
        /// The key that must quote.
        ak_name: AkName,
        /// What the credential held.
        secret: ActivationSecret,
    },
    /// A virtual TPM whose AK an SNP report endorses. There is no EK to make a credential for, so the secret is empty.
    Reported {
        /// The key that must quote.
        ak_name: AkName,
    },
}

impl TpmPart {
    /// The key that must quote, where one must.
    #[must_use]
    pub const fn ak_name(&self) -> Option<&AkName> {
        match self {
            Self::Absent => None,
            Self::Activated { ak_name, .. } | Self::Reported { ak_name } => Some(ak_name),
        }
    }

    fn ak_name_bytes(&self) -> &[u8] {
        self.ak_name().map_or(&[], |name| name.as_bytes())
    }

    fn secret_bytes(&self) -> &[u8] {
        match self {
            Self::Absent | Self::Reported { .. } => &[],
            Self::Activated { secret, .. } => secret.expose(),
        }
    }
}

/// SHA-512 of a transcript, and the statement that it stands for.
///
/// One use: not `Clone`, not serialisable, moved into [`verify_tpm`](crate::verify_tpm).
///
/// ```compile_fail,E0382
/// # fn f(binding: attestation::Binding<attestation::Load>) {
/// let first = binding;
/// let second = binding;
/// # }
/// ```
/// ```
/// # fn f(binding: attestation::Binding<attestation::Load>) {
/// let first = binding;
/// let second = first;
/// # }
/// ```
pub struct Binding<S> {
    digest: [u8; 64],
    preimage: Zeroizing<Vec<u8>>,
    statement: S,
}

impl<S: Transcript> Binding<S> {
    fn new(statement: S) -> Self {
        let preimage = Zeroizing::new(statement.preimage());
        let mut sha512 = [0; 64];
        sha512.copy_from_slice(digest(&SHA512, &preimage).as_ref());
        Self { digest: sha512, preimage, statement }
    }
}

impl<S> Binding<S> {
    /// SHA-512 of the preimage.
    #[must_use]
    pub fn digest(&self) -> &[u8; 64] {
        &self.digest
    }

    /// What a TPM quote carries as `extraData`: the first 32 bytes of the digest.
    #[must_use]
    pub fn tpm_extra_data(&self) -> [u8; 32] {
        *self.digest.first_chunk().expect("64 bytes start with 32")
    }

    /// The bytes that were hashed. They contain the activation secret, which is worthless once the challenge is used.
    #[must_use]
    pub fn preimage(&self) -> &[u8] {
        &self.preimage
    }

    /// What is stated.
    #[must_use]
    pub fn statement(&self) -> &S {
        &self.statement
    }

    pub(crate) fn into_parts(self) -> ([u8; 64], Zeroizing<Vec<u8>>, S) {
        (self.digest, self.preimage, self.statement)
    }
}

/// SHA-256(lv("weightvault/v1 lease", vault id, session, lease key)) (FORMAT.md §2): known to an agent that never saw
/// its grant, so that it can still end the lease.
#[must_use]
pub fn lease_id(vault: &Sha256Digest, session: &[u8; 16], lease_key: &LeaseKey) -> Sha256Digest {
    Sha256Digest::of(&lv(&[LEASE_TAG, vault.as_bytes(), session, lease_key.as_bytes()]))
}

/// `tag` ‖ lv(`fields`).
fn tagged(tag: &[u8], fields: &[&[u8]]) -> Vec<u8> {
    [tag, &lv(fields)].concat()
}

mod sealed {
    /// Keeps `Transcript` to this crate.
    pub trait Sealed {}
    impl Sealed for super::Load {}
    impl Sealed for super::Renew {}
    impl Sealed for super::Join {}
    impl Sealed for super::Recover {}
    impl Sealed for super::Genesis {}
    impl Sealed for super::Keeper {}
}
