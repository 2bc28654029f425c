//! A firmware image as small as one can be, for tests and for `tools/launch-digest-check`.

/// What the image says.
#[derive(Clone)]
pub(crate) struct Image {
    /// Pages of 4 KiB.
    pub(crate) pages: usize,
    /// Address, size, kind.
    pub(crate) sections: Vec<(u32, u32, u32)>,
    /// Where further vCPUs begin.
    pub(crate) reset: Option<u32>,
    /// Where the kernel hashes go.
    pub(crate) hashes: Option<u32>,
}

/// All kinds of sections, as OVMF for SEV-SNP with an SVSM has them.
pub(crate) fn full() -> Image {
    let sections = vec![
        (0x80_0000, 0x9000, 1),
        (0x80_d000, 0x1000, 2),
        (0x80_e000, 0x1000, 3),
        (0x80_f000, 0x1000, 4),
        (0x81_0000, 0x1000, 0x10),
    ];
    Image { pages: 4, sections, reset: Some(0x0080_b004), hashes: Some(0x0081_0c00) }
}

impl Image {
    /// The bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut image: Vec<u8> = (0..self.pages * 4096).map(|at| (at % 251) as u8).collect();
        let metadata_from_end = 4096;
        let mut metadata = b"ASEV".to_vec();
        let length = 16 + 12 * self.sections.len() as u32;
        metadata.extend([length, 1, self.sections.len() as u32].map(u32::to_le_bytes).concat());
        for (address, size, kind) in &self.sections {
            metadata.extend([*address, *size, *kind].map(u32::to_le_bytes).concat());
        }
        let start = image.len() - metadata_from_end;
        image[start..start + metadata.len()].copy_from_slice(&metadata);

        let mut table = Vec::new();
        let mut add = |data: u32, guid: &str| {
            table.extend(data.to_le_bytes());
            table.extend(22u16.to_le_bytes());
            table.extend(guid_bytes(guid));
        };
        add(metadata_from_end as u32, "dc886566984a4798a75e5585a7bf67cc");
        if let Some(hashes) = self.hashes {
            add(hashes, "7255371f3a3b4b04927b1da6efa8d454");
        }
        if let Some(reset) = self.reset {
            add(reset, "00f771de1a7e4fcb890e68c77e2fb44e");
        }
        let length = table.len() as u16 + 18;
        table.extend(length.to_le_bytes());
        table.extend(guid_bytes("96b582de1fb245f7baeaa366c55a082d"));
        let end = image.len() - 32;
        image[end - table.len()..end].copy_from_slice(&table);
        image
    }
}

/// Hex in the order of text to the byte order of UEFI.
fn guid_bytes(hex: &str) -> Vec<u8> {
    let bytes: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(|at: usize| bytes[at]).to_vec()
}
