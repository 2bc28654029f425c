//! What a keeper shows of itself: its TPM and its chip, and evidence over a caller's nonce.

use std::collections::BTreeMap;
use std::sync::Arc;

use attestation::{
    ActivationSecret, AkName, AttestationKey, Binding, Credential, EndorsedEk, EndorsedReport, Evidence, PcrSelection,
    Sha256Digest, SnpClaims, TpmIdentity, TpmPart, Transcript, Trust, UnixTime,
};
use ledger::policy::{KeeperRule, Policy, SnpRule, TpmRule};
use ring::rand::{SecureRandom, SystemRandom};
use vault_proto::convert::EvidenceSet;

use super::refusal::Refusal;
use crate::chip::{Chip, ChipError};
use crate::tpm::{Tpm, TpmError, TpmObject};

/// What a keeper was started with.
#[derive(Clone)]
pub struct Devices {
    /// The TPM.
    pub tpm: Tpm,
    /// The chip, where the guest is an SNP guest.
    pub snp: Option<Arc<Chip>>,
}

/// The keeper's devices and its attestation key.
#[derive(Clone)]
pub(super) struct Hardware {
    /// The devices.
    pub devices: Devices,
    /// The AK's blobs.
    pub ak: TpmObject,
    /// Its name.
    pub ak_name: AkName,
    /// What callers are told.
    pub identity: TpmIdentity,
    /// Whether the keeper proves its chip too.
    form: Form,
}

/// The form of a keeper's evidence: as `[keeper]` of its core asks, for the life of the vault.
#[derive(Clone, Copy)]
enum Form {
    Tpm,
    SnpTpm,
}

impl Hardware {
    /// Reads the EK certificate and pairs it with an AK.
    ///
    /// # Errors
    /// What the TPM says; an AK that is not of our template.
    pub(super) fn new(devices: Devices, ak: TpmObject, rule: &KeeperRule) -> Result<Self, Refusal> {
        let ek_certificates = devices.tpm.ek_certificates().wait()?;
        let ak_name = *AttestationKey::parse(&ak.public)?.name();
        let identity = TpmIdentity { ek_certificates, ek_public: Vec::new(), ak_public: ak.public.clone() };
        let form = match rule {
            KeeperRule::Tpm(_) => Form::Tpm,
            KeeperRule::Snp { .. } => Form::SnpTpm,
        };
        Ok(Self { devices, ak, ak_name, identity, form })
    }

    /// As [`check`], for this hardware.
    ///
    /// # Errors
    /// As [`check`].
    pub(super) fn check(&self, policy: &Policy, now: UnixTime) -> Result<(Sha256Digest, Trust), Refusal> {
        check(&self.devices, &self.identity.ek_certificates, policy, now)
    }

