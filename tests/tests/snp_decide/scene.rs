//! A vault, a chip, a guest on it and a rule that lets it in. Tests change one of them.

use attestation::{
    AzureEvidence, AzureQuote, Binding, EndorsedTpm, Evidence, Expected, Load, LoadChallenge, PcrSelection, Renew,
    RenewChallenge, Sha256Digest, SnpEvidence, TpmIdentity, TpmPart, Transcript, TrustAnchors, UnitSet, Verified,
    VerifyError,
};
use ledger::decide::{Denial, DenialReason, ReleaseGrant, RenewGrant, decide, decide_renew};
use ledger::entry::Entry;
use vault_tests::forge::amd::{Authorities, Product, Tcb};
use vault_tests::forge::azure::{Quoted, SoftParavisor};
use vault_tests::forge::platform::{SoftGuest, SoftPlatform};
use vault_tests::forge::report::POLICY_RESERVED_ONE;

use crate::common::authority::NOW;
use crate::common::tpm::SoftTpm;
use crate::support::evidence::{Guest, hpke_key};
use crate::support::policy_text::{self, PCR_0, PCR_11_GUEST, pcr};
use crate::support::world::{World, lease_key, rule, session};

/// What the platform of a good scene runs: exactly the lowest TCB of the policy's Milan.
pub const TCB: Tcb = Tcb { fmc: 0, bootloader: 4, tee: 1, snp: 24, microcode: 219 };

const ANCHOR: &str = "\n[[anchors]]\nname = \"soft-amd\"\n";

/// Everything that a decision depends on.
pub struct Scene {
    pub world: World,
    pub platform: SoftPlatform,
    pub guest: SoftGuest,
    pub paravisor: SoftParavisor,
    pub crls: bool,
    /// A TPM that the world's authority endorses, for the forms that have one.
    tpm: (SoftTpm, TpmIdentity),
}

/// The rule of a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Tpm,
    Snp,
    Paravisor,
}

/// What a guest shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Tpm,
    Snp,
    SnpTpm,
    Azure,
}

impl Scene {
    /// A good one: an SNP guest under a rule for it.
    pub fn good() -> Self {
        Self::under(Rule::Snp, |text| text)
    }

    /// The same with a change to the text of the policy.
    pub fn under(rule: Rule, change: impl FnOnce(String) -> String) -> Self {
        Self::of(Product::Milan, rule, change)
    }

    /// A good one on a chip of another line.
    pub fn on(product: Product) -> Self {
        Self::of(product, Rule::Snp, |text| text)
    }

    fn of(product: Product, rule: Rule, change: impl FnOnce(String) -> String) -> Self {
        let world = World::with_policy(|first| {
            // The anchor of the world's TPMs stands at the end.
            let anchors = first.strip_prefix(&policy_text::first()).unwrap().to_owned();
            let text = match rule {
                Rule::Tpm => policy_text::first(),
                Rule::Snp => policy_text::snp(),
                Rule::Paravisor => policy_text::paravisor(),
            };
            change(text + &anchors + &soft_anchor(product))
        });
        let platform = SoftPlatform::new(product).with(|it| {
            it.platform_info = 0x24;
            if product == Product::Milan {
                (it.current, it.committed, it.reported) = (TCB, TCB, TCB);
            }
        });
        let guest = SoftGuest::new([0x77; 48]).with(|it| {
            it.policy = POLICY_RESERVED_ONE;
            it.host_data = pcr(PCR_0);
            it.id_key_digest = [0x88; 48];
            it.author_key_digest = [0x88; 48];
            it.guest_svn = 7;
        });
        let mut paravisor = SoftParavisor::new();
        paravisor.tpm.pcrs[11] = pcr(PCR_11_GUEST);
        let mut tpm = SoftTpm::ecc();
        tpm.pcrs = Guest::of(&world).tpm.pcrs;
        let identity = tpm.identity(&world.authority, &[]);
        let world = world.opened().published();
        Self { world, platform, guest, paravisor, crls: true, tpm: (tpm, identity) }
    }

