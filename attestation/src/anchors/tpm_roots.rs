//! The roots of makers of TPMs that are compiled in, each with where it was had from.
//!
//! Pinned is the key, by SHA-256 of its SubjectPublicKeyInfo, not the certificate: that comes with the evidence, must be
//! signed by the pinned key itself, and is then held to all that is asked of an authority. A root is here if at least two
//! public collections that do not take from each other have it with the same certificate, and its key and signature are of
//! a kind that is verified here. They are of discrete TPMs, and count as hardware.
//!
//! Of the makers' chains two genuine ones were tried: EK certificates of STMicroelectronics, RSA-2048 and P-256, that lie in
//! the tests of keylime, verify under GlobalSign's two roots.
//!
//! **What is left out.** Roots on P-521 (Infineon OPTIGA ECC Root CA 2 and 3, Nuvoton NPCTxxx ECC521, STSAFE ECC, NSING ECC):
//! ring verifies no such signatures. Roots signed with SHA-1 (Nuvoton NTC TPM EK Root CA 01, 02 and ARSUF 01, 1013, 1014,
//! 2010 to 2012; Infineon TPM CA 008; VeriSign). Roots that one collection alone has (Nuvoton 0100, Nationz, NSING RSA,
//! STSAFE RSA, Microsoft Pluton). Firmware TPMs, of AMD (AMDTPM) and Intel (EK root, OnDie CA): no genuine chain of theirs
//! was at hand, their certificates are fetched from the maker or lie in further NV indices, OnDie CA's have extensions
//! that are not known here, and a firmware TPM is worth less than a chip. Microsoft's TPM root of 2014, which issues for
//! virtual TPMs and AKs. A policy can name any of them that can be verified under `[[anchors]]`.

use super::pin;
use crate::encoding::Sha256Digest;

/// The root of a maker of TPMs that is compiled in: it counts as hardware.
#[derive(Debug)]
pub struct TpmRoot {
    /// As an anchor is called.
    pub name: &'static str,
    /// Whose TPMs it endorses.
    pub maker: &'static str,
    /// Common name of its subject, which is its issuer too.
    pub common_name: &'static str,
    /// First and last day of its certificate, UTC.
    pub valid: [&'static str; 2],
    /// SHA-256 of the DER SubjectPublicKeyInfo.
    pub key: Sha256Digest,
    /// Where its certificate was found.
    pub seen_in: &'static [&'static str],
}

/// From the makers' own addresses, several by fingerprints in their documents.
const CA_LIST: &str = "github.com/loicsikidi/tpm-ca-certificates at 366e970a, MIRROR.tpm-ca-certificates.pem";
/// From Microsoft's list of trusted TPM roots.
const FOBNAIL: &str = "github.com/fobnail/fobnail at 7038cb34";
/// From its contributors' machines and makers.
const KEYLIME: &str = "github.com/keylime/keylime at 9b1f6e6a, tpm_cert_store";
/// From Infineon and Fraunhofer SIT.
const TPM2_TSS: &str = "github.com/tpm2-software/tpm2-tss at 506c5e6d, src/tss2-fapi/fapi_certificates.h";

