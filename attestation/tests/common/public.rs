//! TPMT_PUBLIC of an attestation key, field by field.

/// The attributes of our own AK template: fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted,
/// sign.
pub const AK_ATTRIBUTES: u32 = 0x0005_0472;

/// A public area; [`AkPublic::bytes`] writes it down as it stands, right or wrong.
#[derive(Clone)]
pub struct AkPublic {
    pub kind: u16,
    pub name_algorithm: u16,
    pub attributes: u32,
    pub auth_policy: Vec<u8>,
    pub symmetric: u16,
    pub scheme: u16,
    pub hash: u16,
    pub parameters: Parameters,
    /// x and y, or the modulus: each a TPM2B.
    pub unique: Vec<Vec<u8>>,
}

/// What follows the scheme.
#[derive(Clone)]
pub enum Parameters {
    Ecc { curve: u16, kdf: u16 },
    Rsa { bits: u16, exponent: u32 },
}

impl AkPublic {
    /// ECDSA over P-256 with SHA-256; `point` is `04`, x, y.
    pub fn ecc(point: &[u8]) -> Self {
        Self {
            kind: 0x0023,
            name_algorithm: 0x000b,
            attributes: AK_ATTRIBUTES,
            auth_policy: Vec::new(),
            symmetric: 0x0010,
            scheme: 0x0018,
            hash: 0x000b,
            parameters: Parameters::Ecc { curve: 0x0003, kdf: 0x0010 },
            unique: vec![point[1..33].to_vec(), point[33..65].to_vec()],
        }
    }

    /// RSASSA with SHA-256.
    pub fn rsa(modulus: &[u8]) -> Self {
        Self {
            kind: 0x0001,
            scheme: 0x0014,
            parameters: Parameters::Rsa { bits: 2048, exponent: 0 },
            unique: vec![modulus.to_vec()],
            ..Self::ecc(&[4; 65])
        }
    }

    /// TPMT_PUBLIC.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = [self.kind.to_be_bytes(), self.name_algorithm.to_be_bytes()].concat();
        out.extend(self.attributes.to_be_bytes());
        out.extend(sized(&self.auth_policy));
        for field in [self.symmetric, self.scheme, self.hash] {
            out.extend(field.to_be_bytes());
        }
        match self.parameters {
            Parameters::Ecc { curve, kdf } => out.extend([curve.to_be_bytes(), kdf.to_be_bytes()].concat()),
            Parameters::Rsa { bits, exponent } => {
                out.extend(bits.to_be_bytes());
                out.extend(exponent.to_be_bytes());
            }
        }
        out.extend(self.unique.iter().flat_map(|part| sized(part)));
        out
    }
}

/// A TPM2B.
pub fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short");
    [&length.to_be_bytes(), bytes].concat()
}
