//! How a keeper shows itself (FORMAT.md §3: the evidence of a genesis, a keeper and a recovery): the two steps without the wire.
//!
//! Who asks makes a nonce and a secret of his own, so nobody's word is taken: the secret reaches the quote only through
//! the TPM whose EK the policy's anchors endorse, and only while it holds the AK that quotes.
//!
//! ```no_run
//! use ledger::keeper_evidence::{KeeperEvidenceError, KeeperRun, KeeperStanding};
//! # use attestation::{Credential, Evidence, TpmIdentity, UnixTime};
//! # fn run(vault: &ledger::vault_file::VaultFile, identity: &TpmIdentity, now: UnixTime,
//! # ask: impl Fn(&[u8; 32], &Credential) -> (Evidence, KeeperStanding)) -> Result<(), KeeperEvidenceError> {
//! let rng = ring::rand::SystemRandom::new();
//! let run = KeeperRun::start(vault.policy(), identity, now, &rng)?;
//! let (evidence, standing) = ask(run.nonce(), run.credential());
//! let keeper = run.verify_vault(vault.genesis(), (vault.keeper(), vault.keys()), standing, evidence)?;
//! println!("policy {}, {}", keeper.statement().policy(), keeper.claims().trust());
//! # Ok(()) }
//! ```

mod recovering;

use std::fmt;

use attestation::{
    ActivationSecret, Binding, Claims, Credential, CredentialError, EndorsedTpm, Evidence, Expected, GenesisChallenge,
    HpkePublicKey, IdentityKey, Keeper, KeeperChallenge, LogKey, PcrSelection, QuoteClaims, Sha256Digest, SnpClaims,
    TpmIdentity, TpmPart, Transcript, UnixTime, Verified, VerifyError,
};
use ring::rand::SecureRandom;

pub use recovering::{RecoveringError, RecoveringKeeper, RecoveryClaims};

use crate::genesis::{Genesis, KeeperIdentity};
use crate::keepers::KeeperMachine;
use crate::key_epoch::EpochKeys;
use crate::policy::{KeeperRule, PcrMismatch, Policy, SnpMismatch, SnpRule, TpmRule};

/// The first step: the keeper's TPM is endorsed and permitted, and a question for it is made. One use: not `Clone`.
pub struct KeeperRun<'a> {
    policy: &'a Policy,
    now: UnixTime,
    tpm: EndorsedTpm,
    question: Question,
    credential: Credential,
}

/// What a caller asks. The secret is one until the keeper has answered; it is part of the binding's preimage, which is
/// kept beside the log.
struct Question {
    nonce: [u8; 32],
    secret: [u8; 32],
}

/// What a keeper says of itself before there is a vault. Worth nothing without evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperClaims {
    /// 32 random bytes, made with the root key.
    pub instance: [u8; 32],
    /// SHA-256 of the core that it was given.
    pub core: Sha256Digest,
    /// DEKs are wrapped to it.
    pub wrap_key: HpkePublicKey,
    /// Signs grants and leases.
    pub identity_key: IdentityKey,
    /// Signs checkpoints.
    pub log_key: LogKey,
}

/// Where the keeper of an open vault says that it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperStanding {
    /// SHA-256 of the policy in force.
    pub policy: Sha256Digest,
    /// The newest checkpoint, a signed note.
    pub checkpoint: String,
}

/// A keeper whose evidence over the genesis binding verified, in the run of one caller.
pub struct GenesisKeeper {
    identity: KeeperIdentity,
    core: Sha256Digest,
    verified: Verified<attestation::Genesis>,
    question: Question,
}

impl GenesisKeeper {
    /// The keeper and its keys, as a genesis names them.
    pub fn identity(&self) -> &KeeperIdentity {
        &self.identity
    }

    /// SHA-256 of the core that it was given.
    pub fn core(&self) -> Sha256Digest {
        self.core
    }

    /// What it proved.
    pub fn verified(&self) -> &Verified<attestation::Genesis> {
        &self.verified
    }

    /// The caller's nonce, for the witness of an approval.
    pub fn nonce(&self) -> &[u8; 32] {
        &self.question.nonce
    }

    /// The caller's secret, for the witness of an approval: the keeper has answered, so it is no secret any more.
    pub fn activation_secret(&self) -> &[u8; 32] {
        &self.question.secret
    }

    /// Refuses a genesis that was made with another keeper, or for another core, than this run has seen.
    pub fn check(&self, genesis: &Genesis) -> Result<(), KeeperEvidenceError> {
        check_same("the core", self.core == genesis.core().digest())?;
        check_identity(&self.identity, genesis.keeper())
    }
}

