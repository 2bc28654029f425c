//! The two-step evidence of a keeper, without the wire: each test changes one thing in a good run.

use attestation::{
    ActivationSecret, Credential, Evidence, GenesisChallenge, KeeperChallenge, Sha256Digest, TpmIdentity, TpmPart,
    TpmQuote, Trust, VerifyError,
};
use ledger::genesis::{AntiRollback, Core, Genesis, SealTo};
use ledger::keeper_evidence::{GenesisKeeper, KeeperClaims, KeeperEvidenceError, KeeperRun, KeeperStanding};
use ledger::keepers::KeeperMachine;
use ledger::key_epoch::EpochKeys;
use ring::rand::SystemRandom;

use crate::forge::authority::{Authority, NOW};
use crate::forge::tpm::SoftTpm;
use crate::peer::Keeper;
use crate::scene::{PCRS, Scene};

/// A keeper and the core that it was given.
struct Run {
    scene: Scene,
    tpm: SoftTpm,
    identity: TpmIdentity,
    core: Core,
}

impl Run {
    fn new() -> Self {
        Self::with_policy(|policy| policy)
    }

    fn with_policy(change: impl FnOnce(String) -> String) -> Self {
        let scene = Scene::new();
        let policy = change(scene.policy("genesis", 1, "none"));
        let core = Core::new(AntiRollback::None, SealTo::Tpm, &policy).unwrap();
        let tpm = SoftTpm::ecc();
        let identity = tpm.identity(&scene.authority, &[]);
        Self { scene, tpm, identity, core }
    }

    fn start(&self) -> Result<KeeperRun<'_>, KeeperEvidenceError> {
        KeeperRun::start(self.core.policy(), &self.identity, NOW, &SystemRandom::new())
    }

    fn claims(&self) -> KeeperClaims {
        KeeperClaims {
            instance: Keeper::instance(),
            core: self.core.digest(),
            wrap_key: Keeper::wrap_key(),
            identity_key: Keeper::identity_key(),
            log_key: Keeper::log_key(),
        }
    }

    fn secret(&self, credential: &Credential) -> ActivationSecret {
        ActivationSecret::from_bytes(self.tpm.activate(credential).unwrap().try_into().unwrap())
    }

    fn part(&self, credential: &Credential) -> TpmPart {
        TpmPart::Activated { ak_name: self.ak_name(), secret: self.secret(credential) }
    }

    fn ak_name(&self) -> attestation::AkName {
        *attestation::AttestationKey::parse(&self.identity.ak_public).unwrap().name()
    }

    /// What a good keeper answers in its ceremony.
    fn quote(&self, nonce: [u8; 32], credential: &Credential) -> TpmQuote {
        let KeeperClaims { instance, core, wrap_key, identity_key, log_key } = self.claims();
        let tpm = self.part(credential);
        let challenge = GenesisChallenge { nonce, instance, core, wrap_key, identity_key, log_key, tpm };
        self.tpm.quote(&self.identity, &PCRS, &challenge.bind().tpm_extra_data())
    }

    /// A good run, but for `change` to claims and quote.
    fn verify(
        &self,
        change: impl FnOnce(&mut KeeperClaims, &mut TpmQuote),
    ) -> Result<GenesisKeeper, KeeperEvidenceError> {
        let run = self.start()?;
        let (mut claims, mut quote) = (self.claims(), self.quote(*run.nonce(), run.credential()));
        change(&mut claims, &mut quote);
        run.verify_genesis(claims, Evidence::Tpm(quote))
    }

    fn genesis(&self) -> Genesis {
        let keeper = self.verify(|_, _| ()).ok().unwrap();
        Genesis::build(NOW, &self.core, keeper.identity().clone()).unwrap()
    }

    /// What a good keeper of the vault answers, under `genesis`, but for `change` to its challenge.
    fn vault_quote(
        &self,
        run: &KeeperRun<'_>,
        genesis: &Genesis,
        change: impl FnOnce(&mut KeeperChallenge),
    ) -> TpmQuote {
        let mut challenge = KeeperChallenge {
            nonce: *run.nonce(),
            vault: genesis.vault_id(),
            wrap_key: Keeper::wrap_key(),
            identity_key: Keeper::identity_key(),
            log_key: Keeper::log_key(),
            policy: standing().policy,
            checkpoint: standing().checkpoint,
            tpm: self.part(run.credential()),
        };
        change(&mut challenge);
        self.tpm.quote(&self.identity, &PCRS, &challenge.bind().tpm_extra_data())
    }
}

fn standing() -> KeeperStanding {
    KeeperStanding { policy: Sha256Digest::of(b"policy"), checkpoint: "checkpoint".to_owned() }
}

