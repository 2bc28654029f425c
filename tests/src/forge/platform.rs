//! A chip with SEV-SNP, and guests on it.

use super::amd::{Authorities, Issued, ORGANIZATION, Product, Tcb, Vek};
use super::keys::{VekKey, random};
use super::report::{
    ECDSA_P384_SHA384, Firmware, POLICY_RESERVED_ONE, POLICY_SMT, REPORT_LEN, Report, SigningKey, sign,
};

/// GUIDs of the certificate table (GHCB specification, 56421, 4.1.8.1), in the order of their text.
const VCEK_GUID: [u8; 16] = *b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd";
const VLEK_GUID: [u8; 16] = *b"\xa8\x07\x4b\xc2\xa2\x5a\x48\x3e\xaa\xe6\x39\xc0\x45\xa0\xb8\xa1";
const ASK_GUID: [u8; 16] = *b"\x4a\xb7\xb3\x79\xbb\xac\x4f\xe4\xa0\x2f\x05\xae\xf3\x27\xc7\x82";
const ARK_GUID: [u8; 16] = *b"\xc0\xb4\x06\xa4\xa8\x03\x49\x52\x97\x43\x3f\xb6\x01\x4c\xd0\xae";

/// A chip, the firmware on it, and those who vouch for it.
///
/// All fields are public: a bad case is a good platform with one field changed. The key that signs follows from `chip_secret`
/// (a leased one from the cloud's name), from `product` and from `reported`, as AMD's does.
#[derive(Clone, Debug)]
pub struct SoftPlatform {
    /// Decides the layout of TCBs and the names of the authorities.
    pub product: Product,
    /// What real chips have in their fuses.
    pub chip_secret: [u8; 32],
    /// Its identity. Of a Turin chip only the first eight bytes are not zero.
    pub chip_id: [u8; 64],
    /// CPUID family, model and stepping.
    pub cpuid: [u8; 3],
    /// What runs.
    pub current: Tcb,
    /// What the host can no longer go back behind.
    pub committed: Tcb,
    /// What the signing key is for; the host may set it below `current`.
    pub reported: Tcb,
    /// The firmware that runs.
    pub firmware: Firmware,
    /// The firmware that the host can no longer go back behind.
    pub committed_firmware: Firmware,
    /// `PLATFORM_INFO`: bit 0 SMT, 1 TSME, 2 ECC, 3 RAPL off, 4 ciphertext hiding, 5 alias check complete, 7 TIO.
    pub platform_info: u64,
    /// Version of its reports.
    pub report_version: u32,
    /// Mitigations that are on; versions from 5 on report it.
    pub mit_vector: u64,
    /// The host hides the chip's identity (`MASK_CHIP_ID`).
    pub mask_chip_id: bool,
    /// The host keeps the VCEK from signing (`MASK_CHIP_KEY`); reports say so and have no signature.
    pub mask_chip_key: bool,
    /// The cloud whose leased key signs in place of the chip's. Such reports have a chip id of zeros.
    pub vlek: Option<String>,
    /// Who vouches for it.
    pub authorities: Authorities,
}

impl SoftPlatform {
    /// A chip of this product line, up to date, like no other.
    pub fn new(product: Product) -> Self {
        let mut chip_id = [0; 64];
        chip_id[..product.hwid_len()].copy_from_slice(&random::<64>()[..product.hwid_len()]);
        let tcb = match product {
            Product::Milan => Tcb { fmc: 0, bootloader: 4, tee: 0, snp: 24, microcode: 219 },
            Product::Genoa => Tcb { fmc: 0, bootloader: 10, tee: 0, snp: 27, microcode: 27 },
            Product::Turin => Tcb { fmc: 1, bootloader: 2, tee: 1, snp: 4, microcode: 71 },
        };
        let firmware = Firmware { build: 29, minor: 55, major: 1 };
        Self {
            product,
            chip_secret: random(),
            chip_id,
            cpuid: product.cpuid(),
            current: tcb,
            committed: tcb,
            reported: tcb,
            firmware,
            committed_firmware: firmware,
            platform_info: 0x25,
            report_version: 5,
            mit_vector: 0x3,
            mask_chip_id: false,
            mask_chip_key: false,
            vlek: None,
            authorities: Authorities::new(product),
        }
    }

    /// The same platform with a change.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Installs newer firmware. Until [`SoftPlatform::commit`] the host can go back.
    pub fn update(&mut self, tcb: Tcb, firmware: Firmware) {
        self.current = tcb;
        self.reported = tcb;
        self.firmware = firmware;
    }

    /// `SNP_COMMIT`: the host gives up going back behind what runs.
    pub fn commit(&mut self) {
        self.committed = self.current;
        self.committed_firmware = self.firmware;
    }

    /// The key that signs now.
    pub fn vek_key(&self) -> VekKey {
        self.vek_key_for(self.reported)
    }

    /// The key that signs while this TCB is reported.
    pub fn vek_key_for(&self, reported: Tcb) -> VekKey {
        let owner = self.vlek.as_deref().unwrap_or_default().as_bytes();
        let tcb = reported.bytes(self.product);
        let label = [self.product.name().as_bytes(), b"\0", &tcb, owner].concat();
        VekKey::derive(&self.chip_secret, &label)
    }

    /// What the certificate of the signing key says.
    pub fn vek(&self) -> Vek {
        self.vek_for(self.reported)
    }

    /// What the certificate of the key for this TCB says.
    pub fn vek_for(&self, reported: Tcb) -> Vek {
        let public_key = self.vek_key_for(reported).public_key();
        match &self.vlek {
            Some(csp_id) => Vek::vlek(self.product, public_key, reported, csp_id),
            None => Vek::vcek(self.product, public_key, reported, &self.chip_id),
        }
    }