    /// The same with a change.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Evidence of this form over a binding, verified for exactly that form.
    pub fn prove<S: Transcript>(&self, shown: Shown, binding: Binding<S>) -> Result<Verified<S>, VerifyError> {
        let (evidence, expected) = self.evidence(shown, &binding);
        evidence.verify(binding, &expected, self.world.policy().trust_anchors(), NOW)
    }

    /// The TPM's part in the binding for this form.
    pub fn part(&self, shown: Shown) -> TpmPart {
        match shown {
            Shown::Tpm | Shown::SnpTpm => {
                let ak_name = *self.endorsed().ak().name();
                TpmPart::Activated { ak_name, secret: attestation::ActivationSecret::from_bytes([5; 32]) }
            }
            Shown::Snp => TpmPart::Absent,
            Shown::Azure => TpmPart::Reported { ak_name: self.azure([0; 32].as_slice()).ak_name().unwrap() },
        }
    }

    /// A load of session `n`.
    pub fn load(&self, n: u32, shown: Shown) -> Verified<Load> {
        self.try_load(n, shown).unwrap()
    }

    pub fn try_load(&self, n: u32, shown: Shown) -> Result<Verified<Load>, VerifyError> {
        self.prove(shown, self.challenge(n, shown).bind(hpke_key(), lease_key()))
    }

    /// What a keeper puts into the challenge for a load of header and layer.0.
    pub fn challenge(&self, n: u32, shown: Shown) -> LoadChallenge {
        LoadChallenge {
            rule: rule().to_string(),
            model: "minilm".to_owned(),
            version: "1.0".to_owned(),
            session: session(n),
            nonce: [2; 32],
            vault: self.world.genesis.vault_id(),
            policy: self.world.policy().digest(),
            manifest: self.world.manifest().digest(),
            units: UnitSet::try_from(vec![0, 1]).unwrap(),
            tpm: self.part(shown),
        }
    }

    pub fn renew(&self, lease: Sha256Digest, shown: Shown) -> Verified<Renew> {
        let challenge = RenewChallenge {
            rule: rule().to_string(),
            session: session(1000),
            nonce: [2; 32],
            vault: self.world.genesis.vault_id(),
            policy: self.world.policy().digest(),
            lease,
            lease_key: lease_key(),
            tpm: self.part(shown),
        };
        self.prove(shown, challenge.bind()).unwrap()
    }

    pub fn decide(&self, verified: Verified<Load>) -> Result<ReleaseGrant, Denial> {
        let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
        let manifest = self.world.state.open_manifest(&model, &version, self.world.manifest().bytes()).unwrap();
        decide(&self.world.state, verified, &manifest, self.world.now)
    }

    pub fn decide_renew(&self, verified: Verified<Renew>) -> Result<RenewGrant, Denial> {
        decide_renew(&self.world.state, verified, self.world.now)
    }

    /// Grants a lease of session `n` and takes it into the log; gives its id.
    #[track_caller]
    pub fn must_release(&mut self, n: u32, shown: Shown) -> Sha256Digest {
        let grant = self.granted(n, shown);
        let (lease, entry): (_, Entry) = (grant.lease(), grant.entry(Sha256Digest::of(b"evidence")));
        self.world.must(entry);
        lease
    }

    #[track_caller]
    pub fn granted(&self, n: u32, shown: Shown) -> ReleaseGrant {
        self.decide(self.load(n, shown)).unwrap_or_else(|denial| panic!("{}: {denial}", denial.code()))
    }

    /// Why a load with this evidence is denied.
    #[track_caller]
    pub fn denied(&self, shown: Shown) -> DenialReason {
        match self.decide(self.load(1, shown)) {
            Ok(_) => panic!("must be denied"),
            Err(denial) => denial.reason().clone(),
        }
    }

