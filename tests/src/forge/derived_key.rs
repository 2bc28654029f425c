//! Derived keys: MSG_KEY_REQ and MSG_KEY_RSP (SEV-SNP Firmware ABI Specification, 56860; kernel: `struct snp_derived_key_req`).
//!
//! What the specification leaves to the firmware is HKDF-SHA384 here. HOST_DATA and REPORT_ID are never mixed in, nor is the
//! TCB, unless it is selected: a firmware update changes a key only if the request says so.

use super::keys::expand;
use super::platform::{SoftGuest, SoftPlatform};

/// GUEST_FIELD_SELECT: mix the policy in.
pub const MIX_POLICY: u64 = 1;
/// GUEST_FIELD_SELECT: mix the image id in.
pub const MIX_IMAGE_ID: u64 = 1 << 1;
/// GUEST_FIELD_SELECT: mix the family id in.
pub const MIX_FAMILY_ID: u64 = 1 << 2;
/// GUEST_FIELD_SELECT: mix the launch digest in.
pub const MIX_MEASUREMENT: u64 = 1 << 3;
/// GUEST_FIELD_SELECT: mix the request's SVN in.
pub const MIX_GUEST_SVN: u64 = 1 << 4;
/// GUEST_FIELD_SELECT: mix the request's TCB in.
pub const MIX_TCB: u64 = 1 << 5;
/// GUEST_FIELD_SELECT: mix the request's mitigation vector in; requests of version 2 only.
pub const MIX_LAUNCH_MIT_VECTOR: u64 = 1 << 6;

/// Bytes of a request of version 1; of version 2 they are eight more.
pub const REQUEST_LEN: usize = 32;
/// Bytes of an answer: status, 28 of zeros, key.
pub const RESPONSE_LEN: usize = 64;
const VMPL_MAX: u32 = 3;

/// What a guest asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyRequest {
    /// Bit 0: 0 is the VCEK (or VLEK, where one is loaded), 1 the migration agent's key. Bits 2:1 (KEY_SEL): 0 as just said,
    /// 1 the VCEK, 2 the VLEK.
    pub root_key_select: u32,
    /// What is mixed in: the `MIX_` bits.
    pub guest_field_select: u64,
    /// Privilege level to derive for: not more privileged than the guest's own.
    pub vmpl: u32,
    /// At most that of launch.
    pub guest_svn: u32,
    /// At most the committed one, part by part. As in a report.
    pub tcb_version: [u8; 8],
    /// Version 2 of the request has it. Only mitigations that were on at launch.
    pub launch_mit_vector: Option<u64>,
}

impl KeyRequest {
    /// `root_key_select` u32, zeros u32, `guest_field_select` u64, `vmpl` u32, `guest_svn` u32, `tcb_version` u64, and with
    /// version 2 `launch_mit_vector` u64; little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.root_key_select.to_le_bytes().to_vec();
        out.extend([0; 4]);
        out.extend(self.guest_field_select.to_le_bytes());
        out.extend(self.vmpl.to_le_bytes());
        out.extend(self.guest_svn.to_le_bytes());
        out.extend(self.tcb_version);
        out.extend(self.launch_mit_vector.iter().flat_map(|vector| vector.to_le_bytes()));
        out
    }

    /// The inverse of [`KeyRequest::encode`]; the length says the version.
    ///
    /// # Errors
    /// [`KeyRefusal::InvalidParameter`]: another length, or reserved bytes that are not zero.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyRefusal> {
        let (first, launch_mit_vector) = match bytes.split_at_checked(REQUEST_LEN) {
            Some((first, [])) => (first, None),
            Some((first, rest)) => (first, Some(u64::from_le_bytes(field(rest, 0)?))),
            None => return Err(KeyRefusal::InvalidParameter),
        };
        if bytes.len() > REQUEST_LEN + 8 || field::<4>(first, 4)? != [0; 4] {
            return Err(KeyRefusal::InvalidParameter);
        }
        Ok(Self {
            root_key_select: u32::from_le_bytes(field(first, 0)?),
            guest_field_select: u64::from_le_bytes(field(first, 8)?),
            vmpl: u32::from_le_bytes(field(first, 16)?),
            guest_svn: u32::from_le_bytes(field(first, 20)?),
            tcb_version: field(first, 24)?,
            launch_mit_vector,
        })
    }
}

