//! A soft SEV-SNP platform of one chip: it signs what it is told to, so that one thing can be wrong at a time.

use std::sync::LazyLock;

use attestation::{
    Anchor, CrlRule, EndorsedReport, SNP_REPORT_BYTES, SigningKey, SnpClaims, SnpError, SnpEvidence, SnpProduct, Trust,
    TrustAnchors,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA384, RsaKeyPair};

use crate::asn1::{
    PSS_SHA384, bit_string, boolean, explicit, integer, name, null, octet_string, oid, sequence, tlv, utc_time,
};
use crate::vectors::NOW;

pub(crate) const TCB: [u8; 4] = [4, 1, 24, 219];
pub(crate) const FMC: u8 = 2;
pub(crate) const CLOUD: &str = "CN=soft.example";
/// Serial numbers, as the bytes of their INTEGERs.
pub(crate) const ARK_SERIAL: u8 = 0x11;
pub(crate) const ASK_SERIAL: u8 = 0x22;

/// Where the fields of a report are that tests change.
pub(crate) mod at {
    pub(crate) const GUEST_POLICY: usize = 0x008;
    pub(crate) const VMPL: usize = 0x030;
    pub(crate) const CURRENT_TCB: usize = 0x038;
    pub(crate) const PLATFORM_INFO: usize = 0x040;
    pub(crate) const KEY_INFO: usize = 0x048;
    pub(crate) const REPORT_ID_MA: usize = 0x160;
    pub(crate) const REPORTED_TCB: usize = 0x180;
    pub(crate) const CPUID: usize = 0x188;
    pub(crate) const CHIP_ID: usize = 0x1a0;
    pub(crate) const COMMITTED_TCB: usize = 0x1e0;
    pub(crate) const LAUNCH_TCB: usize = 0x1f0;
    pub(crate) const SIGNATURE: usize = 0x2a0;
}

/// Made for these tests (`data/README.md`); they protect nothing.
static ARK: LazyLock<RsaKeyPair> = LazyLock::new(|| rsa_key(include_str!("../data/soft-ark.pem")));
static ASK: LazyLock<RsaKeyPair> = LazyLock::new(|| rsa_key(include_str!("../data/soft-ask.pem")));
static LEAF: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
    let key = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &SystemRandom::new()).unwrap()
});

fn rsa_key(pem: &str) -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(&der::pem::decode_vec(pem.as_bytes()).unwrap().1).unwrap()
}

/// Id, critical, value.
pub(crate) type Extension = (&'static str, bool, Vec<u8>);

pub(crate) const BASIC_CONSTRAINTS: &str = "2.5.29.19";
pub(crate) const KEY_USAGE: &str = "2.5.29.15";
/// keyCertSign and cRLSign.
pub(crate) const SIGNS_BOTH: [u8; 4] = [0x03, 0x02, 0x01, 0x06];
/// keyCertSign.
const SIGNS_CERTIFICATES: [u8; 4] = [0x03, 0x02, 0x02, 0x04];

/// What is written into a certificate.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) serial: u8,
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) validity: [&'static str; 2],
    pub(crate) key: Vec<u8>,
    pub(crate) extensions: Vec<Extension>,
    /// AlgorithmIdentifier.
    pub(crate) algorithm: Vec<u8>,
}

impl Certificate {
    pub(crate) fn sign(&self, key: &RsaKeyPair) -> Vec<u8> {
        let extensions: Vec<Vec<u8>> = self.extensions.iter().map(extension).collect();
        let tbs = sequence(&[
            explicit(0, &integer(&[2])),
            integer(&[self.serial]),
            self.algorithm.clone(),
            name(&self.issuer),
            sequence(&[utc_time(self.validity[0]), utc_time(self.validity[1])]),
            name(&self.subject),
            self.key.clone(),
            explicit(3, &sequence(&extensions)),
        ]);
        let signature = pss(key, &tbs);
        sequence(&[tbs, self.algorithm.clone(), bit_string(&signature)])
    }

    pub(crate) fn extension(&mut self, id: &str) -> &mut Extension {
        self.extensions.iter_mut().find(|(extension, ..)| *extension == id).unwrap()
    }

    pub(crate) fn remove(&mut self, id: &str) {
        let before = self.extensions.len();
        self.extensions.retain(|(extension, ..)| *extension != id);
        assert_eq!(self.extensions.len() + 1, before, "{id}");
    }
}

/// What is written into a revocation list.
#[derive(Clone)]
pub(crate) struct Crl {
    pub(crate) version: Option<u8>,
    pub(crate) issuer: String,
    pub(crate) this_update: &'static str,
    pub(crate) next_update: Option<&'static str>,
    /// Serial number, and the extensions of its entry.
    pub(crate) revoked: Vec<(u8, Vec<Extension>)>,
    pub(crate) extensions: Vec<Extension>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) is_signed_by_ask: bool,
}

