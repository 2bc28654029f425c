//! What a derived key depends on: MSG_KEY_REQ (SEV-SNP Firmware ABI Specification, 56860, "MSG_KEY_REQ").

use std::fmt;

/// Which key of the chip a derived key comes from: ROOT_KEY_SELECT bit 0, and KEY_SEL in bits 2:1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKey {
    /// The VLEK where the host installed one, else the VCEK. All that firmware before KEY_SEL knows.
    Default,
    /// The chip's own key.
    Vcek,
    /// The key that a cloud provider loaded: the same on all its chips, so what is sealed is not bound to one.
    Vlek,
    /// The key of a migration agent.
    Vmrk,
}

impl RootKey {
    const fn select(self) -> u32 {
        match self {
            Self::Default => 0,
            Self::Vmrk => 1,
            Self::Vcek => 1 << 1,
            Self::Vlek => 2 << 1,
        }
    }

    /// Its name in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Vcek => "vcek",
            Self::Vlek => "vlek",
            Self::Vmrk => "vmrk",
        }
    }
}

/// What of the guest's identity is mixed into a key: GUEST_FIELD_SELECT, bits 0 to 3. HOST_DATA and REPORT_ID never are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestFields {
    /// The guest policy. Without it a guest that allows debugging derives the same key.
    pub policy: bool,
    /// IMAGE_ID of the ID block.
    pub image_id: bool,
    /// FAMILY_ID of the ID block.
    pub family_id: bool,
    /// The launch measurement. Without it any guest of that chip derives the same key.
    pub measurement: bool,
}

/// What to ask for. A value that is `None` is not mixed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// The key it comes from.
    pub root_key: RootKey,
    /// What of the guest's identity is mixed in.
    pub fields: GuestFields,
    /// Mixed in: at most the SVN of the guest's ID block.
    pub guest_svn: Option<u32>,
    /// Mixed in, as it stands in reports: at most the committed TCB, component by component.
    pub tcb_version: Option<[u8; 8]>,
    /// Mixed in: mitigations that were on at launch. Needs firmware 1.58 (message version 2).
    pub launch_mit_vector: Option<u64>,
    /// Privilege level of the key, 0 to 3: not more privileged than the guest's own.
    pub vmpl: u8,
}

/// A well-formed request for a derived key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRequest(KeySpec);

/// Why a request is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRequestError {
    /// There are levels 0 to 3.
    Vmpl(u8),
}

impl KeyRequest {
    /// Checks what to ask for.
    ///
    /// # Errors
    /// [`KeyRequestError`].
    pub const fn new(spec: KeySpec) -> Result<Self, KeyRequestError> {
        match spec.vmpl {
            0..=VMPL_MAX => Ok(Self(spec)),
            other => Err(KeyRequestError::Vmpl(other)),
        }
    }

    /// What is asked for.
    #[must_use]
    pub const fn spec(&self) -> &KeySpec {
        &self.0
    }

    /// 2 where a mitigation vector is mixed in, else 1, which all firmware knows.
    #[must_use]
    pub const fn message_version(&self) -> u8 {
        if self.0.launch_mit_vector.is_some() { 2 } else { 1 }
    }

    /// ROOT_KEY_SELECT u32, zeros u32, GUEST_FIELD_SELECT u64, VMPL u32, GUEST_SVN u32, TCB_VERSION u64,
    /// LAUNCH_MIT_VECTOR u64; little-endian. The last is of version 2 alone.
    #[must_use]
    pub fn encode(&self) -> [u8; 40] {
        let spec = &self.0;
        let mut bytes = [0; 40];
        bytes[..4].copy_from_slice(&spec.root_key.select().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.selected().to_le_bytes());
        bytes[16..20].copy_from_slice(&u32::from(spec.vmpl).to_le_bytes());
        bytes[20..24].copy_from_slice(&spec.guest_svn.unwrap_or(0).to_le_bytes());
        bytes[24..32].copy_from_slice(&spec.tcb_version.unwrap_or_default());
        bytes[32..].copy_from_slice(&spec.launch_mit_vector.unwrap_or(0).to_le_bytes());
        bytes
    }

