//! `vaultctl propose reseal`

use std::path::PathBuf;

use clap::Args;

use super::Signing;

/// `vaultctl propose reseal`
#[derive(Debug, Args)]
pub struct ProposeResealArgs {
    /// What `vaultctl measure pcr` prints for the boot to come, with or without --json. PCRs that `[keeper]` of the first
    /// policy does not name are left out. One that is given nowhere is the one value that the policy in force allows.
    #[arg(long, value_name = "FILE", required_unless_present = "pcr")]
    pub pcrs: Option<PathBuf>,
    /// One PCR of the boot to come: its index and 64 hex digits. Can be repeated.
    #[arg(long, value_name = "INDEX=HEX", value_parser = pcr)]
    pub pcr: Vec<(u32, [u8; 32])>,
    /// Launch digest of the keeper's guest, where the root is sealed to its chip too: it stays what it is, the TPM's boot
    /// state alone changes.
    #[arg(long, value_name = "HEX", value_parser = measurement)]
    pub measurement: Option<[u8; 48]>,
    /// How to sign.
    #[command(flatten)]
    pub signing: Signing,
}

fn pcr(text: &str) -> Result<(u32, [u8; 32]), String> {
    let malformed = || "write index=value, such as 4=…: 0 to 23, and 64 lower-case hex digits".to_owned();
    let (index, value) = text.split_once('=').ok_or_else(malformed)?;
    let index = (0..24).find(|known: &u32| known.to_string() == index).ok_or_else(malformed)?;
    Ok((index, hex_of(value).ok_or_else(malformed)?))
}

fn measurement(text: &str) -> Result<[u8; 48], String> {
    hex_of(text).ok_or_else(|| "write 96 lower-case hex digits".to_owned())
}

/// Exactly `N` bytes in lower-case hex.
pub(crate) fn hex_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let lower = !text.bytes().any(|digit| digit.is_ascii_uppercase());
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pcr_is_an_index_and_a_value() {
        let value = "ab".repeat(32);
        assert_eq!(pcr(&format!("11={value}")), Ok((11, [0xab; 32])));
        let upper = format!("11={}", value.to_uppercase());
        for wrong in ["", "11", "11=", "=", "24=", "011=", &format!("24={value}"), &format!("11={value}0"), &upper] {
            assert!(pcr(wrong).is_err(), "{wrong}");
        }
        assert!(measurement(&"cd".repeat(48)).is_ok() && measurement(&"cd".repeat(32)).is_err());
    }
}
