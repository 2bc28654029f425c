//! Derived keys have AMD's rules.

use proptest::prelude::*;
use vault_tests::forge::amd::{Product, Tcb};
use vault_tests::forge::derived_key::{
    KeyRefusal, KeyRequest, MIX_FAMILY_ID, MIX_GUEST_SVN, MIX_IMAGE_ID, MIX_LAUNCH_MIT_VECTOR, MIX_MEASUREMENT,
    MIX_POLICY, MIX_TCB, response,
};
use vault_tests::forge::platform::{SoftGuest, SoftPlatform};

const COMMITTED: Tcb = Tcb { fmc: 2, bootloader: 5, tee: 1, snp: 20, microcode: 70 };
const MIXES: u64 = 0x7F;

fn platform(product: Product) -> SoftPlatform {
    SoftPlatform::new(product).with(|platform| {
        platform.current = Tcb { snp: 22, ..COMMITTED };
        platform.committed = COMMITTED;
        platform.mit_vector = 0b0111;
    })
}

fn guest() -> SoftGuest {
    SoftGuest::new([7; 48]).with(|guest| {
        guest.guest_svn = 4;
        guest.vmpl = 1;
    })
}

fn products() -> impl Strategy<Value = Product> {
    proptest::sample::select(Product::ALL.to_vec())
}

prop_compose! {
    /// A request that the firmware grants, with any selection of fields.
    fn requests()(
        product in products(), select in 0..=MIXES, vmpl in 1u32..=3, guest_svn in 0u32..=4, snp in 0u8..=20, mit in 0u64..8,
    ) -> (Product, KeyRequest) {
        let tcb_version = Tcb { snp, fmc: if product == Product::Turin { 2 } else { 0 }, ..COMMITTED }.bytes(product);
        let launch_mit_vector = Some(mit);
        (product, KeyRequest { guest_field_select: select, vmpl, guest_svn, tcb_version, launch_mit_vector, ..KeyRequest::default() })
    }
}

proptest! {
    #[test]
    fn the_same_request_gets_the_same_key((product, request) in requests()) {
        let (platform, guest) = (platform(product), guest());
        let key = platform.derive_key(&guest, &request).unwrap();
        prop_assert_eq!(platform.derive_key(&guest, &request), Ok(key));
        // A new launch of the same guest, by another host, gets it too.
        let again = guest.clone().with(|guest| { guest.report_id = [1; 32]; guest.host_data = [2; 32]; });
        prop_assert_eq!(platform.derive_key(&again, &request), Ok(key));
        // And so does one after an update, whether or not it is committed.
        let updated = platform.clone().with(|it| {
            it.update(Tcb { microcode: 90, ..it.current }, it.firmware);
            it.commit();
        });
        prop_assert_eq!(updated.derive_key(&guest, &request), Ok(key));
        let other = platform.with(|it| it.chip_secret[3] ^= 1);
        prop_assert_ne!(other.derive_key(&guest, &request), Ok(key));
    }

    #[test]
    fn a_field_counts_exactly_if_it_is_selected((product, request) in requests()) {
        let (platform, guest) = (platform(product), guest());
        let key = platform.derive_key(&guest, &request).unwrap();
        let change = |change: fn(&mut SoftGuest)| platform.derive_key(&guest.clone().with(change), &request).unwrap();
        let ask = |change: fn(&mut KeyRequest)| {
            let mut other = request;
            change(&mut other);
            platform.derive_key(&guest, &other).unwrap()
        };
        let tcb = KeyRequest { tcb_version: [0; 8], ..request };
        let others = [
            (MIX_POLICY, change(|guest| guest.policy ^= 1 << 20)),
            (MIX_IMAGE_ID, change(|guest| guest.image_id[15] ^= 1)),
            (MIX_FAMILY_ID, change(|guest| guest.family_id[15] ^= 1)),
            (MIX_MEASUREMENT, change(|guest| guest.measurement[47] ^= 1)),
            (MIX_GUEST_SVN, ask(|request| request.guest_svn = (request.guest_svn + 1) % 5)),
            (MIX_TCB, platform.derive_key(&guest, &tcb).unwrap()),
            (MIX_LAUNCH_MIT_VECTOR, ask(|request| request.launch_mit_vector = request.launch_mit_vector.map(|it| it ^ 1))),
        ];
        for (bit, other) in others {
            prop_assert_eq!(request.guest_field_select & bit != 0, key != other, "bit {:#x}", bit);
        }
        let vmpl = ask(|request| request.vmpl = 1 + request.vmpl % 3);
        prop_assert_ne!(key, vmpl);
    }

    #[test]
    fn no_two_selections_give_one_key((product, request) in requests(), other in 0..=MIXES) {
        prop_assume!(other != request.guest_field_select);
        let (platform, guest) = (platform(product), guest());
        let other = KeyRequest { guest_field_select: other, ..request };
        prop_assert_ne!(platform.derive_key(&guest, &request), platform.derive_key(&guest, &other));
    }

    #[test]
    fn a_request_comes_back_from_its_bytes((_, request) in requests(), version_2 in any::<bool>()) {
        let request = KeyRequest { launch_mit_vector: request.launch_mit_vector.filter(|_| version_2), ..request };
        prop_assert_eq!(KeyRequest::decode(&request.encode()), Ok(request));
        prop_assert_eq!(request.encode().len(), if version_2 { 40 } else { 32 });
    }

    #[test]
    fn any_bytes_are_a_request_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..48)) {
        if let Ok(request) = KeyRequest::decode(&bytes) {
            prop_assert_eq!(request.encode(), bytes);
        }
    }
}