fn refusal<T>(result: Result<T, KeeperEvidenceError>) -> KeeperEvidenceError {
    result.err().unwrap()
}

#[test]
fn a_good_run_shows_the_keeper_that_the_genesis_names() {
    let run = Run::new();
    let keeper = run.verify(|_, _| ()).ok().unwrap();
    assert_eq!(keeper.verified().claims().trust(), Trust::Emulated);
    assert_eq!((keeper.core(), keeper.identity().ak_name), (run.core.digest(), run.ak_name()));
    assert_eq!(keeper.check(&run.genesis()), Ok(()));
}

#[test]
fn each_claim_is_bound_to_the_quote() {
    let run = Run::new();
    let changes: [fn(&mut KeeperClaims); 5] = [
        |claims| claims.instance[0] ^= 1,
        |claims| claims.core = Sha256Digest::of(b"another"),
        |claims| claims.wrap_key = attestation::HpkePublicKey::try_from([7; 1665].as_slice()).unwrap(),
        |claims| {
            claims.identity_key =
                attestation::IdentityKey::try_from([&[4], [7; 96].as_slice()].concat().as_slice()).unwrap()
        },
        |claims| claims.log_key = attestation::LogKey::try_from([7; 32].as_slice()).unwrap(),
    ];
    for change in changes {
        let refused = refusal(run.verify(|claims, _| change(claims)));
        assert_eq!(refused, KeeperEvidenceError::Evidence(VerifyError::ExtraDataMismatch));
    }
}

#[test]
fn evidence_of_another_run_is_refused() {
    let run = Run::new();
    let other = run.start().ok().unwrap();
    let replayed = run.quote(*other.nonce(), other.credential());
    let refused = refusal(run.verify(|_, quote| *quote = replayed));
    assert_eq!(refused, KeeperEvidenceError::Evidence(VerifyError::ExtraDataMismatch));
}

#[test]
fn the_same_run_can_be_checked_again_by_who_knows_nonce_and_secret() {
    let run = Run::new();
    let started = run.start().ok().unwrap();
    let quote = run.quote(*started.nonce(), started.credential());
    let seen = started.verify_genesis(run.claims(), Evidence::Tpm(quote.clone())).ok().unwrap();
    let again = |nonce, secret| {
        let rng = SystemRandom::new();
        let again = KeeperRun::replay(run.core.policy(), &run.identity, NOW, nonce, secret, &rng).ok().unwrap();
        again.verify_genesis(run.claims(), Evidence::Tpm(quote.clone()))
    };
    assert!(again(*seen.nonce(), *seen.activation_secret()).is_ok());
    let mismatch = KeeperEvidenceError::Evidence(VerifyError::ExtraDataMismatch);
    assert_eq!(refusal(again([0; 32], *seen.activation_secret())), mismatch);
    assert_eq!(refusal(again(*seen.nonce(), [0; 32])), mismatch);
}

#[test]
fn a_tpm_that_no_anchor_of_the_policy_endorses_is_refused() {
    let mut run = Run::new();
    run.identity = run.tpm.identity(&Authority::root("nobody"), &[]);
    assert_eq!(refusal(run.start()), KeeperEvidenceError::Evidence(VerifyError::EkAnchorUnknown));
}

#[test]
fn a_tpm_that_the_policy_does_not_list_is_refused() {
    let listed = format!("eks = [\"{}\"]", Sha256Digest::of(b"another"));
    let run = Run::with_policy(|policy| policy.replacen("eks = \"any\"", &listed, 1));
    let KeeperEvidenceError::PlatformNotListed { platform } = refusal(run.start()) else { panic!("not that") };
    let listed = format!("eks = [\"{platform}\"]");
    let run = Run::with_policy(|policy| policy.replacen("eks = \"any\"", &listed, 1));
    // The forge has one EK, so this is the same platform.
    assert!(run.verify(|_, _| ()).is_ok());
}

#[test]
fn a_keeper_that_booted_something_else_is_refused() {
    let mut run = Run::new();
    run.tpm.pcrs[11] = [1; 32];
    let KeeperEvidenceError::Pcr(mismatch) = refusal(run.verify(|_, _| ())) else { panic!("not that") };
    assert_eq!((mismatch.index, mismatch.seen), (11, Some([1; 32])));
}