    /// The certificate of the authority over the signing key: ASK or ASVK.
    pub fn signer(&self) -> &Issued {
        match self.vlek {
            None => &self.authorities.ask,
            Some(_) => &self.authorities.asvk,
        }
    }

    /// VEK, ASK or ASVK, ARK: DER each.
    pub fn chain(&self) -> [Vec<u8>; 3] {
        [self.vek().issued().der(), self.signer().der(), self.authorities.ark.der()]
    }

    /// The report of a guest before its signature.
    pub fn report(&self, guest: &SoftGuest, report_data: [u8; 64]) -> Report {
        let masked = self.mask_chip_id || self.vlek.is_some();
        Report {
            version: self.report_version,
            guest_svn: guest.guest_svn,
            policy: guest.policy,
            family_id: guest.family_id,
            image_id: guest.image_id,
            vmpl: guest.vmpl,
            sig_algo: ECDSA_P384_SHA384,
            current_tcb: self.current.bytes(self.product),
            platform_info: self.platform_info,
            author_key_en: guest.author_key_digest != [0; 48],
            mask_chip_key: self.mask_chip_key,
            signing_key: match (self.mask_chip_key, &self.vlek) {
                (true, _) => SigningKey::None,
                (false, Some(_)) => SigningKey::Vlek,
                (false, None) => SigningKey::Vcek,
            },
            report_data,
            measurement: guest.measurement,
            host_data: guest.host_data,
            id_key_digest: guest.id_key_digest,
            author_key_digest: guest.author_key_digest,
            report_id: guest.report_id,
            report_id_ma: guest.migration_agent.unwrap_or([0xFF; 32]),
            reported_tcb: self.reported.bytes(self.product),
            cpuid: self.cpuid,
            chip_id: if masked { [0; 64] } else { self.chip_id },
            committed_tcb: self.committed.bytes(self.product),
            current: self.firmware,
            committed: self.committed_firmware,
            launch_tcb: guest.launch_tcb.unwrap_or(self.current).bytes(self.product),
            launch_mit_vector: guest.launch_mit_vector.unwrap_or(self.mit_vector),
            current_mit_vector: self.mit_vector,
        }
    }

    /// The signed report of a guest.
    pub fn signed_report(&self, guest: &SoftGuest, report_data: [u8; 64]) -> [u8; REPORT_LEN] {
        self.report(guest, report_data).sign(&self.vek_key())
    }

    /// As [`SoftPlatform::signed_report`], with a change made before it is signed: any field, or none that has a name.
    pub fn signed_after(
        &self,
        guest: &SoftGuest,
        report_data: [u8; 64],
        change: impl FnOnce(&mut [u8; REPORT_LEN]),
    ) -> [u8; REPORT_LEN] {
        let mut bytes = self.report(guest, report_data).encode();
        change(&mut bytes);
        sign(&mut bytes, &self.vek_key());
        bytes
    }

    /// The certificate table that a host gives along with a report: entries of GUID (16 bytes), offset and length (little-endian
    /// u32 each), an entry of zeros, then the certificates (GHCB specification, 56421, 4.1.8.1).
    pub fn certificate_table(&self) -> Vec<u8> {
        let vek_guid = if self.vlek.is_some() { VLEK_GUID } else { VCEK_GUID };
        let guids = [vek_guid, ASK_GUID, ARK_GUID];
        let chain = self.chain();
        let mut offset = 24 * (guids.len() + 1);
        let mut table = Vec::new();
        for (guid, certificate) in guids.iter().zip(&chain) {
            table.extend_from_slice(guid);
            table.extend_from_slice(&(offset as u32).to_le_bytes());
            table.extend_from_slice(&(certificate.len() as u32).to_le_bytes());
            offset += certificate.len();
        }
        table.extend_from_slice(&[0; 24]);
        table.extend(chain.concat());
        table
    }
}

/// A guest: what was decided about it at launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoftGuest {
    /// What its owner allows.
    pub policy: u64,
    /// Launch digest.
    pub measurement: [u8; 48],
    /// What the host said at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed its ID block; zeros without one.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that signed that key; zeros without one.
    pub author_key_digest: [u8; 48],
    /// From its ID block. A soft guest has [`ORGANIZATION`] there, so that a person who sees the report is warned.
    pub family_id: [u8; 16],
    /// From its ID block.
    pub image_id: [u8; 16],
    /// From its ID block.
    pub guest_svn: u32,
    /// The TCB at its launch; `None` is the one that runs.
    pub launch_tcb: Option<Tcb>,
    /// Mitigations at its launch; `None` are those of now.
    pub launch_mit_vector: Option<u64>,
    /// Its privilege level.
    pub vmpl: u32,
    /// Of this launch alone.
    pub report_id: [u8; 32],
    /// The report id of its migration agent.
    pub migration_agent: Option<[u8; 32]>,
}

impl SoftGuest {
    /// A guest with this measurement and a production policy, just launched.
    pub fn new(measurement: [u8; 48]) -> Self {
        let mut family_id = [0; 16];
        family_id[..ORGANIZATION.len()].copy_from_slice(ORGANIZATION.as_bytes());
        Self {
            policy: POLICY_RESERVED_ONE | POLICY_SMT,
            measurement,
            host_data: [0; 32],
            id_key_digest: [0; 48],
            author_key_digest: [0; 48],
            family_id,
            image_id: [0; 16],
            guest_svn: 0,
            launch_tcb: None,
            launch_mit_vector: None,
            vmpl: 0,
            report_id: random(),
            migration_agent: None,
        }
    }

    /// The same guest with a change.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}