    /// As [`Scene::denied`] with a report that was verified under these anchors.
    #[track_caller]
    pub fn denied_under(&self, anchors: &TrustAnchors) -> DenialReason {
        let binding = self.challenge(1, Shown::Snp).bind(hpke_key(), lease_key());
        let (evidence, expected) = self.evidence(Shown::Snp, &binding);
        match self.decide(evidence.verify(binding, &expected, anchors, NOW).unwrap()) {
            Ok(_) => panic!("must be denied"),
            Err(denial) => denial.reason().clone(),
        }
    }

    fn endorsed(&self) -> EndorsedTpm {
        EndorsedTpm::verify(&self.tpm.1, self.world.policy().trust_anchors(), NOW).unwrap()
    }

    fn snp_evidence(&self, report: Vec<u8>) -> SnpEvidence {
        let crl = self.platform.authorities.crl(i64::try_from(NOW.seconds()).unwrap()).der();
        let crls = if self.crls { vec![crl] } else { Vec::new() };
        SnpEvidence { report, certificates: self.platform.chain().to_vec(), crls }
    }

    pub fn azure(&self, extra_data: &[u8]) -> AzureEvidence {
        let SnpEvidence { certificates, crls, .. } = self.snp_evidence(Vec::new());
        let Quoted { attest, signature, pcrs } = self.paravisor.quote(&[11], extra_data);
        AzureEvidence {
            hcl_report: self.paravisor.hcl_report(&self.platform, &self.guest),
            certificates,
            crls,
            ak_public: self.paravisor.tpm.ak_public.bytes(),
            quote: AzureQuote { attest, signature, pcrs },
        }
    }

    /// Evidence of this form, and what a keeper that asked for that form checks it against.
    pub fn evidence<S: Transcript>(&self, shown: Shown, binding: &Binding<S>) -> (Evidence, Expected) {
        let rule = self.world.policy().release_rules().values().next().unwrap();
        let crl = rule.guest.snp().map_or(attestation::CrlRule::Required, |snp| snp.crl);
        let report = || self.snp_evidence(self.platform.signed_report(&self.guest, *binding.digest()).to_vec());
        let quote = || {
            let (tpm, identity) = &self.tpm;
            tpm.quote(identity, &[0, 11], &binding.tpm_extra_data())
        };
        let pcrs = |indices: &[u32]| PcrSelection::try_from(indices).unwrap();
        match shown {
            Shown::Tpm => (Evidence::Tpm(quote()), Expected::Tpm { tpm: self.endorsed(), pcrs: pcrs(&[0, 11]) }),
            Shown::Snp => (Evidence::Snp(report()), Expected::Snp { crl }),
            Shown::SnpTpm => (
                Evidence::SnpTpm { report: report(), quote: quote() },
                Expected::SnpTpm { crl, tpm: self.endorsed(), pcrs: pcrs(&[0, 11]) },
            ),
            Shown::Azure => (
                Evidence::AzureSnpVtpm(self.azure(&binding.tpm_extra_data())),
                Expected::AzureSnpVtpm { crl, pcrs: pcrs(&[11]) },
            ),
        }
    }
}

/// The anchor of the soft root of a product line; it ends the policy.
fn soft_anchor(product: Product) -> String {
    let pem = vault_tests::forge::amd::pem(&Authorities::new(product).ark.der());
    format!("{ANCHOR}trust = \"emulated\"\ncertificate = \"\"\"\n{pem}\"\"\"\n")
}

/// A policy without that anchor.
pub fn without_anchor(text: &str) -> String {
    text[..text.find(ANCHOR).unwrap()].to_owned()
}

/// A policy that takes the soft root for hardware.
pub fn as_hardware(text: &str) -> String {
    let (head, anchor) = text.split_at(text.find(ANCHOR).unwrap());
    head.to_owned() + &anchor.replace("\"emulated\"", "\"hardware\"")
}
