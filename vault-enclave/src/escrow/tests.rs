use ledger::escrow::{Custodian, EscrowPlan};
use ledger::state::Escrow;
use ring::rand::SystemRandom;

use super::*;
use crate::derive::KeeperContext;
use crate::secret::Root;

const VAULT: Sha256Digest = Sha256Digest::from_bytes([1; 32]);
const RECOVERY: Sha256Digest = Sha256Digest::from_bytes([2; 32]);

/// Two of three, split, and the custodians' pairs.
struct Split {
    keys: VaultKeys,
    plan: EscrowPlan,
    custodians: Vec<HpkeKeyPair>,
    splitting: Splitting,
}

fn split_up() -> Split {
    let rng = SystemRandom::new();
    let context = KeeperContext { instance: [9; 32], core: VAULT };
    let keys = VaultKeys::derive(&Root::generate(&rng).unwrap(), &context).unwrap();
    let custodians: Vec<HpkeKeyPair> = (0..3).map(|_| HpkeKeyPair::generate(&rng).unwrap()).collect();
    let plan = plan(&custodians, 1, 1);
    let splitting = again(&keys, &plan, &custodians);
    Split { keys, plan, custodians, splitting }
}

fn plan(custodians: &[HpkeKeyPair], number: u64, epoch: u32) -> EscrowPlan {
    let custodian = |(index, pair): (usize, &HpkeKeyPair)| Custodian {
        id: format!("custodian-{index}").parse().unwrap(),
        key: Sha256Digest::of(pair.public_key().as_bytes()),
    };
    EscrowPlan { number, epoch, threshold: 2, custodians: custodians.iter().enumerate().map(custodian).collect() }
}

fn again(keys: &VaultKeys, plan: &EscrowPlan, custodians: &[HpkeKeyPair]) -> Splitting {
    let public: Vec<HpkePublicKey> = custodians.iter().map(|pair| pair.public_key().clone()).collect();
    split(keys, VAULT, plan, &public, &SystemRandom::new()).unwrap()
}

impl Split {
    fn escrow(&self) -> Escrow {
        Escrow::of(self.plan.clone(), VAULT, Sha256Digest::of(&self.splitting.record), self.splitting.digests.clone())
    }

    fn gathering(&self) -> Gathering {
        Gathering::new(VAULT, self.escrow(), RECOVERY)
    }

    fn id(&self, index: usize) -> ShareId {
        ShareId::all(&self.plan, VAULT, Sha256Digest::of(&self.splitting.record)).remove(index)
    }

    /// The share of this custodian, from 0, as his own tool opens it.
    fn open(&self, index: usize) -> [u8; 32] {
        let mut share = [0; 32];
        let (enc, ciphertext) = self.splitting.sealed[index].split_at(wrap::ENC_BYTES);
        self.custodians[index].open(&self.id(index).info(), enc, ciphertext, &mut share).unwrap();
        share
    }

    /// And gives it to a keeper.
    fn contribute(&self, index: usize, share: &[u8; 32], to: &HpkeKeyPair) -> wrap::WrappedKeys {
        let info = self.id(index).contribution_info(RECOVERY);
        wrap::wrap(to.public_key(), &info, share, &SystemRandom::new()).unwrap()
    }
}

fn take(
    gathering: &mut Gathering,
    index: u32,
    given: &wrap::WrappedKeys,
    to: &HpkeKeyPair,
) -> Result<(), EscrowKeysError> {
    gathering.take(index, (&given.enc, &given.ciphertext), to)
}

#[test]
fn any_two_of_three_shares_give_the_keys_and_one_does_not() {
    let split = split_up();
    let to = HpkeKeyPair::generate(&SystemRandom::new()).unwrap();
    for pair in [[0, 1], [0, 2], [1, 2], [2, 0]] {
        let mut gathering = split.gathering();
        for (given, index) in pair.into_iter().enumerate() {
            assert!(!gathering.is_complete());
            let refused = gathering.open(&split.splitting.record).err();
            assert_eq!(refused, Some(EscrowKeysError::TooFew { given }));
            let share = split.contribute(index, &split.open(index), &to);
            // The same again counts once.
            for _ in 0..2 {
                take(&mut gathering, u32::try_from(index).unwrap() + 1, &share, &to).unwrap();
            }
        }
        assert!(gathering.is_complete());
        assert_eq!(gathering.custodians().count(), 2);
        let taken = VaultKeys::from_secrets(&gathering.open(&split.splitting.record).unwrap()).unwrap();
        assert_eq!(taken.identity_key(), split.keys.identity_key());
        assert_eq!(taken.log_key(), split.keys.log_key());
        assert_eq!(taken.wrap_key(), split.keys.wrap_key());
        taken.kek().with_bytes(|taken| split.keys.kek().with_bytes(|kek| assert_eq!(taken, kek)));
        gathering.wipe();
        assert!(!gathering.is_complete());
    }
}

