//! What a report needs beside itself, what AMD's key service calls it, and where a store keeps it. Names alone: nothing
//! is read or fetched here (`vault-proto` does), and what was fetched is checked in `collateral_check`.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use super::fields::SigningKey;
use super::report::Frame;
use super::tcb::{SnpProduct, TcbComponent, TcbVersion};
use crate::error::{CollateralError, SnpError};

/// One object that a verifier needs and that is the same for many reports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CollateralKey {
    /// The certificate of a chip's key for one TCB. Never changes.
    Vcek(VcekId),
    /// ASK or ASVK, and ARK. Changes when AMD renews one.
    Chain(ChainId),
    /// What the ARK has revoked. Ends at its nextUpdate.
    Crl(ChainId),
}

/// Which chain of authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId {
    /// Whose root.
    pub product: SnpProduct,
    /// Whether the ASK is in it, or the ASVK.
    pub signing_key: SigningKey,
}

/// Whose VCEK, and for which TCB: the key follows from both.
///
/// Written `Milan 0123…ef bootloader=3 tee=0 snp=8 microcode=115`, as a line of a list of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VcekId {
    product: SnpProduct,
    chip_id: [u8; 64],
    tcb: TcbVersion,
}

/// Bytes of the chip id of a Turin; the rest of the 64 are zero (AMD 57230).
const TURIN_CHIP_BYTES: usize = 8;
/// The most bytes of `cert_chain`: two certificates of at most 4 KiB, as text.
const CHAIN_BYTES_MAX: usize = 16 * 1024;

impl VcekId {
    /// Of a chip of this product. `chip_id` is CHIP_ID of its reports.
    ///
    /// # Errors
    /// [`CollateralError::ChipMasked`], [`CollateralError::ChipId`], [`CollateralError::Tcb`].
    pub fn new(product: SnpProduct, chip_id: [u8; 64], tcb: TcbVersion) -> Result<Self, CollateralError> {
        if chip_id == [0; 64] {
            return Err(CollateralError::ChipMasked);
        }
        let is_turin = product == SnpProduct::Turin;
        if is_turin && chip_id[TURIN_CHIP_BYTES..] != [0; 64 - TURIN_CHIP_BYTES] {
            return Err(CollateralError::ChipId);
        }
        if tcb.fmc.is_some() != is_turin {
            return Err(CollateralError::Tcb);
        }
        Ok(Self { product, chip_id, tcb })
    }

    /// Whose VCEK signed a report, by what the report says of itself: at least one. A report of version 2 does not say
    /// whether it is of Milan or Genoa, so there are two; on Turin the chip id shows it.
    ///
    /// # Errors
    /// [`CollateralError::Report`], [`CollateralError::ChipMasked`], [`CollateralError::VlekNotServed`].
    pub fn of_report(report: &[u8]) -> Result<Vec<Self>, CollateralError> {
        let frame = || Frame::parse(report).map_err(CollateralError::Report);
        match frame()?.key_info().signing_key {
            SigningKey::Vcek => {}
            SigningKey::Vlek => return Err(CollateralError::VlekNotServed),
        }
        let of = |product| {
            let report = frame()?.with_product(product).map_err(CollateralError::Report)?;
            Self::new(report.product(), *report.chip_id(), report.reported_tcb())
        };
        match of(None) {
            Err(CollateralError::Report(SnpError::ReportProductUnknown)) => {
                let turin = of(Some(SnpProduct::Turin));
                if turin.is_ok() {
                    return Ok(vec![turin?]);
                }
                [SnpProduct::Milan, SnpProduct::Genoa].into_iter().map(|product| of(Some(product))).collect()
            }
            only => Ok(vec![only?]),
        }
    }

    /// The product.
    #[must_use]
    pub const fn product(&self) -> SnpProduct {
        self.product
    }

