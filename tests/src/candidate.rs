//! A keeper that asks to take over and that a test can bend: it speaks the protocol by hand, with a TPM of the forge.

use std::fs;

use attestation::{
    ActivationSecret, AttestationKey, Binding, Evidence, Join, JoinChallenge, JoinerKeys, TpmIdentity, TpmPart,
};
use ledger::policy::Policy;
use ring::rand::SystemRandom;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use vault_enclave::wrap::HpkeKeyPair;
use vault_proto::convert::{EvidenceSet, JoinAnswer, JoinChallenge as Challenge, JoinRequest};
use vault_proto::v1;
use vault_proto::v1::provision_client::ProvisionClient;

use crate::forge::tpm::SoftTpm;
use crate::world::World;

/// A keeper with a forged TPM.
pub struct Candidate {
    /// The TPM; a test may change its PCRs.
    pub tpm: SoftTpm,
    /// What it sends about itself.
    pub identity: TpmIdentity,
    /// What it states that it made.
    pub keys: JoinerKeys,
    pcrs: Vec<u32>,
    provision: ProvisionClient<Channel>,
}

impl Candidate {
    /// One that `[keeper]` of the world's policy permits: endorsed by its forge, in the state that the policy names.
    pub async fn new(world: &World) -> Self {
        let policy = fs::read_to_string(world.path("policy.toml")).expect("the policy");
        let policy = Policy::parse(&policy).expect("the policy");
        let mut tpm = SoftTpm::ecc();
        let mut pcrs = Vec::new();
        for (&index, values) in policy.keeper().tpm().pcrs.allowed() {
            tpm.pcrs[index as usize] = values[0];
            pcrs.push(index);
        }
        let identity = tpm.identity(&world.forge, &[]);
        let pair = HpkeKeyPair::generate(&SystemRandom::new()).expect("locked memory");
        let mut counter_name = [7; 34];
        counter_name[..2].copy_from_slice(&[0, 0x0b]);
        let keys = JoinerKeys { instance: [5; 32], hpke_key: pair.public_key().clone(), counter_name, counter: 9 };
        let channel = Endpoint::from_shared(world.url()).expect("a URL").connect().await.expect("the host listens");
        Self { tpm, identity, keys, pcrs, provision: ProvisionClient::new(channel) }
    }

    /// Asks for a challenge.
    ///
    /// # Errors
    /// The refusal.
    pub async fn challenge(&mut self) -> Result<Challenge, Status> {
        let request = v1::GetJoinChallengeRequest { tpm: Some(self.identity.clone().into()) };
        let answer = self.provision.get_join_challenge(request).await?.into_inner();
        Ok(Challenge::try_from(answer).expect("the keeper answers in form"))
    }

    /// The binding with something else in it.
    pub fn bind_as(&self, challenge: &Challenge, change: impl FnOnce(&mut JoinChallenge)) -> Binding<Join> {
        let secret = self.tpm.activate(&challenge.credential).expect("it was made for this TPM");
        let secret = ActivationSecret::from_bytes(secret.try_into().expect("32 bytes"));
        let ak_name = *AttestationKey::parse(&self.identity.ak_public).expect("a good AK").name();
        let mut bound = JoinChallenge {
            session: challenge.session,
            nonce: challenge.nonce,
            vault: challenge.vault_id,
            policy: challenge.policy,
            tpm: TpmPart::Activated { ak_name, secret },
        };
        change(&mut bound);
        bound.bind(self.keys.clone())
    }

    /// A good redemption of a challenge.
    pub fn redemption(&self, challenge: &Challenge) -> JoinRequest {
        self.redemption_over(challenge, &self.bind_as(challenge, |_| {}))
    }

    /// A redemption whose quote covers this binding.
    pub fn redemption_over(&self, challenge: &Challenge, binding: &Binding<Join>) -> JoinRequest {
        let quote = self.tpm.quote(&self.identity, &self.pcrs, &binding.tpm_extra_data());
        JoinRequest {
            session: challenge.session,
            joiner: self.keys.clone(),
            evidence: EvidenceSet { evidence: Evidence::Tpm(quote), event_log: None },
        }
    }

    /// Sends a redemption.
    ///
    /// # Errors
    /// The refusal.
    pub async fn redeem(&mut self, request: JoinRequest) -> Result<JoinAnswer, Status> {
        let answer = self.provision.join_keeper(v1::JoinKeeperRequest::from(request)).await?.into_inner();
        Ok(JoinAnswer::try_from(answer).expect("the keeper answers in form"))
    }

    /// Both steps.
    ///
    /// # Errors
    /// The refusal.
    pub async fn join(&mut self) -> Result<JoinAnswer, Status> {
        let challenge = self.challenge().await?;
        let redemption = self.redemption(&challenge);
        self.redeem(redemption).await
    }
}
