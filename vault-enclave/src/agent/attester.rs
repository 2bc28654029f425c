//! What an agent attests with: a TPM, an SNP guest's chip, or both. Loader and lease holder open the TPM one after the
//! other, never at once: whoever opens one without a resource manager flushes what others left in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestation::{
    AkName, AttestationKey, AzureEvidence, Binding, Evidence, EvidenceForm, TpmIdentity, TpmPart, Transcript,
};
use vault_proto::collateral::Collateral;
use vault_proto::convert::{AskedEvidence, AskedQuote, Challenge, EvidenceSet};

use super::error::SessionError;
use super::event_log::read_event_log;
use crate::chip::{Chip, CollateralUse};
use crate::snp::{SEV_GUEST, SnpChoice, SnpDevice, SnpDeviceKind, TSM_ROOT, probe};
use crate::tpm::{TctiConfig, Tpm, TpmError, TpmObject};

/// What names an agent's hardware from one opening to the next. Nothing in it is secret.
#[derive(Clone)]
pub struct AgentIdentity {
    /// The TPM, where there is one.
    pub tpm: Option<TpmAgent>,
    /// The SNP device, where this is an SNP guest.
    pub chip: Option<ChipAgent>,
    /// Where the event log of this boot is, for rules that ask for it.
    pub event_log: PathBuf,
}

/// Where the SNP device of this guest is.
#[derive(Clone)]
pub struct ChipAgent {
    /// Which device; never [`SnpChoice::Auto`], so that every opening finds the same.
    pub choice: SnpChoice,
    /// The virtual TPM of an Azure guest.
    pub azure_tcti: Option<TctiConfig>,
    /// Where certificates come from that the host does not give.
    pub collateral: Arc<Collateral>,
}

/// A TPM and the attestation key in it.
#[derive(Clone)]
pub struct TpmAgent {
    /// Where the TPM is.
    pub tcti: TctiConfig,
    /// The AK's blobs, useless without that TPM.
    pub ak: TpmObject,
    /// Its name.
    pub ak_name: AkName,
    /// What the keeper is told.
    pub identity: TpmIdentity,
}

impl AgentIdentity {
    /// What this machine can show.
    #[must_use]
    pub fn forms(&self) -> BTreeSet<EvidenceForm> {
        let chip = self.chip.as_ref().map(|chip| match chip.azure_tcti {
            Some(_) => EvidenceForm::AzureSnpVtpm,
            None => EvidenceForm::Snp,
        });
        self.tpm.iter().map(|_| EvidenceForm::Tpm).chain(chip).collect()
    }

    /// What the keeper is told of the TPM.
    #[must_use]
    pub fn tpm_identity(&self) -> Option<TpmIdentity> {
        self.tpm.as_ref().map(|tpm| tpm.identity.clone())
    }

    /// Opens what there is to answer a challenge.
    ///
    /// # Errors
    /// [`SessionError::Tpm`], [`SessionError::ChipUnusable`].
    pub fn open(&self) -> Result<Attester<'_>, SessionError> {
        let chip = self.chip.as_ref().map(ChipAgent::open).transpose()?;
        let tpm = match &self.tpm {
            Some(agent) => Some((Tpm::open(agent.tcti.clone())?, agent)),
            None => None,
        };
        Ok(Attester { tpm, chip, event_log: &self.event_log })
    }
}

impl ChipAgent {
    /// Finds the device that `choice` names, if it is there. An Azure guest's is looked for in the TPM at `tcti`.
    ///
    /// # Errors
    /// [`SessionError::Tpm`]; [`SessionError::ChipUnusable`] where a device was named.
    pub fn find(
        choice: &SnpChoice,
        tcti: Option<&TctiConfig>,
        collateral: &Arc<Collateral>,
    ) -> Result<Option<Self>, SessionError> {
        let named = *choice != SnpChoice::Auto;
        // Only a named device is worth opening a TPM for that may not be there.
        let tpm = match tcti {
            Some(tcti) if *choice == SnpChoice::Auto || *choice == SnpChoice::AzureVtpm => {
                match Tpm::open(tcti.clone()) {
                    // It is there: whoever has it open would be waited for once more.
                    Err(error @ TpmError::InUse { .. }) => return Err(error.into()),
                    opened => opened.ok(),
                }
            }
            Some(_) | None => None,
        };
        let found = probe(choice, tpm.as_ref()).find_map(|(kind, device)| device.ok().map(|_| kind));
        let choice = match (found, named) {
            (Some(_), true) => choice.clone(),
            (Some(SnpDeviceKind::ConfigfsTsm), false) => SnpChoice::ConfigfsTsm(TSM_ROOT.into()),
            (Some(SnpDeviceKind::SevGuest), false) => SnpChoice::SevGuest(SEV_GUEST.into()),
            (Some(SnpDeviceKind::AzureVtpm), false) => SnpChoice::AzureVtpm,
            (Some(SnpDeviceKind::Soft) | None, false) => return Ok(None),
            (None, true) => {
                return match SnpDevice::open(choice, tpm.as_ref()) {
                    Err(none) => Err(SessionError::ChipUnusable(none)),
                    // It came up between the two looks.
                    Ok(device) => {
                        drop((device, tpm));
                        Self::find(choice, tcti, collateral)
                    }
                };
            }
        };
        let azure_tcti = if choice == SnpChoice::AzureVtpm { tcti.cloned() } else { None };
        Ok(Some(Self { choice, azure_tcti, collateral: Arc::clone(collateral) }))
    }

