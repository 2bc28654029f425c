//! Attestation reports, versions 2 to 5 (SEV-SNP Firmware ABI Specification, 56860, ATTESTATION_REPORT).

use super::amd::{Product, Tcb};
use super::keys::VekKey;

/// Bytes of a report.
pub const REPORT_LEN: usize = 1184;
/// Bytes that the signature covers.
pub const SIGNED_LEN: usize = 0x2A0;
/// `sig_algo`: ECDSA P-384 with SHA-384.
pub const ECDSA_P384_SHA384: u32 = 1;

/// `policy`: the bit that is always one.
pub const POLICY_RESERVED_ONE: u64 = 1 << 17;
/// `policy`: simultaneous multithreading may be on.
pub const POLICY_SMT: u64 = 1 << 16;
/// `policy`: a migration agent may be associated.
pub const POLICY_MIGRATE_MA: u64 = 1 << 18;
/// `policy`: the host may read the guest's memory.
pub const POLICY_DEBUG: u64 = 1 << 19;
/// `policy`: one socket only.
pub const POLICY_SINGLE_SOCKET: u64 = 1 << 20;

/// Which key signed: `SIGNING_KEY` of `key_info`, bits 4:2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// The chip's.
    Vcek,
    /// The cloud's.
    Vlek,
    /// None: the signature field is zero.
    None,
    /// Any other number.
    Other(u8),
}

/// A version of the firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Firmware {
    /// Build number.
    pub build: u8,
    /// Minor version of its ABI.
    pub minor: u8,
    /// Major version of its ABI.
    pub major: u8,
}

/// Every field of a report. Where `version` has no room for a field, it is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// 0x000: 2 to 5.
    pub version: u32,
    /// 0x004: security version of the guest, from its ID block.
    pub guest_svn: u32,
    /// 0x008: what the guest's owner allows.
    pub policy: u64,
    /// 0x010: from the ID block.
    pub family_id: [u8; 16],
    /// 0x020: from the ID block.
    pub image_id: [u8; 16],
    /// 0x030: privilege level that the report was asked for.
    pub vmpl: u32,
    /// 0x034: 1 is ECDSA P-384 with SHA-384.
    pub sig_algo: u32,
    /// 0x038: what runs.
    pub current_tcb: [u8; 8],
    /// 0x040: posture of the platform.
    pub platform_info: u64,
    /// 0x048, bit 0: the ID block's key has an author key over it.
    pub author_key_en: bool,
    /// 0x048, bit 1: the guest gets no signature of the VCEK.
    pub mask_chip_key: bool,
    /// 0x048, bits 4:2.
    pub signing_key: SigningKey,
    /// 0x050: what the guest asked to have signed.
    pub report_data: [u8; 64],
    /// 0x090: launch digest.
    pub measurement: [u8; 48],
    /// 0x0C0: what the host said at launch.
    pub host_data: [u8; 32],
    /// 0x0E0: SHA-384 of the key that signed the ID block.
    pub id_key_digest: [u8; 48],
    /// 0x110: SHA-384 of the key that signed that key.
    pub author_key_digest: [u8; 48],
    /// 0x140: of this guest, until it ends.
    pub report_id: [u8; 32],
    /// 0x160: of its migration agent; all ones without one.
    pub report_id_ma: [u8; 32],
    /// 0x180: what the signing key is for.
    pub reported_tcb: [u8; 8],
    /// 0x188, from version 3 on: CPUID family, model and stepping.
    pub cpuid: [u8; 3],
    /// 0x1A0: of the chip; zeros if masked.
    pub chip_id: [u8; 64],
    /// 0x1E0: what the host can no longer go back behind.
    pub committed_tcb: [u8; 8],
    /// 0x1E8: what runs.
    pub current: Firmware,
    /// 0x1EC: what the host can no longer go back behind.
    pub committed: Firmware,
    /// 0x1F0: what ran at launch.
    pub launch_tcb: [u8; 8],
    /// 0x1F8, from version 5 on: mitigations at launch.
    pub launch_mit_vector: u64,
    /// 0x200, from version 5 on: mitigations now.
    pub current_mit_vector: u64,
}

impl Report {
    /// The report with a signature of zeros.
    pub fn encode(&self) -> [u8; REPORT_LEN] {
        let mut out = [0; REPORT_LEN];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x000, &self.version.to_le_bytes());
        put(0x004, &self.guest_svn.to_le_bytes());
        put(0x008, &self.policy.to_le_bytes());
        put(0x010, &self.family_id);
        put(0x020, &self.image_id);
        put(0x030, &self.vmpl.to_le_bytes());
        put(0x034, &self.sig_algo.to_le_bytes());
        put(0x038, &self.current_tcb);
        put(0x040, &self.platform_info.to_le_bytes());
        put(0x048, &self.key_info().to_le_bytes());
        put(0x050, &self.report_data);
        put(0x090, &self.measurement);
        put(0x0C0, &self.host_data);
        put(0x0E0, &self.id_key_digest);
        put(0x110, &self.author_key_digest);
        put(0x140, &self.report_id);
        put(0x160, &self.report_id_ma);
        put(0x180, &self.reported_tcb);
        if self.version >= 3 {
            put(0x188, &self.cpuid);
        }
        put(0x1A0, &self.chip_id);
        put(0x1E0, &self.committed_tcb);
        put(0x1E8, &[self.current.build, self.current.minor, self.current.major]);
        put(0x1EC, &[self.committed.build, self.committed.minor, self.committed.major]);
        put(0x1F0, &self.launch_tcb);
        if self.version >= 5 {
            put(0x1F8, &self.launch_mit_vector.to_le_bytes());
            put(0x200, &self.current_mit_vector.to_le_bytes());
        }
        out
    }

    /// The report, signed. One that says it is signed by no key gets no signature.
    pub fn sign(&self, key: &VekKey) -> [u8; REPORT_LEN] {
        let mut bytes = self.encode();
        if self.signing_key != SigningKey::None {
            sign(&mut bytes, key);
        }
        bytes
    }

    /// Sets all four TCBs, for a platform that has never been updated.
    pub fn set_tcb(&mut self, tcb: Tcb, product: Product) {
        let bytes = tcb.bytes(product);
        self.current_tcb = bytes;
        self.reported_tcb = bytes;
        self.committed_tcb = bytes;
        self.launch_tcb = bytes;
    }

    fn key_info(&self) -> u32 {
        let signing_key = match self.signing_key {
            SigningKey::Vcek => 0,
            SigningKey::Vlek => 1,
            SigningKey::None => 7,
            SigningKey::Other(number) => u32::from(number),
        };
        u32::from(self.author_key_en) | u32::from(self.mask_chip_key) << 1 | signing_key << 2
    }
}

/// Signs a report anew, whatever a test has written into it.
pub fn sign(report: &mut [u8; REPORT_LEN], key: &VekKey) {
    let signature = key.sign(&report[..SIGNED_LEN]);
    put_signature(report, &signature);
}

/// Writes r and s (48 bytes each, big-endian) as the report has them: little-endian, in 72 bytes each, then zeros.
pub fn put_signature(report: &mut [u8; REPORT_LEN], signature: &[u8; 96]) {
    report[SIGNED_LEN..].fill(0);
    for (half, at) in signature.chunks_exact(48).zip([SIGNED_LEN, SIGNED_LEN + 72]) {
        let little_endian = half.iter().rev();
        report[at..at + 48].iter_mut().zip(little_endian).for_each(|(to, from)| *to = *from);
    }
}