    /// CHIP_ID of its reports: 64 bytes, on Turin 8 and zeros.
    #[must_use]
    pub const fn chip_id(&self) -> &[u8; 64] {
        &self.chip_id
    }

    /// The TCB that the key is for.
    #[must_use]
    pub const fn tcb(&self) -> &TcbVersion {
        &self.tcb
    }

    /// The authorities that its certificate needs.
    #[must_use]
    pub const fn chain(&self) -> ChainId {
        ChainId { product: self.product, signing_key: SigningKey::Vcek }
    }

    /// Lower-case hex as the key service wants it: 128 digits, on Turin 16.
    fn chip_hex(&self) -> String {
        let length = chip_bytes(self.product);
        self.chip_id.iter().take(length).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// `{name}{level}` for every component, in the service's order and with its two digits.
    fn levels(&self, names: [&str; 5], between: &str) -> String {
        let parts = TcbComponent::ALL.into_iter().zip(names);
        let parts = parts.filter_map(|(component, name)| Some(format!("{name}{:02}", self.tcb.component(component)?)));
        parts.collect::<Vec<_>>().join(between)
    }

    fn parse(product: &str, chip: &str, levels: &[(&str, &str)]) -> Result<Self, CollateralError> {
        let product = product.parse().map_err(|_| CollateralError::Product)?;
        let bytes = hex::decode(chip).map_err(|_| CollateralError::ChipId)?;
        let mut chip_id = [0; 64];
        if bytes.len() != chip_bytes(product) && bytes.len() != chip_id.len() {
            return Err(CollateralError::ChipId);
        }
        chip_id.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
        let level = |component: TcbComponent| {
            let mut found = levels.iter().filter(|(name, _)| *name == component.as_str());
            match (found.next(), found.next()) {
                (Some((_, level)), None) => level.parse().map(Some).map_err(|_| CollateralError::Tcb),
                (None, _) => Ok(None),
                (Some(_), Some(_)) => Err(CollateralError::Tcb),
            }
        };
        let required = |component| level(component)?.ok_or(CollateralError::Tcb);
        let tcb = TcbVersion {
            fmc: level(TcbComponent::Fmc)?,
            bootloader: required(TcbComponent::Bootloader)?,
            tee: required(TcbComponent::Tee)?,
            snp: required(TcbComponent::Snp)?,
            microcode: required(TcbComponent::Microcode)?,
        };
        if levels.len() != 4 + usize::from(tcb.fmc.is_some()) {
            return Err(CollateralError::Tcb);
        }
        Self::new(product, chip_id, tcb)
    }
}

impl FromStr for VcekId {
    type Err = CollateralError;

    /// Reads a line of a list of hosts: what `Display` writes, in any order of the components, and a Turin's chip id
    /// with or without its zeros.
    fn from_str(line: &str) -> Result<Self, CollateralError> {
        let mut words = line.split_ascii_whitespace();
        let (product, chip) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let levels: Option<Vec<(&str, &str)>> = words.map(|word| word.split_once('=')).collect();
        Self::parse(product, chip, &levels.ok_or(CollateralError::Tcb)?)
    }
}

impl fmt::Display for VcekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.product, self.chip_hex(), self.tcb)
    }
}

impl CollateralKey {
    /// Path and query below the service's address (AMD 57230): levels are decimal with two digits, Turin has `fmcSPL`.
    #[must_use]
    pub fn url_path(&self) -> String {
        match self {
            Self::Vcek(id) => {
                let names = ["fmcSPL=", "blSPL=", "teeSPL=", "snpSPL=", "ucodeSPL="];
                format!("/vcek/v1/{}/{}?{}", id.product, id.chip_hex(), id.levels(names, "&"))
            }
            Self::Chain(ChainId { product, signing_key }) => format!("/{signing_key}/v1/{product}/cert_chain"),
            Self::Crl(ChainId { product, signing_key }) => format!("/{signing_key}/v1/{product}/crl"),
        }
    }

