//! ATTESTATION_REPORT, read over the raw bytes: nothing is re-encoded, and no byte is left out.

use std::fmt;
use std::ops::Range;

use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use super::fields::{CpuId, FirmwareVersion, GuestPolicy, KeyInfo, PlatformInfo};
use super::tcb::{self, SnpProduct, TcbVersion};
use crate::error::SnpError;

/// Bytes of a report of every version.
pub const SNP_REPORT_BYTES: usize = 1184;

/// The bytes that are signed: up to the signature.
const SIGNED_BYTES: usize = 0x2a0;
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=5;
/// ECDSA on P-384 with SHA-384.
const ECDSA_P384_SHA384: u32 = 1;
/// The four TCB versions.
const TCBS: [usize; 4] = [CURRENT_TCB, REPORTED_TCB, COMMITTED_TCB, LAUNCH_TCB];

const CURRENT_TCB: usize = 0x038;
const REPORTED_TCB: usize = 0x180;
const COMMITTED_TCB: usize = 0x1e0;
const LAUNCH_TCB: usize = 0x1f0;

/// A report whose size, version, algorithm, product and reserved bytes are as they must be. **That anyone signed it is
/// not shown by this type**: [`EndorsedReport`](super::EndorsedReport) shows that.
///
/// Offsets are those of the SEV-SNP Firmware ABI (AMD 56860), Table ATTESTATION_REPORT; all numbers are little-endian.
///
/// A signature (r, s) over a message has a twin (r, n − s): two reports that differ in their bytes can be the same
/// statement. Nothing may take the digest of a report for an identity.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    raw: Box<[u8; SNP_REPORT_BYTES]>,
    product: SnpProduct,
    key_info: KeyInfo,
}

impl Report {
    /// Reads exactly one report.
    ///
    /// From version 3 on a report names its processor, and `product` must be that one where it is given. A report of
    /// version 2 does not: `product`, which comes from the chain that verifies, says how its TCB versions are laid out.
    ///
    /// # Errors
    ///
    /// Wrong length, version, signature algorithm or signing key; an unknown or another product; a reserved byte or bit
    /// that is not as it must be, anywhere, so that every byte of a report counts.
    pub fn parse(bytes: &[u8], product: Option<SnpProduct>) -> Result<Self, SnpError> {
        Frame::parse(bytes)?.with_product(product)
    }