    fn open(&self) -> Result<Chip, SessionError> {
        let tpm = self.azure_tcti.clone().map(Tpm::open).transpose()?;
        let device = SnpDevice::open(&self.choice, tpm.as_ref()).map_err(SessionError::ChipUnusable)?;
        Ok(Chip::new(device, CollateralUse::Waiting(Arc::clone(&self.collateral))))
    }
}

impl TpmAgent {
    /// Reads the EK certificate, or the EK where there is none, and pairs it with `ak`, or with a new AK.
    ///
    /// # Errors
    /// What the TPM says; an AK that is not of our template.
    pub fn establish(tcti: TctiConfig, ak: Option<TpmObject>) -> Result<Self, SessionError> {
        let tpm = Tpm::open(tcti.clone())?;
        let (ek_certificates, ek_public) = match tpm.ek_certificates().wait() {
            // Enrolled or not, says the keeper.
            Err(TpmError::EkCertificateMissing) => (Vec::new(), tpm.ek_public().wait()?),
            read => (read?, Vec::new()),
        };
        let ak = match ak {
            Some(ak) => ak,
            None => tpm.create_ak().wait()?,
        };
        Self::new(tcti, ak, ek_certificates, ek_public)
    }

    /// From what an earlier [`establish`](Self::establish) found.
    ///
    /// # Errors
    /// An AK that is not of our template.
    pub fn new(
        tcti: TctiConfig,
        ak: TpmObject,
        ek_certificates: Vec<Vec<u8>>,
        ek_public: Vec<u8>,
    ) -> Result<Self, SessionError> {
        let ak_name = *AttestationKey::parse(&ak.public)?.name();
        let identity = TpmIdentity { ek_certificates, ek_public, ak_public: ak.public.clone() };
        Ok(Self { tcti, ak, ak_name, identity })
    }
}

/// The opened hardware. The TPM is closed on drop.
pub struct Attester<'a> {
    tpm: Option<(Tpm, &'a TpmAgent)>,
    chip: Option<Chip>,
    event_log: &'a Path,
}

impl Attester<'_> {
    /// The TPM's part in the binding of a challenge: its credential opened, where the form has one.
    ///
    /// # Errors
    /// [`SessionError::Tpm`]: the credential was made for another EK or AK. [`SessionError::FormUnavailable`]: the keeper
    /// asks for what this machine did not offer.
    pub fn part(&self, challenge: &Challenge) -> Result<TpmPart, SessionError> {
        let form = challenge.asked.form();
        match &challenge.asked {
            AskedEvidence::Snp => Ok(TpmPart::Absent),
            AskedEvidence::Tpm { credential, .. } | AskedEvidence::SnpTpm { credential, .. } => {
                let (tpm, agent) = self.tpm(form)?;
                let secret = tpm.activate(&agent.ak, credential).wait()?;
                Ok(TpmPart::Activated { ak_name: agent.ak_name, secret })
            }
            AskedEvidence::AzureSnpVtpm { .. } => Ok(TpmPart::Reported { ak_name: self.chip(form)?.azure_ak_name()? }),
        }
    }

    /// Evidence of the form that the challenge asks for, over a binding; with the event log of this boot where the challenge
    /// asks for it.
    ///
    /// # Errors
    /// What the TPM or the chip says; [`SessionError::FormUnavailable`]; that the log can't be read.
    pub fn evidence<S: Transcript>(
        &self,
        binding: &Binding<S>,
        asked: &AskedEvidence,
    ) -> Result<EvidenceSet, SessionError> {
        let form = asked.form();
        let event_log = match asked.quote() {
            Some(AskedQuote { event_log: true, .. }) => Some(read_event_log(self.event_log)?),
            Some(AskedQuote { event_log: false, .. }) | None => None,
        };
        let quoted = |pcrs| {
            let (tpm, agent) = self.tpm(form)?;
            let quote = tpm.quote(&agent.ak, binding.tpm_extra_data(), pcrs).wait()?;
            Ok::<_, SessionError>(quote.into_evidence(agent.identity.clone()))
        };
        let evidence = match asked {
            AskedEvidence::Tpm { quote, .. } => Evidence::Tpm(quoted(quote.pcrs)?),
            AskedEvidence::Snp => Evidence::Snp(self.chip(form)?.evidence(binding.digest())?),
            AskedEvidence::SnpTpm { quote, .. } => {
                let report = self.chip(form)?.evidence(binding.digest())?;
                Evidence::SnpTpm { report, quote: quoted(quote.pcrs)? }
            }
            AskedEvidence::AzureSnpVtpm { quote } => {
                let azure: AzureEvidence = self.chip(form)?.azure_evidence(&binding.tpm_extra_data(), quote.pcrs)?;
                Evidence::AzureSnpVtpm(azure)
            }
        };
        Ok(EvidenceSet { evidence, event_log })
    }

    fn tpm(&self, form: EvidenceForm) -> Result<(&Tpm, &TpmAgent), SessionError> {
        self.tpm.as_ref().map(|(tpm, agent)| (tpm, *agent)).ok_or(SessionError::FormUnavailable(form))
    }

    fn chip(&self, form: EvidenceForm) -> Result<&Chip, SessionError> {
        self.chip.as_ref().ok_or(SessionError::FormUnavailable(form))
    }
}