    /// Where a store keeps it, below its directory, with `/` between: `Milan/{chip}/bl03_tee00_snp08_ucode115.vcek.der`
    /// (Turin: `fmc00_` first), `Milan/vcek.chain.pem`, `Milan/vcek.crl.der`.
    #[must_use]
    pub fn store_path(&self) -> String {
        match self {
            Self::Vcek(id) => {
                let levels = id.levels(["fmc", "bl", "tee", "snp", "ucode"], "_");
                format!("{}/{}/{levels}{VCEK_END}", id.product, id.chip_hex())
            }
            Self::Chain(ChainId { product, signing_key }) => format!("{product}/{signing_key}.chain.pem"),
            Self::Crl(ChainId { product, signing_key }) => format!("{product}/{signing_key}.crl.der"),
        }
    }

    /// What a store keeps at this path; nothing for a file that is no store's.
    #[must_use]
    pub fn from_store_path(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let key = match parts[..] {
            [product, chip, file] => {
                let names =
                    [("fmc", "fmc"), ("bl", "bootloader"), ("tee", "tee"), ("snp", "snp"), ("ucode", "microcode")];
                let level = |part: &'static str, text: &str| Some((part, text.to_owned()));
                let read = |text: &str| {
                    let (short, long) = names.iter().find(|(short, _)| {
                        text.strip_prefix(short).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
                    })?;
                    level(long, text.strip_prefix(short)?)
                };
                let levels: Option<Vec<_>> = file.strip_suffix(VCEK_END)?.split('_').map(read).collect();
                let levels = levels?;
                let levels: Vec<(&str, &str)> = levels.iter().map(|(name, level)| (*name, level.as_str())).collect();
                Self::Vcek(VcekId::parse(product, chip, &levels).ok()?)
            }
            [product, file] => {
                let id = |signing_key| Some(ChainId { product: product.parse().ok()?, signing_key });
                match file {
                    "vcek.chain.pem" => Self::Chain(id(SigningKey::Vcek)?),
                    "vlek.chain.pem" => Self::Chain(id(SigningKey::Vlek)?),
                    "vcek.crl.der" => Self::Crl(id(SigningKey::Vcek)?),
                    "vlek.crl.der" => Self::Crl(id(SigningKey::Vlek)?),
                    _ => return None,
                }
            }
            _ => return None,
        };
        // One object has one name: what is written otherwise would be read under two.
        (key.store_path() == path).then_some(key)
    }

    /// The most bytes that it can have.
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        match self {
            Self::Vcek(_) => crate::certificate::CERTIFICATE_BYTES_MAX,
            Self::Chain(_) => CHAIN_BYTES_MAX,
            Self::Crl(_) => super::crl::CRL_BYTES_MAX,
        }
    }

    /// The authorities that it is checked by, or that it is.
    #[must_use]
    pub const fn chain(&self) -> ChainId {
        match self {
            Self::Vcek(id) => id.chain(),
            Self::Chain(id) | Self::Crl(id) => *id,
        }
    }
}

impl fmt::Display for CollateralKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcek(id) => write!(f, "the VCEK of {id}"),
            Self::Chain(ChainId { product, signing_key }) => write!(f, "the {signing_key} chain of {product}"),
            Self::Crl(ChainId { product, signing_key }) => write!(f, "the {signing_key} revocation list of {product}"),
        }
    }
}

const VCEK_END: &str = ".vcek.der";

