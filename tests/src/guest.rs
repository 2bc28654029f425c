//! A guest that a test can bend: it speaks the protocol by hand, with a TPM of the forge.

use attestation::{
    ActivationSecret, AkName, AttestationKey, Binding, Evidence, HpkePublicKey, LeaseKey, Load, LoadChallenge,
    RenewChallenge, Sha256Digest, TpmIdentity, TpmPart, Workload,
};
use ledger::entry::ProposedRaise;
use ledger::lease::renew_message;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use vault_enclave::wrap::HpkeKeyPair;
use vault_proto::convert::{Approval, Challenge, EvidenceSet, KeyEpochLinks, ReleaseRequest};
use vault_proto::v1::provision_client::ProvisionClient;
use vault_proto::v1::vault_client::VaultClient;
use vault_proto::v1::{self, ReleaseKeysResponse, UnitSelection, unit_selection};

use crate::forge::authority::Authority;
use crate::forge::tpm::SoftTpm;
use crate::world::{PCRS, World, guest_pcr};

/// A guest with a forged TPM.
pub struct Guest {
    /// The TPM; a test may change its PCRs or its AK.
    pub tpm: SoftTpm,
    /// What it sends about itself.
    pub identity: TpmIdentity,
    /// Its HPKE pair.
    pub pair: HpkeKeyPair,
    /// Its lease key.
    pub lease: Ed25519KeyPair,
    vault: VaultClient<Channel>,
    provision: ProvisionClient<Channel>,
}

impl Guest {
    /// A good guest of this world: endorsed by its forge, in the state that the policy names.
    pub async fn new(world: &World) -> Self {
        Self::endorsed_by(world, &world.forge).await
    }

    /// As [`Guest::new`], endorsed by another authority.
    pub async fn endorsed_by(world: &World, authority: &Authority) -> Self {
        Self::at(world.url(), authority).await
    }

    /// As [`Guest::new`], of a host that listens there.
    pub async fn at(url: String, authority: &Authority) -> Self {
        let (tpm, identity) = machine(authority);
        let endpoint = Endpoint::from_shared(url).expect("a URL");
        Self::with(endpoint.connect().await.expect("the host listens"), tpm, identity)
    }

    /// As [`Guest::new`], and connects when it asks for the first time. Only within a runtime.
    pub fn unconnected(world: &World) -> Self {
        let (tpm, identity) = machine(&world.forge);
        Self::with(endpoint(world).connect_lazy(), tpm, identity)
    }

    /// The same machine after its agent began anew: other keys, and no connection yet.
    pub fn restarted(self, world: &World) -> Self {
        Self::with(endpoint(world).connect_lazy(), self.tpm, self.identity)
    }

