//! TPMS_ATTEST with a quote in it, field by field.

use attestation::Sha256Digest;

use super::public::sized;

/// An attestation; [`Attest::bytes`] writes it down as it stands, right or wrong.
#[derive(Clone)]
pub struct Attest {
    pub magic: u32,
    pub kind: u16,
    pub signer: Vec<u8>,
    pub extra_data: Vec<u8>,
    pub clock: u64,
    pub reset_count: u32,
    pub restart_count: u32,
    pub safe: u8,
    pub firmware_version: u64,
    /// Bank and octets of each TPMS_PCR_SELECTION.
    pub selections: Vec<(u16, Vec<u8>)>,
    pub pcr_digest: Vec<u8>,
}

impl Attest {
    /// A quote over these PCRs of the SHA-256 bank.
    pub fn quote(extra_data: &[u8], pcrs: &[(u32, [u8; 32])]) -> Self {
        let mut octets = vec![0; 3];
        for (index, _) in pcrs {
            octets[*index as usize / 8] |= 1 << (index % 8);
        }
        let values: Vec<u8> = pcrs.iter().flat_map(|(_, value)| *value).collect();
        Self {
            magic: 0xff54_4347,
            kind: 0x8018,
            signer: [&[0x00, 0x0b], [0x51; 32].as_slice()].concat(),
            extra_data: extra_data.to_vec(),
            clock: 86_400_000,
            reset_count: 7,
            restart_count: 1,
            safe: 1,
            firmware_version: 0x2019_1023_0016_3636,
            selections: vec![(0x000b, octets)],
            pcr_digest: Sha256Digest::of(&values).as_bytes().to_vec(),
        }
    }

    /// TPMS_ATTEST.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_be_bytes().to_vec();
        out.extend(self.kind.to_be_bytes());
        out.extend(sized(&self.signer));
        out.extend(sized(&self.extra_data));
        out.extend(self.clock.to_be_bytes());
        out.extend(self.reset_count.to_be_bytes());
        out.extend(self.restart_count.to_be_bytes());
        out.push(self.safe);
        out.extend(self.firmware_version.to_be_bytes());
        out.extend(u32::try_from(self.selections.len()).expect("few").to_be_bytes());
        for (bank, octets) in &self.selections {
            out.extend(bank.to_be_bytes());
            out.push(u8::try_from(octets.len()).expect("few"));
            out.extend(octets);
        }
        out.extend(sized(&self.pcr_digest));
        out
    }
}