impl<'a> KeeperRun<'a> {
    /// Verifies the EK chain under the anchors of `policy`, the AK, and that `[keeper]` permits the TPM; then asks with
    /// fresh random values.
    ///
    /// `policy` is the one that the caller got from where he trusts: of the core, or of the vault file.
    pub fn start(
        policy: &'a Policy,
        identity: &TpmIdentity,
        now: UnixTime,
        rng: &dyn SecureRandom,
    ) -> Result<Self, KeeperEvidenceError> {
        let mut question = Question { nonce: [0; 32], secret: [0; 32] };
        for value in [&mut question.nonce, &mut question.secret] {
            rng.fill(value).map_err(|_| KeeperEvidenceError::Credential(CredentialError::Randomness))?;
        }
        Self::ask(policy, identity, now, question, rng)
    }

    /// The same with a nonce and a secret that somebody else says he used: for checking his run once more. It shows that
    /// a quote answers them, not that they were fresh.
    pub fn replay(
        policy: &'a Policy,
        identity: &TpmIdentity,
        now: UnixTime,
        nonce: [u8; 32],
        secret: [u8; 32],
        rng: &dyn SecureRandom,
    ) -> Result<Self, KeeperEvidenceError> {
        Self::ask(policy, identity, now, Question { nonce, secret }, rng)
    }

    fn ask(
        policy: &'a Policy,
        identity: &TpmIdentity,
        now: UnixTime,
        question: Question,
        rng: &dyn SecureRandom,
    ) -> Result<Self, KeeperEvidenceError> {
        let tpm = EndorsedTpm::verify(identity, policy.trust_anchors(), now)?;
        let platform = tpm.ek().platform();
        if !policy.keeper().tpm().platforms.permits(&platform) {
            return Err(KeeperEvidenceError::PlatformNotListed { platform });
        }
        let credential = tpm.make_credential(&ActivationSecret::from_bytes(question.secret), rng)?;
        Ok(Self { policy, now, tpm, question, credential })
    }

    /// Goes to the keeper.
    pub fn nonce(&self) -> &[u8; 32] {
        &self.question.nonce
    }

    /// Name of the attestation key that answers: which keeper it is, where a vault has several.
    pub fn ak_name(&self) -> &attestation::AkName {
        self.tpm.ak().name()
    }

    /// Goes to the keeper. Only its TPM can open it.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// The second step, before the vault is open: the evidence must be over the genesis binding with these claims.
    pub fn verify_genesis(
        self,
        claims: KeeperClaims,
        evidence: Evidence,
    ) -> Result<GenesisKeeper, KeeperEvidenceError> {
        let binding = GenesisChallenge {
            nonce: self.question.nonce,
            instance: claims.instance,
            core: claims.core,
            wrap_key: claims.wrap_key.clone(),
            identity_key: claims.identity_key.clone(),
            log_key: claims.log_key.clone(),
            tpm: self.tpm_part(),
        }
        .bind();
        let question = Question { nonce: self.question.nonce, secret: self.question.secret };
        let ak_name = *self.tpm.ak().name();
        let pcrs = self.policy.keeper().tpm().pcrs.selection();
        let verified = self.verify(evidence, binding, pcrs)?;
        let identity = KeeperIdentity {
            instance: claims.instance,
            wrap_key: claims.wrap_key,
            identity_key: claims.identity_key,
            log_key: claims.log_key,
            platform: verified.claims().platform(),
            ak_name,
        };
        Ok(GenesisKeeper { identity, core: claims.core, verified, question })
    }

    /// The second step with the keeper of an open vault: the evidence must be over the keeper binding with the keys of the
    /// vault's epoch, by the very chip, TPM and AK of `machine`: those of the founder, or of a keeper that was let in later.
    /// Whether the checkpoint is signed is for the caller to check.
    pub fn verify_vault(
        self,
        genesis: &Genesis,
        (machine, keys): (&KeeperMachine, &EpochKeys),
        standing: KeeperStanding,
        evidence: Evidence,
    ) -> Result<Verified<Keeper>, KeeperEvidenceError> {
        let binding = KeeperChallenge {
            nonce: self.question.nonce,
            vault: genesis.vault_id(),
            wrap_key: keys.wrap_key.clone(),
            identity_key: keys.identity_key.clone(),
            log_key: genesis.keeper().log_key.clone(),
            policy: standing.policy,
            checkpoint: standing.checkpoint,
            tpm: self.tpm_part(),
        }
        .bind();
        check_same("the attestation key", *self.tpm.ak().name() == machine.ak_name)?;
        // A keeper quotes what the first policy names, whichever policy the caller knows.
        let pcrs = genesis.policy().keeper().tpm().pcrs.selection();
        let verified = self.verify(evidence, binding, pcrs)?;
        check_same("the platform", verified.claims().platform() == machine.platform)?;
        Ok(verified)
    }

    fn tpm_part(&self) -> TpmPart {
        TpmPart::Activated {
            ak_name: *self.tpm.ak().name(),
            secret: ActivationSecret::from_bytes(self.question.secret),
        }
    }