/// `openssl x509 -in root.pem -noout -pubkey | openssl pkey -pubin -outform der | sha256sum`, compared on 2026-11-26.
pub(super) const TPM_ROOTS: [TpmRoot; 14] = [
    TpmRoot {
        name: "globalsign-tpm-rsa",
        maker: "GlobalSign, above STMicroelectronics",
        common_name: "GlobalSign Trusted Platform Module Root CA",
        valid: ["2009-03-18", "2049-03-18"],
        key: pin("0035d2297fe237a636800382cc2c9e205c6930f84b507ceec3608545d273960f"),
        seen_in: &[CA_LIST, FOBNAIL, KEYLIME, TPM2_TSS],
    },
    TpmRoot {
        name: "globalsign-tpm-ecc",
        maker: "GlobalSign, above STMicroelectronics",
        common_name: "GlobalSign Trusted Platform Module ECC Root CA",
        valid: ["2014-11-26", "2038-01-19"],
        key: pin("43679317522d3638ea18936a57c65b33086ba51c77536fe6e1b65492193314cb"),
        seen_in: &[CA_LIST, TPM2_TSS],
    },
    TpmRoot {
        name: "infineon-optiga-ecc",
        maker: "Infineon",
        common_name: "Infineon OPTIGA(TM) ECC Root CA",
        valid: ["2013-07-26", "2043-07-25"],
        key: pin("ce5183a19d6fe79a6c1b058cfa700379f67d587a8afd0f51621e82d9f00c5a28"),
        seen_in: &[CA_LIST, KEYLIME, TPM2_TSS],
    },
    TpmRoot {
        name: "infineon-optiga-rsa",
        maker: "Infineon",
        common_name: "Infineon OPTIGA(TM) RSA Root CA",
        valid: ["2013-07-26", "2043-07-25"],
        key: pin("8a705088efa28a3845b35c7fcbf9c0f4bf46c77da18a6f1a173eb9074610cbd0"),
        seen_in: &[CA_LIST, FOBNAIL, KEYLIME, TPM2_TSS],
    },
    TpmRoot {
        name: "infineon-optiga-rsa-2",
        maker: "Infineon",
        common_name: "Infineon OPTIGA(TM) RSA Root CA 2",
        valid: ["2019-11-22", "2054-11-22"],
        key: pin("d821e2a37a846f9f3a66a82c9346f18cc418c418fb6c55e933b25aee54afe8de"),
        seen_in: &[CA_LIST, FOBNAIL, TPM2_TSS],
    },
    TpmRoot {
        name: "infineon-optiga-rsa-3",
        maker: "Infineon",
        common_name: "Infineon OPTIGA(TM) RSA Root CA 3",
        valid: ["2021-03-18", "2099-12-31"],
        key: pin("06e11829b97cd04844146be42b4e467b0756722a15df9398a98bb5faf2b20aa0"),
        seen_in: &[FOBNAIL, TPM2_TSS],
    },
    TpmRoot {
        name: "nuvoton-1110",
        maker: "Nuvoton",
        common_name: "Nuvoton TPM Root CA 1110",
        valid: ["2015-05-11", "2035-05-07"],
        key: pin("b7f4414b44f1787f046aec866693cda643239b3d0f6998d0ad4adb841e4bd0db"),
        seen_in: &[CA_LIST, KEYLIME, TPM2_TSS],
    },
    TpmRoot {
        name: "nuvoton-1111",
        maker: "Nuvoton",
        common_name: "Nuvoton TPM Root CA 1111",
        valid: ["2017-08-21", "2037-08-17"],
        key: pin("c871b0ba1182676eeed4c2469d3d5fa3cfa09daca77ea823a4b454cf00dee11e"),
        seen_in: &[CA_LIST, KEYLIME, TPM2_TSS],
    },
    TpmRoot {
        name: "nuvoton-1210",
        maker: "Nuvoton",
        common_name: "NuvotonTPMRootCA1210",
        valid: ["2021-08-02", "2051-07-27"],
        key: pin("f6564f73c8ad3bd48fe5571d06d7e2625b1736e716445460e78a5ac6b3b69768"),
        seen_in: &[CA_LIST, TPM2_TSS],
    },
    TpmRoot {
        name: "nuvoton-2110",
        maker: "Nuvoton",
        common_name: "Nuvoton TPM Root CA 2110",
        valid: ["2015-10-19", "2035-10-15"],
        key: pin("b54c81a52159aaf524c88dcf5a7e7a6f5f9ec2f4e69aee0bb3897f0c65e4faea"),
        seen_in: &[KEYLIME, TPM2_TSS],
    },
    TpmRoot {
        name: "nuvoton-2111",
        maker: "Nuvoton",
        common_name: "Nuvoton TPM Root CA 2111",
        valid: ["2017-09-11", "2037-09-07"],
        key: pin("95b8ab2c350f58064c30a217f07e0a3353915edee572c5fb2ebcf8fa3f87a813"),
        seen_in: &[CA_LIST, KEYLIME, TPM2_TSS],
    },
    TpmRoot {
        name: "nuvoton-2112",
        maker: "Nuvoton",
        common_name: "Nuvoton TPM Root CA 2112",
        valid: ["2021-03-23", "2041-03-19"],
        key: pin("016b91ecb9f473ab57499ff308c3f948a40287d5d951e5f6651482ad7d381924"),
        seen_in: &[CA_LIST, TPM2_TSS],
    },
    TpmRoot {
        name: "nuvoton-2210",
        maker: "Nuvoton",
        common_name: "NuvotonTPMRootCA2210",
        valid: ["2022-03-14", "2052-03-07"],
        key: pin("d325df18987aeda5c6c072c178babc54c3e1e24e563c691fe881099dddcb31e8"),
        seen_in: &[CA_LIST, TPM2_TSS],
    },
    TpmRoot {
        name: "nuvoton-2211",
        maker: "Nuvoton",
        common_name: "NuvotonTPMRootCA2211",
        valid: ["2022-03-14", "2052-03-07"],
        key: pin("1f3ddd0a51b57d54833ae705f8e47f28817a1551d12aee3c6beeed5f1ea2a59d"),
        seen_in: &[CA_LIST, TPM2_TSS],
    },
];

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        PublicKeyData,
    };

    use super::super::{Trust, TrustAnchors};
    use super::*;
    use crate::encoding::UnixTime;
    use crate::error::{CertificateError, VerifyError};
    use crate::tpm::EndorsedEk;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn authority(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    /// A maker whose root is as if it were compiled in: the EK certificate, the root, and its key.
    fn maker() -> (Vec<u8>, CertificateParams, KeyPair, TrustAnchors) {
        let (params, key) = (authority("maker"), KeyPair::generate().unwrap());
        let mut ek = CertificateParams::default();
        ek.key_usages = vec![KeyUsagePurpose::KeyAgreement];
        ek.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 1])];
        let ek = ek.signed_by(&KeyPair::generate().unwrap(), &Issuer::from_params(&params, &key)).unwrap();
        let root = TpmRoot {
            name: "maker",
            maker: "maker",
            common_name: "maker",
            valid: ["1975-01-01", "4096-01-01"],
            key: Sha256Digest::of(&key.subject_public_key_info()),
            seen_in: &[CA_LIST, FOBNAIL],
        };
        let anchors = TrustAnchors { tpm_roots: Box::leak(Box::new([root])), ..TrustAnchors::built_in() };
        (ek.der().to_vec(), params, key, anchors)
    }

    #[test]
    fn a_chain_to_a_pinned_key_is_hardware_if_the_root_comes_along_unchanged() {
        let (ek, params, key, anchors) = maker();
        let root = params.clone().self_signed(&key).unwrap().der().to_vec();
        let verify = |chain: &[Vec<u8>], anchors: &TrustAnchors| EndorsedEk::verify(chain, anchors, NOW);
        let endorsed = verify(&[ek.clone(), root.clone()], &anchors).unwrap();
        assert_eq!((endorsed.trust(), endorsed.anchor()), (Trust::Hardware, "maker"));
        let unknown = Some(VerifyError::EkAnchorUnknown);
        assert_eq!(verify(std::slice::from_ref(&ek), &anchors).err(), unknown, "only its key is known");
        assert_eq!(verify(&[ek.clone(), root.clone()], &TrustAnchors::built_in()).err(), unknown);

        // Its own signature covers what the pin does not.
        let mut changed = root.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(verify(&[ek.clone(), changed], &anchors).err(), unknown);
        let (other, other_key) = (authority("other"), KeyPair::generate().unwrap());
        let crossed = params.signed_by(&key, &Issuer::from_params(&other, &other_key)).unwrap().der().to_vec();
        assert_eq!(verify(&[ek.clone(), crossed], &anchors).err(), unknown);
        let mut forged = authority("maker");
        forged.key_usages.clear();
        let forged = forged.self_signed(&key).unwrap().der().to_vec();
        let error = CertificateError::NotCertificateSigner;
        assert_eq!(verify(&[ek, forged], &anchors).err(), Some(VerifyError::EkCertificate { index: 1, error }));
    }

    #[test]
    fn a_policy_can_neither_rename_a_pinned_root_nor_lower_its_trust() {
        let (_, params, key, anchors) = maker();
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        let anchor = |name: &str| super::super::Anchor {
            name: name.to_owned(),
            trust: Trust::Emulated,
            certificate: certificate.clone(),
        };
        assert_eq!(anchors.clone().with(anchor("mine")).err(), Some(crate::AnchorError::KeyRepeated));
        assert_eq!(anchors.with(anchor("maker")).err(), Some(crate::AnchorError::NameRepeated));
        let built_in = TrustAnchors::built_in().with(anchor("infineon-optiga-rsa"));
        assert_eq!(built_in.err(), Some(crate::AnchorError::NameRepeated));
    }

    #[test]
    fn every_root_was_seen_in_two_collections_and_stands_once() {
        for (index, root) in TPM_ROOTS.iter().enumerate() {
            assert!(root.seen_in.len() >= 2, "{}", root.name);
            let [first, last] = root.valid;
            assert!(first < last && !root.maker.is_empty() && !root.common_name.is_empty());
            for other in TPM_ROOTS.iter().skip(index + 1) {
                assert!(root.name != other.name && root.key != other.key, "{} and {}", root.name, other.name);
                assert_ne!(root.common_name, other.common_name);
            }
        }
    }
}