const fn chip_bytes(product: SnpProduct) -> usize {
    match product {
        SnpProduct::Milan | SnpProduct::Genoa => 64,
        SnpProduct::Turin => TURIN_CHIP_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHIP: &str = "0f1e";

    fn milan() -> String {
        format!("Milan {} bootloader=3 tee=0 snp=8 microcode=115", CHIP.repeat(32))
    }

    fn turin() -> String {
        format!("Turin {} fmc=1 bootloader=2 tee=0 snp=12 microcode=219", CHIP.repeat(4))
    }

    fn refusal(line: &str) -> CollateralError {
        line.parse::<VcekId>().unwrap_err()
    }

    #[test]
    fn line_of_a_list_of_hosts_is_written_as_it_is_read() {
        for line in [milan(), turin()] {
            assert_eq!(line.parse::<VcekId>().unwrap().to_string(), line);
        }
        let padded = turin().replace(" fmc", &format!("{} fmc", "0".repeat(112)));
        assert_eq!(padded.parse::<VcekId>(), turin().parse());
    }

    #[test]
    fn service_is_asked_as_amd_describes() {
        let path = |line: String| CollateralKey::Vcek(line.parse().unwrap()).url_path();
        let chip = CHIP.repeat(32);
        assert_eq!(path(milan()), format!("/vcek/v1/Milan/{chip}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115"));
        let wanted = "/vcek/v1/Turin/0f1e0f1e0f1e0f1e?fmcSPL=01&blSPL=02&teeSPL=00&snpSPL=12&ucodeSPL=219";
        assert_eq!(path(turin()), wanted);
        let id = ChainId { product: SnpProduct::Genoa, signing_key: SigningKey::Vlek };
        assert_eq!(CollateralKey::Chain(id).url_path(), "/vlek/v1/Genoa/cert_chain");
        assert_eq!(CollateralKey::Crl(id).url_path(), "/vlek/v1/Genoa/crl");
    }

    #[test]
    fn store_has_one_name_for_each_object() {
        let of = |signing_key| ChainId { product: SnpProduct::Turin, signing_key };
        let keys = [
            CollateralKey::Vcek(milan().parse().unwrap()),
            CollateralKey::Vcek(turin().parse().unwrap()),
            CollateralKey::Chain(of(SigningKey::Vcek)),
            CollateralKey::Crl(of(SigningKey::Vlek)),
        ];
        for key in &keys {
            assert_eq!(CollateralKey::from_store_path(&key.store_path()).as_ref(), Some(key));
        }
        let vcek = keys[0].store_path();
        assert!(vcek.ends_with("/bl03_tee00_snp08_ucode115.vcek.der"), "{vcek}");
        let others = [vcek.replace("bl03", "bl3"), vcek.replace("0f1e", "0F1E"), vcek.replace("Milan", "Rome")];
        for other in others.iter().map(String::as_str).chain(["", "Milan", "../vcek.crl.der", "Milan/vcek.crl.pem"]) {
            assert_eq!(CollateralKey::from_store_path(other), None, "{other}");
        }
    }

    #[test]
    fn what_names_no_chip_at_a_tcb_is_refused() {
        assert_eq!(refusal(""), CollateralError::Product);
        assert_eq!(refusal(&milan().replace("Milan", "Rome")), CollateralError::Product);
        assert_eq!(refusal(&milan().replacen("0f", "", 1)), CollateralError::ChipId);
        assert_eq!(refusal(&milan().replacen("0f", "xx", 1)), CollateralError::ChipId);
        assert_eq!(refusal(&milan().replace("0f1e", "0000")), CollateralError::ChipMasked);
        let too_long = turin().replace(" fmc", &format!("{}01 fmc", "0".repeat(110)));
        assert_eq!(refusal(&too_long), CollateralError::ChipId);
        let wrong = [
            milan().replace(" tee=0", ""),
            milan().replace("tee=0", "tee=256"),
            milan().replace("tee=0", "tee"),
            milan() + " tee=0",
            milan() + " fmc=0",
            milan() + " other=0",
            turin().replace("fmc=1 ", ""),
        ];
        for wrong in wrong {
            assert_eq!(refusal(&wrong), CollateralError::Tcb, "{wrong}");
        }
        assert_eq!(CollateralError::ChipMasked.code(), "collateral-chip-masked");
    }
}