/// What a good guest on a Milan gets when it changes one thing in a good request.
fn refusal(change: impl FnOnce(&mut KeyRequest)) -> Result<[u8; 32], KeyRefusal> {
    let mut request =
        KeyRequest { vmpl: 1, guest_svn: 4, tcb_version: COMMITTED.bytes(Product::Milan), ..KeyRequest::default() };
    assert!(platform(Product::Milan).derive_key(&guest(), &request).is_ok());
    change(&mut request);
    platform(Product::Milan).derive_key(&guest(), &request)
}

#[test]
fn what_the_firmware_refuses() {
    let invalid = Err(KeyRefusal::InvalidParameter);
    assert_eq!(refusal(|request| request.vmpl = 0), invalid, "more privileged than the guest");
    assert_eq!(refusal(|request| request.vmpl = 4), invalid);
    assert_eq!(refusal(|request| request.guest_svn = 5), invalid, "more than at launch");
    for part in [0, 1, 6, 7] {
        assert_eq!(refusal(|request| request.tcb_version[part] += 1), invalid, "more than committed: {part}");
    }
    assert_eq!(refusal(|request| request.tcb_version[3] = 1), invalid, "reserved");
    assert_eq!(refusal(|request| request.launch_mit_vector = Some(0b1000)), invalid, "not on at launch");
    assert_eq!(refusal(|request| request.guest_field_select = MIX_LAUNCH_MIT_VECTOR), invalid, "version 1 has none");
    assert_eq!(refusal(|request| request.guest_field_select = 1 << 7), invalid);
    assert_eq!(refusal(|request| request.root_key_select = 1 << 3), invalid);
    let no_key = Err(KeyRefusal::InvalidKeySelect);
    assert_eq!(refusal(|request| request.root_key_select = 1), no_key, "there is no migration agent");
    assert_eq!(refusal(|request| request.root_key_select = 2 << 1), no_key, "there is no VLEK");
    assert_eq!(response(no_key)[..4], [0x27, 0, 0, 0]);
    assert_eq!(response(invalid)[..4], [0x16, 0, 0, 0]);
}

#[test]
fn each_root_has_its_own_keys() {
    let request = |root_key_select| KeyRequest { vmpl: 1, root_key_select, ..KeyRequest::default() };
    let milan = platform(Product::Milan);
    let leased = milan.clone().with(|it| it.vlek = Some("CN=cloud.invalid".to_owned()));
    let agent = guest().with(|guest| guest.migration_agent = Some([5; 32]));
    let key = |platform: &SoftPlatform, select| platform.derive_key(&agent, &request(select)).unwrap();
    assert_eq!(key(&milan, 0), key(&milan, 1 << 1), "the VCEK by default");
    assert_eq!(key(&leased, 0), key(&leased, 2 << 1), "the VLEK where one is loaded");
    assert_eq!(key(&leased, 1 << 1), key(&milan, 0));
    assert_ne!(key(&leased, 0), key(&milan, 0));
    assert_ne!(key(&milan, 1), key(&milan, 0));
}