    /// All 1184 bytes, as they were sent.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; SNP_REPORT_BYTES] {
        &self.raw
    }

    /// The product that it is from, which says how its TCB versions are laid out.
    #[must_use]
    pub const fn product(&self) -> SnpProduct {
        self.product
    }

    /// 000h, 4 bytes. VERSION: 2 to 5.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.u32(0x000)
    }

    /// 004h, 4 bytes. GUEST_SVN: security version of the guest, out of its ID block.
    #[must_use]
    pub fn guest_svn(&self) -> u32 {
        self.u32(0x004)
    }

    /// 008h, 8 bytes. POLICY.
    #[must_use]
    pub fn policy(&self) -> GuestPolicy {
        GuestPolicy::from_bits(self.u64(0x008))
    }

    /// 010h, 16 bytes. FAMILY_ID, out of the ID block.
    #[must_use]
    pub fn family_id(&self) -> &[u8; 16] {
        self.field(0x010)
    }

    /// 020h, 16 bytes. IMAGE_ID, out of the ID block.
    #[must_use]
    pub fn image_id(&self) -> &[u8; 16] {
        self.field(0x020)
    }

    /// 030h, 4 bytes. VMPL that the report was asked for at.
    #[must_use]
    pub fn vmpl(&self) -> u32 {
        self.u32(0x030)
    }

    /// 034h, 4 bytes. SIGNATURE_ALGO: always 1, ECDSA on P-384 with SHA-384.
    #[must_use]
    pub fn signature_algorithm(&self) -> u32 {
        self.u32(0x034)
    }

    /// 038h, 8 bytes. CURRENT_TCB: what runs now.
    #[must_use]
    pub fn current_tcb(&self) -> TcbVersion {
        self.tcb(CURRENT_TCB)
    }

    /// 040h, 8 bytes. PLATFORM_INFO.
    #[must_use]
    pub fn platform_info(&self) -> PlatformInfo {
        PlatformInfo::from_bits(self.u64(0x040))
    }

    /// 048h, 4 bytes. AUTHOR_KEY_EN, MASK_CHIP_KEY and SIGNING_KEY.
    #[must_use]
    pub const fn key_info(&self) -> KeyInfo {
        self.key_info
    }

    /// 050h, 64 bytes. REPORT_DATA: what the guest put in.
    #[must_use]
    pub fn report_data(&self) -> &[u8; 64] {
        self.field(0x050)
    }

    /// 090h, 48 bytes. MEASUREMENT: digest of what was launched.
    #[must_use]
    pub fn measurement(&self) -> &[u8; 48] {
        self.field(0x090)
    }

    /// 0C0h, 32 bytes. HOST_DATA: chosen by the host, fixed at launch.
    #[must_use]
    pub fn host_data(&self) -> &[u8; 32] {
        self.field(0x0c0)
    }

    /// 0E0h, 48 bytes. ID_KEY_DIGEST: SHA-384 of the key that signed the ID block.
    #[must_use]
    pub fn id_key_digest(&self) -> &[u8; 48] {
        self.field(0x0e0)
    }

    /// 110h, 48 bytes. AUTHOR_KEY_DIGEST: SHA-384 of the key that signed the ID key; zero where there is none.
    #[must_use]
    pub fn author_key_digest(&self) -> &[u8; 48] {
        self.field(0x110)
    }

    /// 140h, 32 bytes. REPORT_ID of this guest.
    #[must_use]
    pub fn report_id(&self) -> &[u8; 32] {
        self.field(0x140)
    }

    /// 160h, 32 bytes. REPORT_ID_MA: of its migration agent; all ones where there is none.
    #[must_use]
    pub fn report_id_ma(&self) -> &[u8; 32] {
        self.field(0x160)
    }

    /// 180h, 8 bytes. REPORTED_TCB: the one that the signing key was derived for.
    #[must_use]
    pub fn reported_tcb(&self) -> TcbVersion {
        self.tcb(REPORTED_TCB)
    }

    /// 188h, 3 bytes. CPUID_FAM_ID, CPUID_MOD_ID, CPUID_STEP; from version 3 on.
    #[must_use]
    pub fn cpuid(&self) -> Option<CpuId> {
        let [family, model, stepping] = *self.field(0x188);
        (self.version() >= 3).then_some(CpuId { family, model, stepping })
    }

    /// 1A0h, 64 bytes. CHIP_ID: on Turin 8 bytes and zeros; all zero where the host masks it.
    #[must_use]
    pub fn chip_id(&self) -> &[u8; 64] {
        self.field(0x1a0)
    }

    /// 1E0h, 8 bytes. COMMITTED_TCB: the host cannot go back below it.
    #[must_use]
    pub fn committed_tcb(&self) -> TcbVersion {
        self.tcb(COMMITTED_TCB)
    }

    /// 1E8h, 3 bytes. CURRENT_BUILD, CURRENT_MINOR, CURRENT_MAJOR: the firmware that runs now.
    #[must_use]
    pub fn current_version(&self) -> FirmwareVersion {
        self.firmware_version(0x1e8)
    }

    /// 1ECh, 3 bytes. COMMITTED_BUILD, COMMITTED_MINOR, COMMITTED_MAJOR: the host cannot go back below it.
    #[must_use]
    pub fn committed_version(&self) -> FirmwareVersion {
        self.firmware_version(0x1ec)
    }

    /// 1F0h, 8 bytes. LAUNCH_TCB: what ran when the guest was launched or imported.
    #[must_use]
    pub fn launch_tcb(&self) -> TcbVersion {
        self.tcb(LAUNCH_TCB)
    }

    /// 1F8h, 8 bytes. LAUNCH_MIT_VECTOR: mitigations in force when the guest was launched; from version 5 on.
    #[must_use]
    pub fn launch_mit_vector(&self) -> Option<u64> {
        (self.version() >= 5).then(|| self.u64(0x1f8))
    }

    /// 200h, 8 bytes. CURRENT_MIT_VECTOR: mitigations in force now; from version 5 on.
    #[must_use]
    pub fn current_mit_vector(&self) -> Option<u64> {
        (self.version() >= 5).then(|| self.u64(0x200))
    }

    /// Whether the host can still go back to the firmware that it has committed: what runs now and what is committed
    /// differ in TCB or firmware version.
    #[must_use]
    pub fn is_provisional(&self) -> bool {
        self.current_tcb() != self.committed_tcb() || self.current_version() != self.committed_version()
    }

    /// 2A0h: r and s, each 48 of 72 bytes little-endian; here as r‖s of 48 bytes each, big-endian.
    #[must_use]
    pub fn signature(&self) -> [u8; 96] {
        let mut fixed = [0; 96];
        let (r, s) = fixed.split_at_mut(48);
        r.copy_from_slice(self.field::<48>(0x2a0));
        s.copy_from_slice(self.field::<48>(0x2e8));
        r.reverse();
        s.reverse();
        fixed
    }

    /// Checks the signature over the bytes as sent, under an uncompressed SEC1 point of P-384.
    pub(crate) fn check_signature(&self, point: &[u8]) -> Result<(), SnpError> {
        let (signed, _) = self.raw.split_at(SIGNED_BYTES);
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
            .verify(signed, &self.signature())
            .map_err(|_| SnpError::ReportSignatureInvalid)
    }

    fn tcb(&self, offset: usize) -> TcbVersion {
        TcbVersion::read(self.field(offset), self.product)
    }

    /// Build, minor, major.
    fn firmware_version(&self, offset: usize) -> FirmwareVersion {
        let [build, minor, major] = *self.field(offset);
        FirmwareVersion { major, minor, build }
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(*self.field(offset))
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(*self.field(offset))
    }

    fn field<const N: usize>(&self, offset: usize) -> &[u8; N] {
        field(&self.raw, offset)
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Report(version {}, {}, {})", self.version(), self.product, hex::encode(self.measurement()))
    }
}