    /// Whether this keeper could start under a policy that is proposed. One that it could not start under would serve until
    /// the next restart, and then never again: the vault would be lost with all its signatures in order.
    ///
    /// # Errors
    /// `policy-keeper-proof`: it asks for a report, and the keeper's core, which says what its evidence is, does not.
    /// `policy-keeper-locked-out`: what [`check`] found, which names the key. Hardware that does not answer keeps its own
    /// code: then nothing is known.
    pub(super) fn check_next(&self, policy: &Policy, now: UnixTime) -> Result<(), Refusal> {
        match (self.form, policy.keeper()) {
            (Form::Tpm, KeeperRule::Snp { .. }) => {
                let message = "keeper.require has \"snp\", which the policy of this vault's genesis does not: its keeper \
                               gives no report, for the life of the vault. Make a new vault with a keeper that does";
                return Err(Refusal::denied("policy-keeper-proof", message));
            }
            (Form::Tpm | Form::SnpTpm, KeeperRule::Tpm(_)) | (Form::SnpTpm, KeeperRule::Snp { .. }) => {}
        }
        match self.check(policy, now) {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.is_denied() => {
                let message = format!(
                    "this keeper could not start under the policy any more: {} ({}). Nothing was proposed: change \
                     `[keeper]` or `[[anchors]]` so that they fit the keeper that runs",
                    refusal.message(),
                    refusal.code()
                );
                Err(Refusal::denied("policy-keeper-locked-out", message))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether the root can be sealed to another boot state of the TPM while the guest has this launch digest: the chip derives
    /// its part for the guest that runs now, and for no other.
    ///
    /// # Errors
    /// `reseal-other-guest`; what [`check`] finds.
    pub(super) fn check_launch(&self, policy: &Policy, digest: [u8; 48], now: UnixTime) -> Result<(), Refusal> {
        let KeeperRule::Snp { snp, .. } = policy.keeper() else { return Ok(()) };
        let claims = check_chip(self.devices.chip()?, snp, policy, now)?;
        if *claims.measurement() == digest {
            return Ok(());
        }
        let message = format!(
            "the root is sealed to a key that the chip derives for launch digest {} alone, which is the guest that runs: no \
             record can be made for another image. The TPM's boot state can change, the guest's image cannot: that takes \
             another keeper, by `vault-enclave keeper-join`",
            hex::encode(claims.measurement())
        );
        Err(Refusal::denied("reseal-other-guest", message))
    }

    /// Evidence over the binding that `bind` makes with the secret of the caller's credential.
    ///
    /// # Errors
    /// What the TPM refuses: a credential for another EK or AK cannot be activated. What the chip says.
    pub(super) fn evidence<S: Transcript>(
        &self,
        credential: &Credential,
        pcrs: PcrSelection,
        bind: impl FnOnce(TpmPart) -> Binding<S>,
    ) -> Result<EvidenceSet, Refusal> {
        let tpm = &self.devices.tpm;
        let secret: ActivationSecret = tpm.activate(&self.ak, credential).wait()?;
        let binding = bind(TpmPart::Activated { ak_name: self.ak_name, secret });
        let quote = tpm.quote(&self.ak, binding.tpm_extra_data(), pcrs).wait()?.into_evidence(self.identity.clone());
        let evidence = match self.form {
            Form::Tpm => Evidence::Tpm(quote),
            Form::SnpTpm => {
                let report = self.devices.chip()?.evidence(binding.digest())?;
                Evidence::SnpTpm { report, quote }
            }
        };
        Ok(EvidenceSet { evidence, event_log: None })
    }
}

impl Devices {
    /// The chip, where the policy makes the keeper prove one.
    ///
    /// # Errors
    /// `keeper-snp-missing`.
    pub(super) fn chip(&self) -> Result<&Chip, Refusal> {
        self.snp.as_deref().ok_or_else(|| {
            let message =
                "[keeper] asks for an SNP report, and this keeper has no SNP device: see `vault-enclave doctor`";
            Refusal::denied("keeper-snp-missing", message)
        })
    }
}

/// Whether the hardware is what a policy asks of its keeper: then its platform id and what it rests on. Asked first, so
/// that a ceremony fails before approvers are called.
///
/// # Errors
/// The code of the EK's or the report's check, `keeper-platform`, `keeper-pcrs`, `keeper-snp-missing`.
pub(super) fn check(
    devices: &Devices,
    ek_certificates: &[Vec<u8>],
    policy: &Policy,
    now: UnixTime,
) -> Result<(Sha256Digest, Trust), Refusal> {
    let rule = policy.keeper();
    let ek = check_tpm(&devices.tpm, rule.tpm(), ek_certificates, policy, now)?;
    match rule {
        KeeperRule::Tpm(_) => Ok((ek.platform(), ek.trust())),
        KeeperRule::Snp { snp, .. } => {
            let claims = check_chip(devices.chip()?, snp, policy, now)?;
            Ok((claims.platform(), claims.trust()))
        }
    }
}

fn check_tpm(
    tpm: &Tpm,
    rule: &TpmRule,
    ek_certificates: &[Vec<u8>],
    policy: &Policy,
    now: UnixTime,
) -> Result<EndorsedEk, Refusal> {
    let ek = EndorsedEk::verify(ek_certificates, policy.trust_anchors(), now)
        .map_err(|error| Refusal::denied(error.code(), format!("the keeper's own TPM: {error}")))?;
    if !rule.platforms.permits(&ek.platform()) {
        let message = format!("[keeper] eks does not list this keeper's TPM, {}", ek.platform());
        return Err(Refusal::denied("keeper-platform", message));
    }
    let values = tpm.read_pcrs(rule.pcrs.selection()).wait()?;
    let values: BTreeMap<u32, [u8; 32]> = values.iter().map(|(index, value)| (index, *value)).collect();
    rule.pcrs.check(&values).map_err(|error| Refusal::denied("keeper-pcrs", format!("[keeper] pcrs: {error}")))?;
    Ok(ek)
}

/// A report for itself, over random data that nobody else has asked for.
fn check_chip(chip: &Chip, rule: &SnpRule, policy: &Policy, now: UnixTime) -> Result<SnpClaims, Refusal> {
    let mut data = [0; 64];
    SystemRandom::new()
        .fill(&mut data)
        .map_err(|_| Refusal::unavailable("random", "the system gave no random bytes"))?;
    let evidence = chip.evidence(&data)?;
    let report = EndorsedReport::verify(&evidence, policy.trust_anchors(), rule.crl, now)
        .and_then(|report| report.check_report_data(&data).map(|()| report))
        .map_err(|error| Refusal::denied(error.code(), format!("the keeper's own report: {error}")))?;
    let claims = report.into_claims();
    rule.check(&claims).map_err(|mismatch| {
        let message = format!("the keeper's own report: {mismatch} (`keeper.snp.{}`)", mismatch.key());
        Refusal::denied(mismatch.code(), message)
    })?;
    Ok(claims)
}

impl From<TpmError> for Refusal {
    fn from(error: TpmError) -> Self {
        Self::unavailable(error.code(), error)
    }
}

impl From<ChipError> for Refusal {
    fn from(error: ChipError) -> Self {
        Self::unavailable(error.code(), error)
    }
}