impl Crl {
    pub(crate) fn sign(&self) -> Vec<u8> {
        let mut fields: Vec<Vec<u8>> = self.version.iter().map(|version| integer(&[*version])).collect();
        fields.extend([self.algorithm.clone(), name(&self.issuer), utc_time(self.this_update)]);
        fields.extend(self.next_update.map(utc_time));
        if !self.revoked.is_empty() {
            let entries = self.revoked.iter().map(|(serial, extensions)| {
                let mut entry = vec![integer(&[*serial]), utc_time("260101000000Z")];
                if !extensions.is_empty() {
                    entry.push(sequence(&extensions.iter().map(extension).collect::<Vec<_>>()));
                }
                sequence(&entry)
            });
            fields.push(sequence(&entries.collect::<Vec<_>>()));
        }
        if !self.extensions.is_empty() {
            fields.push(explicit(0, &sequence(&self.extensions.iter().map(extension).collect::<Vec<_>>())));
        }
        let tbs = sequence(&fields);
        let signature = pss(if self.is_signed_by_ask { &ASK } else { &ARK }, &tbs);
        sequence(&[tbs, self.algorithm.clone(), bit_string(&signature)])
    }
}

/// A platform and a guest on it, all of which is right until a test changes something.
pub(crate) struct Soft {
    pub(crate) ark: Certificate,
    pub(crate) ask: Certificate,
    pub(crate) leaf: Certificate,
    pub(crate) crls: Vec<Crl>,
    pub(crate) report: Vec<u8>,
    pub(crate) rule: CrlRule,
    pub(crate) anchors: TrustAnchors,
}

impl Soft {
    pub(crate) fn new(product: SnpProduct, kind: SigningKey) -> Self {
        let (leaf, issuer) = match kind {
            SigningKey::Vcek => ("SEV-VCEK", format!("SEV-Soft-{product}")),
            SigningKey::Vlek => ("SEV-VLEK", format!("SEV-VLEK-Soft-{product}")),
        };
        let root = format!("ARK-Soft-{product}");
        let ark = authority(ARK_SERIAL, &root, &root, rsa_public_key(&ARK), &SIGNS_BOTH);
        let ask = authority(ASK_SERIAL, &root, &issuer, rsa_public_key(&ASK), &SIGNS_CERTIFICATES);
        let anchor = Anchor { name: "soft".to_owned(), trust: Trust::Emulated, certificate: ark.sign(&ARK) };
        Self {
            leaf: Certificate {
                serial: 0,
                issuer,
                subject: leaf.to_owned(),
                validity: ["250101000000Z", "320101000000Z"],
                key: leaf_public_key(),
                extensions: leaf_extensions(product, kind),
                algorithm: PSS_SHA384.to_vec(),
            },
            ark,
            ask,
            crls: Vec::new(),
            report: report(product, kind),
            rule: CrlRule::IfPresent,
            anchors: TrustAnchors::built_in().with(anchor).unwrap(),
        }
    }

    pub(crate) fn milan() -> Self {
        Self::new(SnpProduct::Milan, SigningKey::Vcek)
    }

    /// An empty list that is in force.
    pub(crate) fn crl(&self) -> Crl {
        Crl {
            version: Some(1),
            issuer: self.ark.subject.clone(),
            this_update: "260601000000Z",
            next_update: Some("270601000000Z"),
            revoked: Vec::new(),
            extensions: vec![("2.5.29.20", false, integer(&[7]))],
            algorithm: PSS_SHA384.to_vec(),
            is_signed_by_ask: false,
        }
    }

    /// Everything signed.
    pub(crate) fn evidence(&self) -> SnpEvidence {
        let mut report = self.report.clone();
        sign_report(&mut report);
        SnpEvidence {
            report,
            certificates: vec![self.leaf.sign(&ASK), self.ask.sign(&ARK), self.ark.sign(&ARK)],
            crls: self.crls.iter().map(Crl::sign).collect(),
        }
    }

    pub(crate) fn sign_with_ark(&self, certificate: &Certificate) -> Vec<u8> {
        certificate.sign(&ARK)
    }

    pub(crate) fn verify(&self) -> Result<SnpClaims, SnpError> {
        EndorsedReport::verify(&self.evidence(), &self.anchors, self.rule, NOW).map(EndorsedReport::into_claims)
    }

    /// The refusal after one change.
    pub(crate) fn refusal(mut self, change: impl FnOnce(&mut Self)) -> SnpError {
        change(&mut self);
        self.verify().unwrap_err()
    }
}

fn authority(serial: u8, issuer: &str, subject: &str, key: Vec<u8>, usage: &[u8]) -> Certificate {
    Certificate {
        serial,
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        validity: ["200101000000Z", "450101000000Z"],
        key,
        extensions: vec![(BASIC_CONSTRAINTS, true, sequence(&[boolean(true)])), (KEY_USAGE, true, usage.to_vec())],
        algorithm: PSS_SHA384.to_vec(),
    }
}