/// What can be checked before the product is known.
pub(crate) struct Frame {
    raw: Box<[u8; SNP_REPORT_BYTES]>,
    key_info: KeyInfo,
}

impl Frame {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SnpError> {
        let raw: &[u8; SNP_REPORT_BYTES] =
            bytes.try_into().map_err(|_| SnpError::ReportLength { found: bytes.len() })?;
        let u32_at = |offset| u32::from_le_bytes(*field(raw, offset));
        let u64_at = |offset| u64::from_le_bytes(*field(raw, offset));
        let version = u32_at(0x000);
        if !VERSIONS.contains(&version) {
            return Err(SnpError::ReportVersion { found: version });
        }
        let algorithm = u32_at(0x034);
        if algorithm != ECDSA_P384_SHA384 {
            return Err(SnpError::ReportSignatureAlgorithm { found: algorithm });
        }
        let key_info = KeyInfo::read(u32_at(0x048))?;
        GuestPolicy::from_bits(u64_at(0x008)).check_reserved()?;
        PlatformInfo::from_bits(u64_at(0x040)).check_reserved()?;
        for range in reserved(version) {
            check_zero(raw, range)?;
        }
        Ok(Self { raw: Box::new(*raw), key_info })
    }

    pub(crate) const fn key_info(&self) -> KeyInfo {
        self.key_info
    }

    pub(crate) fn with_product(self, product: Option<SnpProduct>) -> Result<Report, SnpError> {
        let [version, ..] = *self.raw;
        let product = if version == 2 {
            product.ok_or(SnpError::ReportProductUnknown)?
        } else {
            let [family, model] = *field(&self.raw, 0x188);
            let named = SnpProduct::of_cpu(family, model).ok_or(SnpError::CpuUnknown { family, model })?;
            match product {
                Some(expected) if expected != named => {
                    return Err(SnpError::ReportProductMismatch { chain: expected, report: named });
                }
                Some(_) | None => named,
            }
        };
        let Range { start, end } = tcb::reserved(product);
        for tcb in TCBS {
            check_zero(&self.raw, tcb + start..tcb + end)?;
        }
        Ok(Report { raw: self.raw, product, key_info: self.key_info })
    }
}

/// The bytes that have no meaning in this version, apart from those inside the TCB versions.
fn reserved(version: u32) -> [Range<usize>; 8] {
    let cpuid_end = if version >= 3 { 0x18b } else { 0x188 };
    let last_field_end = if version >= 5 { 0x208 } else { 0x1f8 };
    [
        0x04c..0x050,
        cpuid_end..0x1a0,
        0x1eb..0x1ec,
        0x1ef..0x1f0,
        last_field_end..SIGNED_BYTES,
        // r and s have 384 bits; these bytes are not signed, so anyone could change them.
        0x2d0..0x2e8,
        0x318..0x330,
        0x330..SNP_REPORT_BYTES,
    ]
}

fn check_zero(raw: &[u8; SNP_REPORT_BYTES], range: Range<usize>) -> Result<(), SnpError> {
    match range.clone().find(|&offset| raw[offset] != 0) {
        Some(offset) => Err(SnpError::ReportReservedNotZero { offset }),
        None => Ok(()),
    }
}

/// `offset` + `N` is at most the length, for every field of the layout.
fn field<const N: usize>(raw: &[u8; SNP_REPORT_BYTES], offset: usize) -> &[u8; N] {
    raw[offset..].first_chunk().expect("a field of the layout lies within the report")
}
