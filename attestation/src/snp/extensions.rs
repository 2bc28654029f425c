//! What AMD writes into a VCEK or VLEK (AMD 57230, "VCEK Certificate Extensions", 1.3.6.1.4.1.3704.1).

use der::Decode;
use der::asn1::{Ia5StringRef, OctetStringRef};
use der::oid::ObjectIdentifier;
use x509_cert::ext::Extension;

use super::fields::SigningKey;
use super::tcb::{SnpProduct, TcbVersion};
use crate::error::SnpError;

const STRUCT_VERSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.1");
const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
const BOOTLOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
const TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
const SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
const RESERVED_SPLS: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.4"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.5"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.6"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.7"),
];
const MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
const FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
const CSP_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");

/// The most bytes of a cloud's name.
const CSP_ID_BYTES_MAX: usize = 256;
/// STRUCT_VERSION in use: 0, and 1 on Turin.
const STRUCT_VERSION_MAX: u8 = 1;

/// The extensions of a leaf, as they stand; what fits together is checked by [`LeafExtensions::subject`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeafExtensions {
    pub(crate) product: SnpProduct,
    pub(crate) tcb: TcbVersion,
    hardware_id: Option<Vec<u8>>,
    csp_id: Option<String>,
}

/// Whom a leaf is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeafSubject {
    /// CHIP_ID of a report: 64 bytes, on Turin 8 and zeros.
    Chip([u8; 64]),
    /// The name of a cloud.
    Csp(String),
}

impl LeafExtensions {
    pub(crate) fn read(extensions: &[Extension]) -> Result<Self, SnpError> {
        let reader = Extensions(extensions);
        if reader.number(STRUCT_VERSION, "structure version")? > STRUCT_VERSION_MAX {
            return Err(SnpError::LeafExtensionMalformed { extension: "structure version" });
        }
        for id in RESERVED_SPLS {
            if reader.get(id).is_some() && reader.number(id, "reserved patch level")? != 0 {
                return Err(SnpError::LeafExtensionMalformed { extension: "reserved patch level" });
            }
        }
        let product = reader.product()?;
        let fmc = match product {
            SnpProduct::Turin => Some(reader.number(FMC, "FMC patch level")?),
            SnpProduct::Milan | SnpProduct::Genoa => {
                reader.absent(FMC, "FMC patch level")?;
                None
            }
        };
        Ok(Self {
            product,
            tcb: TcbVersion {
                fmc,
                bootloader: reader.number(BOOTLOADER, "boot loader patch level")?,
                tee: reader.number(TEE, "TEE patch level")?,
                snp: reader.number(SNP, "SNP patch level")?,
                microcode: reader.number(MICROCODE, "microcode patch level")?,
            },
            hardware_id: reader.get(HARDWARE_ID).map(<[u8]>::to_vec),
            csp_id: reader.csp_id()?,
        })
    }

    /// Whom the leaf is of: a VCEK names a chip and no cloud, a VLEK a cloud and no chip.
    pub(crate) fn subject(self, kind: SigningKey) -> Result<LeafSubject, SnpError> {
        let (hardware_id, cloud) = ("hardware id", "cloud");
        match (kind, self.hardware_id, self.csp_id) {
            (SigningKey::Vcek, Some(id), None) => read_hardware_id(&id, self.product).map(LeafSubject::Chip),
            (SigningKey::Vlek, None, Some(csp)) => Ok(LeafSubject::Csp(csp)),
            (SigningKey::Vcek, None, _) => Err(SnpError::LeafExtensionMissing { extension: hardware_id }),
            (SigningKey::Vcek, Some(_), Some(_)) => Err(SnpError::LeafExtensionUnexpected { extension: cloud }),
            (SigningKey::Vlek, Some(_), _) => Err(SnpError::LeafExtensionUnexpected { extension: hardware_id }),
            (SigningKey::Vlek, None, None) => Err(SnpError::LeafExtensionMissing { extension: cloud }),
        }
    }
}

/// 64 bytes, on Turin 8; bare, as in every certificate of AMD's seen so far, or inside an OCTET STRING.
fn read_hardware_id(value: &[u8], product: SnpProduct) -> Result<[u8; 64], SnpError> {
    let length = match product {
        SnpProduct::Milan | SnpProduct::Genoa => 64,
        SnpProduct::Turin => 8,
    };
    let bare = if value.len() == length {
        value
    } else {
        match <&OctetStringRef>::from_der(value) {
            Ok(inner) if inner.as_bytes().len() == length => inner.as_bytes(),
            Ok(_) | Err(_) => return Err(SnpError::LeafExtensionMalformed { extension: "hardware id" }),
        }
    };
    let mut chip = [0; 64];
    chip[..length].copy_from_slice(bare);
    Ok(chip)
}

/// The extensions of one certificate; that none stands twice was checked before.
struct Extensions<'a>(&'a [Extension]);

impl<'a> Extensions<'a> {
    fn get(&self, id: ObjectIdentifier) -> Option<&'a [u8]> {
        self.0.iter().find(|extension| extension.extn_id == id).map(|extension| extension.extn_value.as_bytes())
    }

    /// An INTEGER of 0 to 255.
    fn number(&self, id: ObjectIdentifier, extension: &'static str) -> Result<u8, SnpError> {
        let value = self.get(id).ok_or(SnpError::LeafExtensionMissing { extension })?;
        u8::from_der(value).map_err(|_| SnpError::LeafExtensionMalformed { extension })
    }

    fn absent(&self, id: ObjectIdentifier, extension: &'static str) -> Result<(), SnpError> {
        match self.get(id) {
            Some(_) => Err(SnpError::LeafExtensionUnexpected { extension }),
            None => Ok(()),
        }
    }

    /// `Milan`, or `Milan-B0` with the stepping.
    fn product(&self) -> Result<SnpProduct, SnpError> {
        let extension = "product";
        let value = self.get(PRODUCT_NAME).ok_or(SnpError::LeafExtensionMissing { extension })?;
        let malformed = SnpError::LeafExtensionMalformed { extension };
        let name = Ia5StringRef::from_der(value).map_err(|_| malformed)?;
        let line = name.as_str().split_once('-').map_or(name.as_str(), |(line, _stepping)| line);
        line.parse().map_err(|_| malformed)
    }

    /// Printable ASCII.
    fn csp_id(&self) -> Result<Option<String>, SnpError> {
        let Some(value) = self.get(CSP_ID) else { return Ok(None) };
        let malformed = SnpError::LeafExtensionMalformed { extension: "cloud" };
        let name = Ia5StringRef::from_der(value).map_err(|_| malformed)?.as_str();
        let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if name.is_empty() || name.len() > CSP_ID_BYTES_MAX || !name.bytes().all(printable) {
            return Err(malformed);
        }
        Ok(Some(name.to_owned()))
    }
}