    fn with(channel: Channel, tpm: SoftTpm, identity: TpmIdentity) -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&rng).expect("a key");
        Self {
            tpm,
            identity,
            pair: HpkeKeyPair::generate(&rng).expect("locked memory"),
            lease: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key"),
            vault: VaultClient::new(channel.clone()),
            provision: ProvisionClient::new(channel),
        }
    }

    /// The public half of its lease key.
    pub fn lease_key(&self) -> LeaseKey {
        LeaseKey::try_from(self.lease.public_key().as_ref()).expect("32 bytes")
    }

    /// The public half of its HPKE pair.
    pub fn hpke_key(&self) -> HpkePublicKey {
        self.pair.public_key().clone()
    }

    /// The name of its AK.
    pub fn ak_name(&self) -> AkName {
        *AttestationKey::parse(&self.identity.ak_public).expect("a good AK").name()
    }

    /// A challenge request for every unit of `demo@1` under the rule `demo`.
    pub fn ask(&self) -> v1::GetChallengeRequest {
        v1::GetChallengeRequest {
            action: v1::Action::Load.into(),
            rule: "demo".to_owned(),
            model: "demo".to_owned(),
            version: "1".to_owned(),
            units: Some(UnitSelection { selection: Some(unit_selection::Selection::All(true)) }),
            tpm: Some(self.identity.clone().into()),
            lease_id: Vec::new(),
            forms: vec![v1::EvidenceForm::Tpm.into()],
        }
    }

    /// Sends a challenge request.
    ///
    /// # Errors
    /// The refusal.
    pub async fn challenge(&mut self, request: v1::GetChallengeRequest) -> Result<Challenge, Status> {
        let answer = self.vault.get_challenge(request).await?.into_inner();
        Ok(Challenge::try_from(answer).expect("the keeper answers in form"))
    }

    /// The credential, opened.
    pub fn secret(&self, challenge: &Challenge) -> [u8; 32] {
        let secret = self
            .tpm
            .activate(challenge.asked.credential().expect("the form has one"))
            .expect("it was made for this TPM");
        secret.try_into().expect("32 bytes")
    }

    /// The TPM's part in the binding.
    pub fn part(&self, challenge: &Challenge) -> TpmPart {
        let secret = ActivationSecret::from_bytes(self.secret(challenge));
        TpmPart::Activated { ak_name: self.ak_name(), secret }
    }

    /// The binding as a good guest makes it.
    pub fn bind(&self, challenge: &Challenge) -> Binding<Load> {
        self.bind_as(challenge, |_| {})
    }

    /// The binding with something else in it.
    pub fn bind_as(&self, challenge: &Challenge, change: impl FnOnce(&mut LoadChallenge)) -> Binding<Load> {
        let mut bound = LoadChallenge {
            rule: "demo".to_owned(),
            model: "demo".to_owned(),
            version: "1".to_owned(),
            session: challenge.session,
            nonce: challenge.nonce,
            vault: challenge.vault_id,
            policy: challenge.policy,
            manifest: challenge.manifest,
            units: challenge.units.clone(),
            tpm: self.part(challenge),
        };
        change(&mut bound);
        bound.bind(self.hpke_key(), self.lease_key())
    }

    /// A good redemption of a challenge.
    pub fn redemption(&self, challenge: &Challenge) -> ReleaseRequest {
        let extra = self.bind(challenge).tpm_extra_data();
        self.redemption_over(challenge, &extra)
    }

    /// A redemption whose quote covers these bytes.
    pub fn redemption_over(&self, challenge: &Challenge, extra_data: &[u8]) -> ReleaseRequest {
        let quote = self.tpm.quote(&self.identity, &PCRS, extra_data);
        ReleaseRequest {
            session: challenge.session,
            hpke_key: self.hpke_key(),
            lease_key: self.lease_key(),
            evidence: EvidenceSet { evidence: Evidence::Tpm(quote), event_log: None },
            workload: None,
        }
    }

    /// Sends a redemption.
    ///
    /// # Errors
    /// The refusal.
    pub async fn redeem(&mut self, request: ReleaseRequest) -> Result<ReleaseKeysResponse, Status> {
        self.redeem_wire(request.into()).await
    }

    /// Sends a redemption as it is on the wire.
    ///
    /// # Errors
    /// The refusal.
    pub async fn redeem_wire(&mut self, request: v1::ReleaseKeysRequest) -> Result<ReleaseKeysResponse, Status> {
        Ok(self.vault.release_keys(request).await?.into_inner())
    }

    /// A good renewal of the lease `id` that came with this grant.
    pub async fn renewal(&mut self, grant: &ReleaseKeysResponse, id: Sha256Digest) -> v1::RenewLeaseRequest {
        let shown =
            |guest: &Self, challenge: &Challenge, extra: &[u8]| guest.redemption_over(challenge, extra).evidence;
        self.renewal_under("demo", grant, id, shown).await
    }

    /// As [`Guest::renewal`] under another rule, with this evidence for a challenge and the extraData of its quote.
    pub async fn renewal_under(
        &mut self,
        rule: &str,
        grant: &ReleaseKeysResponse,
        id: Sha256Digest,
        shown: impl FnOnce(&Self, &Challenge, &[u8]) -> EvidenceSet,
    ) -> v1::RenewLeaseRequest {
        self.renewal_bound(rule, grant, id, None, shown).await
    }

    /// A renewal whose hardware and lease key sign this workload, and which says so.
    pub async fn renewal_of(
        &mut self,
        grant: &ReleaseKeysResponse,
        id: Sha256Digest,
        workload: Option<Workload>,
    ) -> v1::RenewLeaseRequest {
        let shown =
            |guest: &Self, challenge: &Challenge, extra: &[u8]| guest.redemption_over(challenge, extra).evidence;
        self.renewal_bound("demo", grant, id, workload, shown).await
    }

    async fn renewal_bound(
        &mut self,
        rule: &str,
        grant: &ReleaseKeysResponse,
        id: Sha256Digest,
        workload: Option<Workload>,
        shown: impl FnOnce(&Self, &Challenge, &[u8]) -> EvidenceSet,
    ) -> v1::RenewLeaseRequest {
        let mut ask = self.ask();
        ask.rule = rule.to_owned();
        ask.action = v1::Action::Renew.into();
        ask.units = None;
        ask.lease_id = id.as_bytes().to_vec();
        let challenge = self.challenge(ask).await.expect("a challenge");
        let binding = RenewChallenge {
            rule: rule.to_owned(),
            session: challenge.session,
            nonce: challenge.nonce,
            vault: challenge.vault_id,
            policy: challenge.policy,
            lease: id,
            lease_key: self.lease_key(),
            tpm: self.part(&challenge),
        }
        .bind_workload(workload);
        let evidence = shown(self, &challenge, &binding.tpm_extra_data());
        let signature = self.lease.sign(&renew_message(&challenge.session, &id, binding.digest()));
        v1::RenewLeaseRequest {
            session: challenge.session.to_vec(),
            lease_id: id.as_bytes().to_vec(),
            evidence: Some(evidence.into()),
            lease: grant.lease.clone(),
            lease_signature: signature.as_ref().to_vec(),
            workload: workload.map(Into::into),
        }
    }

    /// Sends a renewal.
    ///
    /// # Errors
    /// The refusal.
    pub async fn renew(&mut self, request: v1::RenewLeaseRequest) -> Result<v1::RenewLeaseResponse, Status> {
        Ok(self.vault.renew_lease(request).await?.into_inner())
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// The refusal.
    pub async fn end(&mut self, request: v1::EndLeaseRequest) -> Result<v1::EndLeaseResponse, Status> {
        Ok(self.vault.end_lease(request).await?.into_inner())
    }

    /// Watches a lease.
    ///
    /// # Errors
    /// The refusal.
    pub async fn watch(
        &mut self,
        request: v1::WatchLeaseRequest,
    ) -> Result<tonic::Streaming<v1::WatchLeaseResponse>, Status> {
        Ok(self.vault.watch_lease(request).await?.into_inner())
    }

    /// Gives an empty keeper this core, as whoever reaches it can.
    ///
    /// # Errors
    /// The refusal.
    pub async fn init_keeper(&mut self, core: Vec<u8>) -> Result<v1::InitKeeperResponse, Status> {
        Ok(self.provision.init_keeper(v1::InitKeeperRequest { core }).await?.into_inner())
    }

    /// Submits an approval.
    ///
    /// # Errors
    /// The refusal.
    pub async fn approve(&mut self, approval: Approval) -> Result<v1::SubmitApprovalResponse, Status> {
        Ok(self.provision.submit_approval(v1::SubmitApprovalRequest::from(approval)).await?.into_inner())
    }

    /// Proposes a raise of a budget.
    ///
    /// # Errors
    /// The refusal.
    pub async fn propose_raise(&mut self, raise: ProposedRaise) -> Result<v1::SubmitRaiseResponse, Status> {
        Ok(self.provision.submit_raise(v1::SubmitRaiseRequest::from(raise)).await?.into_inner())
    }

    /// What leads from the keys of this epoch to the present ones.
    pub async fn key_epochs(&mut self, known: u32) -> KeyEpochLinks {
        let answer = self.vault.get_key_epochs(v1::GetKeyEpochsRequest { known }).await.expect("links");
        answer.into_inner().try_into().expect("links")
    }

    /// A release of every unit of `demo@1`, or its refusal.
    ///
    /// # Errors
    /// The refusal.
    pub async fn load(&mut self) -> Result<ReleaseKeysResponse, Status> {
        let challenge = self.challenge(self.ask()).await?;
        let redemption = self.redemption(&challenge);
        self.redeem(redemption).await
    }

    /// The exact code behind a refusal, as `vaultctl explain` gets it. An agent itself sees a coarse one.
    pub async fn code_of(&mut self, refused: Status) -> String {
        self.explain(refused).await.code
    }

    /// The same with all that is said of it.
    pub async fn explain(&mut self, refused: Status) -> v1::ExplainResponse {
        let trailer = refused.metadata().get_bin("weightvault-refusal-bin");
        let trailer = trailer.unwrap_or_else(|| panic!("no refusal in {refused:?}")).to_bytes().expect("base64");
        let refusal: v1::Refusal = prost::Message::decode(trailer).expect("a Refusal");
        let request = v1::ExplainRequest { request_id: refusal.request_id };
        self.provision.explain(request).await.expect("it is in the journal").into_inner()
    }
}

fn endpoint(world: &World) -> Endpoint {
    Endpoint::from_shared(world.url()).expect("a URL")
}

/// A TPM in the state that the policy names, and what it is known by.
fn machine(authority: &Authority) -> (SoftTpm, TpmIdentity) {
    let mut tpm = SoftTpm::ecc();
    for index in PCRS {
        tpm.pcrs[index as usize] = guest_pcr(index);
    }
    let identity = tpm.identity(authority, &[]);
    (tpm, identity)
}