    fn verify<S: Transcript>(
        self,
        evidence: Evidence,
        binding: Binding<S>,
        pcrs: PcrSelection,
    ) -> Result<Verified<S>, KeeperEvidenceError> {
        let (tpm, rule) = (self.tpm, self.policy.keeper());
        let expected = expected(rule, tpm, pcrs);
        let verified = evidence.verify(binding, &expected, self.policy.trust_anchors(), self.now)?;
        check_claims(rule, verified.claims())?;
        Ok(verified)
    }
}

/// What the evidence of a keeper is checked against.
pub fn expected(rule: &KeeperRule, tpm: EndorsedTpm, pcrs: PcrSelection) -> Expected {
    match rule {
        KeeperRule::Tpm(_) => Expected::Tpm { tpm, pcrs },
        KeeperRule::Snp { snp, .. } => Expected::SnpTpm { crl: snp.crl, tpm, pcrs },
    }
}

/// The claims are of the rule's form, and all that it asks for. `eks` was checked before a credential was made.
pub(crate) fn check_claims(rule: &KeeperRule, claims: &Claims) -> Result<(), KeeperEvidenceError> {
    match (rule, claims) {
        (KeeperRule::Tpm(tpm), Claims::Tpm { quote, .. }) => check_quote(tpm, quote),
        (KeeperRule::Snp { snp, tpm }, Claims::SnpUnboundTpm { report, quote, .. }) => {
            check_report(snp, report)?;
            check_quote(tpm, quote)
        }
        (KeeperRule::Tpm(_), Claims::Snp(_) | Claims::SnpUnboundTpm { .. } | Claims::SnpVtpm { .. })
        | (KeeperRule::Snp { .. }, Claims::Tpm { .. } | Claims::Snp(_) | Claims::SnpVtpm { .. }) => {
            Err(KeeperEvidenceError::Evidence(VerifyError::FormMismatch))
        }
    }
}

fn check_quote(rule: &TpmRule, quote: &QuoteClaims) -> Result<(), KeeperEvidenceError> {
    rule.pcrs.check(quote.pcrs()).map_err(KeeperEvidenceError::Pcr)
}

fn check_report(rule: &SnpRule, report: &SnpClaims) -> Result<(), KeeperEvidenceError> {
    rule.check(report).map_err(KeeperEvidenceError::Report)
}

fn check_identity(seen: &KeeperIdentity, named: &KeeperIdentity) -> Result<(), KeeperEvidenceError> {
    check_same("the instance", seen.instance == named.instance)?;
    check_same("the wrap key", seen.wrap_key == named.wrap_key)?;
    check_same("the identity key", seen.identity_key == named.identity_key)?;
    check_same("the log key", seen.log_key == named.log_key)?;
    check_same("the platform", seen.platform == named.platform)?;
    check_same("the attestation key", seen.ak_name == named.ak_name)
}

fn check_same(field: &'static str, same: bool) -> Result<(), KeeperEvidenceError> {
    if same { Ok(()) } else { Err(KeeperEvidenceError::OtherKeeper { field }) }
}

/// Why a keeper did not show what it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeeperEvidenceError {
    /// The EK chain, the AK or the quote does not verify.
    Evidence(VerifyError),
    /// No credential could be made.
    Credential(CredentialError),
    /// `[keeper]` lists EKs, and not this one.
    PlatformNotListed {
        /// Of the TPM that answered.
        platform: Sha256Digest,
    },
    /// The keeper did not boot what `[keeper]` asks for.
    Pcr(PcrMismatch),
    /// The keeper's report shows something that `[keeper.snp]` does not allow.
    Report(SnpMismatch),
    /// The genesis names another keeper than the one that answered.
    OtherKeeper {
        /// What differs first.
        field: &'static str,
    },
}

impl KeeperEvidenceError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Evidence(error) => error.code(),
            Self::Credential(error) => error.code(),
            Self::PlatformNotListed { .. } => "keeper-platform-not-listed",
            Self::Pcr(_) => "keeper-pcr-mismatch",
            Self::Report(mismatch) => mismatch.code(),
            Self::OtherKeeper { .. } => "keeper-other",
        }
    }
}

impl fmt::Display for KeeperEvidenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evidence(error) => error.fmt(f),
            Self::Credential(error) => error.fmt(f),
            Self::PlatformNotListed { platform } => write!(f, "`keeper.eks` does not list platform {platform}"),
            Self::Pcr(mismatch) => write!(f, "{mismatch}, which `keeper.pcrs` does not allow"),
            Self::Report(mismatch) => write!(f, "{mismatch} (`keeper.snp.{}`)", mismatch.key()),
            Self::OtherKeeper { field } => {
                write!(f, "another keeper answered than the vault's: {field} differs")
            }
        }
    }
}

impl std::error::Error for KeeperEvidenceError {}

impl From<VerifyError> for KeeperEvidenceError {
    fn from(error: VerifyError) -> Self {
        Self::Evidence(error)
    }
}

impl From<CredentialError> for KeeperEvidenceError {
    fn from(error: CredentialError) -> Self {
        Self::Credential(error)
    }
}