    fn selected(&self) -> u64 {
        let KeySpec { fields, guest_svn, tcb_version, launch_mit_vector, .. } = &self.0;
        let bits = [
            fields.policy,
            fields.image_id,
            fields.family_id,
            fields.measurement,
            guest_svn.is_some(),
            tcb_version.is_some(),
            launch_mit_vector.is_some(),
        ];
        bits.iter().enumerate().map(|(bit, chosen)| u64::from(*chosen) << bit).sum()
    }
}

impl KeyRequestError {
    /// Stable name of the refusal.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Vmpl(_) => "snp-vmpl-range",
        }
    }
}

impl fmt::Display for KeyRequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vmpl(vmpl) => write!(f, "there is no VMPL {vmpl}: it is 0 to {VMPL_MAX}"),
        }
    }
}

impl std::error::Error for KeyRequestError {}

/// The least privileged level.
pub(super) const VMPL_MAX: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: KeySpec = KeySpec {
        root_key: RootKey::Default,
        fields: GuestFields { policy: false, image_id: false, family_id: false, measurement: false },
        guest_svn: None,
        tcb_version: None,
        launch_mit_vector: None,
        vmpl: 0,
    };

    fn encoded(spec: KeySpec) -> [u8; 40] {
        KeyRequest::new(spec).unwrap().encode()
    }

    #[test]
    fn a_request_has_the_layout_of_the_specification() {
        let all = KeySpec {
            root_key: RootKey::Vlek,
            fields: GuestFields { policy: true, image_id: true, family_id: true, measurement: true },
            guest_svn: Some(0x0403_0201),
            tcb_version: Some([1, 2, 3, 4, 5, 6, 7, 8]),
            launch_mit_vector: Some(0x1122_3344_5566_7788),
            vmpl: 3,
        };
        let expected = "04000000000000007f00000000000000030000000102030401020304050607088877665544332211";
        assert_eq!(hex::encode(encoded(all)), expected);
        assert_eq!(KeyRequest::new(all).unwrap().message_version(), 2);
        assert_eq!((encoded(NOTHING), KeyRequest::new(NOTHING).unwrap().message_version()), ([0; 40], 1));
    }

    #[test]
    fn each_field_has_its_own_bit_and_each_root_key_its_own_value() {
        let fields = GuestFields::default();
        let specs = [
            KeySpec { fields: GuestFields { policy: true, ..fields }, ..NOTHING },
            KeySpec { fields: GuestFields { image_id: true, ..fields }, ..NOTHING },
            KeySpec { fields: GuestFields { family_id: true, ..fields }, ..NOTHING },
            KeySpec { fields: GuestFields { measurement: true, ..fields }, ..NOTHING },
            KeySpec { guest_svn: Some(0), ..NOTHING },
            KeySpec { tcb_version: Some([0; 8]), ..NOTHING },
            KeySpec { launch_mit_vector: Some(0), ..NOTHING },
        ];
        for (bit, spec) in specs.into_iter().enumerate() {
            assert_eq!(encoded(spec)[8..16], (1_u64 << bit).to_le_bytes(), "{spec:?}");
        }
        let keys = [RootKey::Default, RootKey::Vmrk, RootKey::Vcek, RootKey::Vlek];
        assert_eq!(keys.map(|root_key| encoded(KeySpec { root_key, ..NOTHING })[0]), [0, 1, 2, 4]);
    }

    #[test]
    fn a_level_that_does_not_exist_is_refused() {
        assert!(KeyRequest::new(KeySpec { vmpl: 3, ..NOTHING }).is_ok());
        let refused = KeyRequest::new(KeySpec { vmpl: 4, ..NOTHING }).err().unwrap();
        assert_eq!((refused, refused.code()), (KeyRequestError::Vmpl(4), "snp-vmpl-range"));
    }
}