pub(crate) fn chip(product: SnpProduct) -> [u8; 64] {
    let mut chip = [0; 64];
    let length = if product == SnpProduct::Turin { 8 } else { 64 };
    chip[..length].fill(0xc5);
    chip
}

fn leaf_extensions(product: SnpProduct, kind: SigningKey) -> Vec<Extension> {
    let [bootloader, tee, snp, microcode] = TCB;
    let number = |id, number: u8| (id, false, integer(&[number]));
    let mut extensions = vec![
        number("1.3.6.1.4.1.3704.1.1", 0),
        ("1.3.6.1.4.1.3704.1.2", false, tlv(0x16, product.as_str().as_bytes())),
        number("1.3.6.1.4.1.3704.1.3.1", bootloader),
        number("1.3.6.1.4.1.3704.1.3.2", tee),
        number("1.3.6.1.4.1.3704.1.3.4", 0),
        number("1.3.6.1.4.1.3704.1.3.3", snp),
        number("1.3.6.1.4.1.3704.1.3.8", microcode),
    ];
    if product == SnpProduct::Turin {
        extensions.push(number("1.3.6.1.4.1.3704.1.3.9", FMC));
    }
    extensions.push(match kind {
        SigningKey::Vcek => {
            let chip = chip(product);
            let id = if product == SnpProduct::Turin { &chip[..8] } else { &chip[..] };
            ("1.3.6.1.4.1.3704.1.4", false, id.to_vec())
        }
        SigningKey::Vlek => ("1.3.6.1.4.1.3704.1.5", false, tlv(0x16, CLOUD.as_bytes())),
    });
    extensions
}

/// The eight bytes of the TCB that the leaf is for.
pub(crate) fn tcb(product: SnpProduct) -> [u8; 8] {
    let [bootloader, tee, snp, microcode] = TCB;
    match product {
        SnpProduct::Milan | SnpProduct::Genoa => [bootloader, tee, 0, 0, 0, 0, snp, microcode],
        SnpProduct::Turin => [FMC, bootloader, tee, snp, 0, 0, 0, microcode],
    }
}

fn report(product: SnpProduct, kind: SigningKey) -> Vec<u8> {
    let mut report = vec![0; SNP_REPORT_BYTES];
    let mut put = |offset: usize, bytes: &[u8]| report[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &[if product == SnpProduct::Milan { 3 } else { 5 }]);
    put(at::GUEST_POLICY, &0x3_0000_u64.to_le_bytes());
    put(0x34, &[1]);
    put(at::PLATFORM_INFO, &[0x25]);
    put(at::REPORT_ID_MA, &[0xff; 32]);
    put(
        at::CPUID,
        match product {
            SnpProduct::Milan => &[0x19, 0x01, 1],
            SnpProduct::Genoa => &[0x19, 0x11, 1],
            SnpProduct::Turin => &[0x1a, 0x02, 1],
        },
    );
    for offset in [at::CURRENT_TCB, at::REPORTED_TCB, at::COMMITTED_TCB, at::LAUNCH_TCB] {
        put(offset, &tcb(product));
    }
    match kind {
        SigningKey::Vcek => put(at::CHIP_ID, &chip(product)),
        SigningKey::Vlek => put(at::KEY_INFO, &[1 << 2]),
    }
    report
}

/// r and s are written from the lowest byte on.
fn sign_report(report: &mut [u8]) {
    let signature = LEAF.sign(&SystemRandom::new(), &report[..at::SIGNATURE]).unwrap();
    for (half, offset) in signature.as_ref().chunks(48).zip([at::SIGNATURE, at::SIGNATURE + 72]) {
        let reversed: Vec<u8> = half.iter().rev().copied().collect();
        report[offset..offset + 48].copy_from_slice(&reversed);
    }
}

fn pss(key: &RsaKeyPair, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

fn extension((id, critical, value): &Extension) -> Vec<u8> {
    let mut fields = vec![oid(id)];
    fields.extend(critical.then(|| boolean(true)));
    fields.push(octet_string(value));
    sequence(&fields)
}

fn rsa_public_key(key: &RsaKeyPair) -> Vec<u8> {
    public_key(&[oid("1.2.840.113549.1.1.1"), null()], key.public().as_ref())
}

fn leaf_public_key() -> Vec<u8> {
    public_key(&[oid("1.2.840.10045.2.1"), oid("1.3.132.0.34")], LEAF.public_key().as_ref())
}

/// SubjectPublicKeyInfo.
pub(crate) fn public_key(algorithm: &[Vec<u8>], key: &[u8]) -> Vec<u8> {
    sequence(&[sequence(algorithm), bit_string(key)])
}