/// Why the firmware derives no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    /// Status 0x16.
    InvalidParameter,
    /// Status 0x27: there is no such root key.
    InvalidKeySelect,
}

impl KeyRefusal {
    /// The status in MSG_KEY_RSP.
    pub fn status(self) -> u32 {
        match self {
            Self::InvalidParameter => 0x16,
            Self::InvalidKeySelect => 0x27,
        }
    }
}

/// The answer in bytes: status u32, 28 of zeros, the key or zeros.
pub fn response(result: Result<[u8; 32], KeyRefusal>) -> [u8; RESPONSE_LEN] {
    let mut out = [0; RESPONSE_LEN];
    match result {
        Ok(key) => out[32..].copy_from_slice(&key),
        Err(refusal) => out[..4].copy_from_slice(&refusal.status().to_le_bytes()),
    }
    out
}

impl SoftPlatform {
    /// Derives a key for a guest.
    ///
    /// # Errors
    /// What the firmware refuses.
    pub fn derive_key(&self, guest: &SoftGuest, request: &KeyRequest) -> Result<[u8; 32], KeyRefusal> {
        let root = self.root_key(guest, request.root_key_select)?;
        self.check(guest, request)?;
        let mixed = |bit: u64| request.guest_field_select & bit != 0;
        let mut info = request.guest_field_select.to_le_bytes().to_vec();
        info.extend(request.vmpl.to_le_bytes());
        let fields: [(u64, &[u8]); 7] = [
            (MIX_POLICY, &guest.policy.to_le_bytes()),
            (MIX_IMAGE_ID, &guest.image_id),
            (MIX_FAMILY_ID, &guest.family_id),
            (MIX_MEASUREMENT, &guest.measurement),
            (MIX_GUEST_SVN, &request.guest_svn.to_le_bytes()),
            (MIX_TCB, &request.tcb_version),
            (MIX_LAUNCH_MIT_VECTOR, &request.launch_mit_vector.unwrap_or_default().to_le_bytes()),
        ];
        for (bit, field) in fields {
            // Each field has its place, selected or not, so that no two selections have the same layout.
            let unselected = vec![0; field.len()];
            info.extend_from_slice(if mixed(bit) { field } else { &unselected });
        }
        let mut key = [0; 32];
        expand(&self.chip_secret, &root, &[&info], &mut key);
        Ok(key)
    }

    fn root_key(&self, guest: &SoftGuest, select: u32) -> Result<Vec<u8>, KeyRefusal> {
        let vlek = |csp: &String| [b"derived key, vlek\0", csp.as_bytes()].concat();
        match (select & 1, select >> 1) {
            // A migration agent's key is of the agent, not of the chip; without one there is none.
            (1, 0) => {
                let agent = guest.migration_agent.ok_or(KeyRefusal::InvalidKeySelect)?;
                Ok([b"derived key, vmrk\0".as_slice(), &agent].concat())
            }
            (0, 0) => Ok(self.vlek.as_ref().map_or(b"derived key, vcek\0".to_vec(), vlek)),
            (0, 1) => Ok(b"derived key, vcek\0".to_vec()),
            (0, 2) => self.vlek.as_ref().map(vlek).ok_or(KeyRefusal::InvalidKeySelect),
            _ => Err(KeyRefusal::InvalidParameter),
        }
    }

    fn check(&self, guest: &SoftGuest, request: &KeyRequest) -> Result<(), KeyRefusal> {
        let known =
            if request.launch_mit_vector.is_some() { MIX_LAUNCH_MIT_VECTOR << 1 } else { MIX_LAUNCH_MIT_VECTOR };
        let tcb = super::amd::Tcb::from_bytes(request.tcb_version, self.product);
        let at_launch = guest.launch_mit_vector.unwrap_or(self.mit_vector);
        let holds = request.guest_field_select < known
            && (guest.vmpl..=VMPL_MAX).contains(&request.vmpl)
            && request.guest_svn <= guest.guest_svn
            && tcb.is_some_and(|tcb| tcb.is_at_most(self.committed))
            && request.launch_mit_vector.unwrap_or_default() & !at_launch == 0;
        if holds { Ok(()) } else { Err(KeyRefusal::InvalidParameter) }
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], KeyRefusal> {
    let bytes = bytes.get(at..at + N).ok_or(KeyRefusal::InvalidParameter)?;
    bytes.try_into().map_err(|_| KeyRefusal::InvalidParameter)
}