#[test]
fn a_wrong_share_is_named_with_whoever_gave_it() {
    let split = split_up();
    let to = HpkeKeyPair::generate(&SystemRandom::new()).unwrap();
    let mut gathering = split.gathering();
    // Damaged, or made up.
    let mut damaged = split.open(1);
    damaged[31] ^= 1;
    let given = split.contribute(1, &damaged, &to);
    let refused = take(&mut gathering, 2, &given, &to).err();
    let custodian = "custodian-1".parse().unwrap();
    assert_eq!(refused, Some(EscrowKeysError::ShareWrong { index: 2, custodian }));
    // Another custodian's under his name.
    let given = split.contribute(1, &split.open(0), &to);
    assert_eq!(take(&mut gathering, 2, &given, &to).err().map(|error| error.code()), Some("share-wrong"));
    // Of a splitting of the same keys for the same custodians: the points differ.
    let other = again(&split.keys, &split.plan, &split.custodians);
    let other = Split { splitting: other, ..split_up_like(&split) };
    let given = split.contribute(0, &other.open(0), &to);
    assert_eq!(take(&mut gathering, 1, &given, &to).err().map(|error| error.code()), Some("share-wrong"));
    assert!(!gathering.is_complete() && gathering.custodians().count() == 0);
    for index in [0, 4] {
        let given = split.contribute(0, &split.open(0), &to);
        assert_eq!(take(&mut gathering, index, &given, &to), Err(EscrowKeysError::ShareUnknown { index }));
    }
}

fn split_up_like(split: &Split) -> Split {
    let custodians = (0..3).map(|index| HpkeKeyPair::from_seed(seed_of(&split.custodians[index]))).collect();
    let keys = VaultKeys::from_secrets(&split.keys.secrets().unwrap()).unwrap();
    let splitting = again(&keys, &split.plan, &split.custodians);
    Split { keys, plan: split.plan.clone(), custodians, splitting }
}

fn seed_of(pair: &HpkeKeyPair) -> crate::secret::Secret<32> {
    pair.with_seed(|seed| crate::secret::Secret::known(*seed))
}

#[test]
fn a_share_opens_for_its_custodian_vault_epoch_number_threshold_index_and_set_alone() {
    let split = split_up();
    let good = split.id(0);
    let (enc, ciphertext) = split.splitting.sealed[0].split_at(wrap::ENC_BYTES);
    let opens = |pair: &HpkeKeyPair, id: &ShareId| pair.open(&id.info(), enc, ciphertext, &mut [0; 32]).is_ok();
    assert!(opens(&split.custodians[0], &good));
    assert!(!opens(&split.custodians[1], &good));
    for other in [
        ShareId { vault: RECOVERY, ..good.clone() },
        ShareId { epoch: 2, ..good.clone() },
        ShareId { number: 2, ..good.clone() },
        ShareId { threshold: 3, ..good.clone() },
        ShareId { index: 2, ..good.clone() },
        ShareId { custodian: "somebody".parse().unwrap(), ..good.clone() },
        ShareId { set: RECOVERY, ..good.clone() },
    ] {
        assert!(!opens(&split.custodians[0], &other), "{other:?}");
    }
}

