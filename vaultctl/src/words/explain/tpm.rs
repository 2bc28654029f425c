//! What a TPM says.

use attestation::{AttestationKey, EkPublic, QuoteStatement, Sha256Digest, TpmIdentity};

use super::{Explained, Section};
use crate::print::span;

const SHA256: u16 = 0x000b;
/// What PCRs 17 to 22 hold until a dynamic launch.
const NEVER_LAUNCHED: [u8; 32] = [0xff; 32];

/// Every field of a quote.
pub fn explain_quote(quote: &QuoteStatement) -> Section {
    let banks: Vec<String> = quote
        .banks
        .iter()
        .map(|bank| {
            let indices: Vec<String> = bank.indices.iter().map(ToString::to_string).collect();
            format!("bank {:#06x}: {}", bank.algorithm, indices.join(" "))
        })
        .collect();
    let only_sha256 = matches!(quote.banks.as_slice(), [bank] if bank.algorithm == SHA256);
    let clock = format!("{} ms ({})", quote.clock, span(quote.clock / 1_000));
    let fields = vec![
        Explained::new("signer", hex::encode(&quote.signer), "qualified name of the key that signed"),
        Explained::new("extra_data", hex::encode(&quote.extra_data), "the caller's bytes: challenge and keys")
            .look_if(quote.extra_data.is_empty(), "empty: the quote was made for nobody in particular"),
        Explained::new("clock", clock, "how long the TPM has been powered"),
        Explained::new("reset_count", quote.reset_count, "boots of the machine since the TPM was made"),
        Explained::new("restart_count", quote.restart_count, "resumes since the last boot"),
        Explained::new("safe", quote.safe, "no higher clock was ever reported")
            .look_if(!quote.safe, "the clock may have gone back: the TPM lost power without a shutdown"),
        Explained::new("firmware_version", format!("{:#x}", quote.firmware_version), "the vendor's own number"),
        Explained::new("pcr_select", banks.join(", "), "the PCRs that were quoted; 0x000b is SHA-256")
            .look_if(!only_sha256, "a verifier here takes the SHA-256 bank alone"),
        Explained::new("pcr_digest", hex::encode(&quote.pcr_digest), "SHA-256 of their values, one after the other"),
    ];
    Section { title: "Quote (TPMS_ATTEST)".to_owned(), fields }
}

/// The values that come with a quote. They are its own if their digest is.
pub fn explain_pcrs(pcrs: &[(u32, [u8; 32])], quote: Option<&QuoteStatement>) -> Section {
    let joined: Vec<u8> = pcrs.iter().flat_map(|(_, value)| *value).collect();
    let digest = Sha256Digest::of(&joined);
    let other = quote.is_some_and(|quote| quote.pcr_digest != digest.as_bytes());
    let measured = |value: &[u8; 32]| value != &[0; 32] && value != &NEVER_LAUNCHED;
    let nothing = !pcrs.iter().any(|(index, value)| !matches!(index, 16 | 23) && measured(value));
    let mut fields: Vec<Explained> = pcrs
        .iter()
        .map(|(index, value)| {
            Explained::new(format!("PCR {index}"), hex::encode(value), pcr_meaning(*index))
                .look_if(value == &[0; 32] && *index < 8, "all zero: the firmware measured nothing here")
        })
        .collect();
    fields.push(
        Explained::new(
            "digest",
            hex::encode(digest.as_bytes()),
            "of these values; equal to the quoted one or not theirs",
        )
        .look_if(other, "another than the quoted one: these are not the quoted values"),
    );
    if nothing {
        fields.push(Explained::new("all PCRs", "blank", "nothing was measured").look_if(
            true,
            "a machine that measured nothing, or whose measurements programs can reset, has these values",
        ));
    }
    Section { title: "PCRs of the SHA-256 bank".to_owned(), fields }
}

/// TCG PC Client Platform Firmware Profile, "PCR usage", and what Linux adds.
pub(super) const fn pcr_meaning(index: u32) -> &'static str {
    match index {
        0 => "firmware code",
        1 => "firmware configuration",
        2 => "code of option ROMs",
        3 => "configuration of option ROMs",
        4 => "boot loader and what it starts",
        5 => "configuration of the boot loader, partition table",
        6 => "events of the manufacturer",
        7 => "Secure Boot state and its keys",
        8 => "commands of GRUB, kernel command line",
        9 => "files that GRUB read, initrd, options of the kernel",
        10 => "files, by Linux IMA",
        11 => "unified kernel image and its boot phases",
        12 => "command line and credentials of systemd-boot",
        13 => "system extensions",
        14 => "keys of shim",
        15 => "file systems and machine id, by systemd",
        16 => "debug: any program can reset it",
        17..=22 => "dynamic launch; all ones: never happened",
        23 => "applications: any program can reset it",
        _ => "unknown",
    }
}

/// Which TPM and key the evidence claims to be of.
pub fn explain_identity(identity: &TpmIdentity) -> Section {
    let mut fields = Vec::new();
    for (index, der) in identity.ek_certificates.iter().enumerate() {
        let (field, meaning) = match index {
            0 => ("EK certificate", "the vendor's word for this TPM; SHA-256 of its DER"),
            _ => ("issuer", "who issued the one before; SHA-256 of its DER"),
        };
        fields.push(Explained::new(field, Sha256Digest::of(der), meaning));
    }
    if let Ok(ek) = EkPublic::parse(&identity.ek_public) {
        let meaning = "the endorsement key, which has no certificate: `vaultctl platform add` enrols it";
        fields.push(Explained::new("EK name", hex::encode(ek.name()), meaning));
    }
    let platform = identity.claimed_platform().ok();
    fields.push(
        Explained::new(
            "platform",
            platform.map_or_else(|| "unknown".to_owned(), |platform| platform.to_string()),
            "what `eks` of a policy lists",
        )
        .look_if(platform.is_none(), "there is no EK certificate, and no EK, that can be read"),
    );
    let ak = AttestationKey::parse(&identity.ak_public);
    fields.push(
        Explained::new(
            "AK name",
            ak.as_ref().map_or_else(ToString::to_string, |ak| hex::encode(ak.name().as_bytes())),
            "the key that quotes; that it is in the EK's TPM takes an activated credential",
        )
        .look_if(ak.is_err(), "no verifier here takes such a key"),
    );
    Section { title: "TPM".to_owned(), fields }
}