#[test]
fn a_genesis_with_another_keeper_or_core_is_not_the_one_that_was_seen() {
    let run = Run::new();
    let keeper = run.verify(|_, _| ()).ok().unwrap();
    let good = keeper.identity().clone();
    let other_core = Core::new(AntiRollback::Counter, SealTo::Tpm, run.core.policy_text()).unwrap();
    let genesis = |core: &Core, identity| Genesis::build(NOW, core, identity).unwrap();
    let refused = |genesis: &Genesis| match refusal(keeper.check(genesis)) {
        KeeperEvidenceError::OtherKeeper { field } => field,
        other => panic!("{other}"),
    };
    assert_eq!(refused(&genesis(&other_core, good.clone())), "the core");
    let mut changed = good.clone();
    changed.instance[0] ^= 1;
    assert_eq!(refused(&genesis(&run.core, changed)), "the instance");
    let mut changed = good.clone();
    changed.log_key = attestation::LogKey::try_from([7; 32].as_slice()).unwrap();
    assert_eq!(refused(&genesis(&run.core, changed)), "the log key");
    let mut changed = good.clone();
    changed.platform = Sha256Digest::of(b"another");
    assert_eq!(refused(&genesis(&run.core, changed)), "the platform");
    let mut changed = good.clone();
    changed.wrap_key = attestation::HpkePublicKey::try_from([7; 1665].as_slice()).unwrap();
    assert_eq!(refused(&genesis(&run.core, changed)), "the wrap key");
    let mut changed = good.clone();
    changed.identity_key = attestation::IdentityKey::try_from([&[4], [7; 96].as_slice()].concat().as_slice()).unwrap();
    assert_eq!(refused(&genesis(&run.core, changed)), "the identity key");
    let mut changed = good;
    changed.ak_name = attestation::AkName::try_from([&[0, 11], [7; 32].as_slice()].concat().as_slice()).unwrap();
    assert_eq!(refused(&genesis(&run.core, changed)), "the attestation key");
}

#[test]
fn the_keeper_of_a_vault_states_policy_and_checkpoint() {
    let run = Run::new();
    let genesis = run.genesis();
    let started = run.start().ok().unwrap();
    let quote = run.vault_quote(&started, &genesis, |_| ());
    let (machine, keys) = (KeeperMachine::from(genesis.keeper()), EpochKeys::from(genesis.keeper()));
    let verified = started.verify_vault(&genesis, (&machine, &keys), standing(), Evidence::Tpm(quote)).ok().unwrap();
    assert_eq!((verified.statement().policy(), verified.statement().checkpoint()), (standing().policy, "checkpoint"));
}

#[test]
fn the_keeper_of_a_vault_has_exactly_the_vaults_keys_and_says_what_it_quotes() {
    let run = Run::new();
    let genesis = run.genesis();
    let changes: [fn(&mut KeeperChallenge); 6] = [
        |challenge| challenge.vault = Sha256Digest::of(b"another"),
        |challenge| challenge.wrap_key = attestation::HpkePublicKey::try_from([7; 1665].as_slice()).unwrap(),
        |challenge| challenge.log_key = attestation::LogKey::try_from([7; 32].as_slice()).unwrap(),
        |challenge| challenge.policy = Sha256Digest::of(b"another"),
        |challenge| challenge.checkpoint.push('\n'),
        |challenge| challenge.nonce[0] ^= 1,
    ];
    for change in changes {
        let started = run.start().ok().unwrap();
        let quote = run.vault_quote(&started, &genesis, change);
        let refused = refusal(started.verify_vault(
            &genesis,
            (&KeeperMachine::from(genesis.keeper()), &EpochKeys::from(genesis.keeper())),
            standing(),
            Evidence::Tpm(quote),
        ));
        assert_eq!(refused, KeeperEvidenceError::Evidence(VerifyError::ExtraDataMismatch));
    }
}

#[test]
fn genuine_evidence_for_a_genesis_does_not_speak_for_a_vault() {
    let run = Run::new();
    let genesis = run.genesis();
    let started = run.start().ok().unwrap();
    let quote = run.quote(*started.nonce(), started.credential());
    let refused = refusal(started.verify_vault(
        &genesis,
        (&KeeperMachine::from(genesis.keeper()), &EpochKeys::from(genesis.keeper())),
        standing(),
        Evidence::Tpm(quote),
    ));
    assert_eq!(refused, KeeperEvidenceError::Evidence(VerifyError::ExtraDataMismatch));
}

#[test]
fn another_attestation_key_than_the_genesis_names_is_refused_before_its_quote_is_looked_at() {
    let mut run = Run::new();
    let genesis = run.genesis();
    run.tpm = SoftTpm::ecc();
    run.identity = run.tpm.identity(&run.scene.authority, &[]);
    let started = run.start().ok().unwrap();
    let quote = run.quote(*started.nonce(), started.credential());
    let refused = refusal(started.verify_vault(
        &genesis,
        (&KeeperMachine::from(genesis.keeper()), &EpochKeys::from(genesis.keeper())),
        standing(),
        Evidence::Tpm(quote),
    ));
    assert_eq!(refused, KeeperEvidenceError::OtherKeeper { field: "the attestation key" });
}