#[test]
fn a_share_is_given_to_one_keeper_for_one_recovery() {
    let split = split_up();
    let rng = SystemRandom::new();
    let (to, stranger) = (HpkeKeyPair::generate(&rng).unwrap(), HpkeKeyPair::generate(&rng).unwrap());
    let given = split.contribute(0, &split.open(0), &to);
    let refused = EscrowKeysError::ShareRefused { index: 1 };
    assert_eq!(take(&mut split.gathering(), 1, &given, &stranger), Err(refused.clone()));
    // For another recovery, or for a drill, which has another object.
    let mut other = Gathering::new(VAULT, split.escrow(), VAULT);
    assert_eq!(take(&mut other, 1, &given, &to), Err(refused.clone()));
    // Under another index.
    assert_eq!(take(&mut split.gathering(), 2, &given, &to), Err(EscrowKeysError::ShareRefused { index: 2 }));
    // Of another escrow.
    let next = plan(&split.custodians, 2, 1);
    let splitting = again(&split.keys, &next, &split.custodians);
    let next = Split { plan: next, splitting, ..split_up_like(&split) };
    assert_eq!(take(&mut next.gathering(), 1, &given, &to), Err(refused));
    assert_eq!(take(&mut split.gathering(), 1, &given, &to), Ok(()));
}

#[test]
fn the_record_opens_for_its_own_escrow_alone() {
    let split = split_up();
    let to = HpkeKeyPair::generate(&SystemRandom::new()).unwrap();
    let mut gathering = split.gathering();
    for index in [0, 1] {
        let share = split.contribute(index, &split.open(index), &to);
        take(&mut gathering, u32::try_from(index).unwrap() + 1, &share, &to).unwrap();
    }
    let mut changed = split.splitting.record.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(gathering.open(&changed).err(), Some(EscrowKeysError::OtherRecord));
    let key = gathering.key().unwrap();
    let of = (split.plan.object(VAULT), 1);
    assert!(open_escrow(&key, VAULT, of, &split.splitting.record).is_ok());
    for (vault, of) in [(RECOVERY, of), (VAULT, (RECOVERY, 1)), (VAULT, (of.0, 2))] {
        assert_eq!(open_escrow(&key, vault, of, &split.splitting.record).err(), Some(OpenError::Commitment));
    }
    let other = EscrowKey::known([7; 32]);
    assert_eq!(open_escrow(&other, VAULT, of, &split.splitting.record).err(), Some(OpenError::Commitment));
}

#[test]
fn keys_are_split_for_the_keys_that_were_approved_alone() {
    let split = split_up();
    let mut public: Vec<HpkePublicKey> = split.custodians.iter().map(|pair| pair.public_key().clone()).collect();
    public.swap(0, 1);
    let refused = super::split(&split.keys, VAULT, &split.plan, &public, &SystemRandom::new()).err();
    assert_eq!(refused, Some(EscrowKeysError::CustodianKeys));
    public.pop();
    let refused = super::split(&split.keys, VAULT, &split.plan, &public, &SystemRandom::new()).err();
    assert_eq!(refused, Some(EscrowKeysError::CustodianKeys));
}

/// In GF(256) modulo x^8 + x^4 + x^3 + x + 1, done bit by bit and without the crate.
fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b > 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = if a & 0x80 == 0 { a << 1 } else { (a << 1) ^ 0x1b };
        b >>= 1;
    }
    product
}

#[test]
fn shares_are_points_of_polynomials_whose_coefficients_are_any() {
    let rng = SystemRandom::new();
    let secret = EscrowKey::known(std::array::from_fn(|index| u8::try_from(index).unwrap() * 7));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let shares = shares_of(&secret, 2, 3, &rng).unwrap();
        let bytes: Vec<[u8; 32]> = shares.iter().map(|share| share.with_bytes(|share| *share)).collect();
        for position in 0..32 {
            let value = secret.with_bytes(|secret| secret[position]);
            let slope = value ^ bytes[0][position];
            assert_eq!(bytes[1][position], value ^ times(slope, 2));
            assert_eq!(bytes[2][position], value ^ times(slope, 3));
            seen.insert(slope);
        }
    }
    // Each of 256 is missed by 3200 with a probability of 4 in a million: one that leaves out zero tells of the secret.
    assert!(seen.contains(&0) && seen.len() > 250, "{}", seen.len());
}

#[test]
fn more_shares_than_there_are_custodians_can_not_be_asked_for() {
    let good = split_up();
    let public: Vec<HpkePublicKey> = good.custodians.iter().map(|pair| pair.public_key().clone()).collect();
    let split = |threshold| {
        let plan = EscrowPlan { threshold, ..good.plan.clone() };
        super::split(&good.keys, VAULT, &plan, &public, &SystemRandom::new()).map(drop)
    };
    assert!(split(3).is_ok());
    let error = split(4).unwrap_err();
    assert_eq!((matches!(error, EscrowKeysError::Shares), error.code()), (true, "escrow-shares"));
}
