//! HCL reports and vTPM quotes of real Azure confidential VMs.

use attestation::{
    AttestationKey, AzureQuote, EndorsedVtpm, HclError, HclReport, PcrSelection, SnpEvidence, VerifyError,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::vectors::{Vector, all, folder};

struct AzureVector {
    vector: Vector,
    hcl: Vec<u8>,
    quote: AzureQuote,
    nonce: Vec<u8>,
}

fn azure_vectors() -> Vec<AzureVector> {
    let found: Vec<_> = all().into_iter().filter(|vector| vector.name.starts_with("azure")).map(read).collect();
    assert!(found.len() == 4 || folder("azure-snp-vtpm").is_none());
    found
}

fn read(vector: Vector) -> AzureVector {
    let folder = folder("azure-snp-vtpm").unwrap().join(&vector.name);
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let pcrs: Vec<Value> = serde_json::from_slice(&read("tpm-pcrs.json")).unwrap();
    let pcrs = pcrs.iter().map(|pcr| hex::decode(pcr.as_str().unwrap()).unwrap().try_into().unwrap());
    AzureVector {
        hcl: read("hcl-report.bin"),
        quote: AzureQuote {
            attest: read("tpm-quote.msg"),
            // The vectors have the bare RSASSA signature; this is its TPMT_SIGNATURE.
            signature: [&[0x00, 0x14, 0x00, 0x0b, 0x01, 0x00], read("tpm-quote.sig").as_slice()].concat(),
            pcrs: (0..).zip(pcrs).collect(),
        },
        nonce: hex::decode(vector.expected["azure"]["qualifying_data_hex"].as_str().unwrap()).unwrap(),
        vector,
    }
}

impl AzureVector {
    fn endorse(&self, hcl: HclReport) -> Result<EndorsedVtpm, HclError> {
        hcl.endorse(self.vector.verify().unwrap())
    }

    fn endorsed(&self) -> EndorsedVtpm {
        self.endorse(HclReport::parse(&self.hcl).unwrap()).unwrap()
    }

    /// The AK in the attributes that Azure gives it: the vectors have no TPMT_PUBLIC.
    fn ak(&self) -> AttestationKey {
        let hcl = HclReport::parse(&self.hcl).unwrap();
        let runtime: Value = serde_json::from_slice(hcl.runtime_data()).unwrap();
        let ak = runtime["keys"].as_array().unwrap().iter().find(|key| key["kid"] == "HCLAkPub").unwrap();
        let modulus = BASE64_URL_SAFE_NO_PAD.decode(ak["n"].as_str().unwrap()).unwrap();
        let template = hex::decode("0001000b00050472000000100014000b0800000000000100").unwrap();
        AttestationKey::parse(&[template, modulus].concat()).unwrap()
    }
}

fn every_pcr() -> PcrSelection {
    PcrSelection::try_from((0..24).collect::<Vec<_>>().as_slice()).unwrap()
}

#[test]
fn report_endorses_the_ak_that_quoted() {
    for azure in azure_vectors() {
        let hcl = HclReport::parse(&azure.hcl).unwrap();
        assert_eq!(hcl.report(), azure.vector.evidence.report);
        let vtpm = azure.endorsed();
        assert_eq!(vtpm.claims().report(), &azure.vector.report());
        let state = vtpm.verify_quote(&azure.quote, &azure.nonce, &every_pcr()).unwrap();
        assert_eq!(state.pcrs.len(), 24);
        assert_eq!(vtpm.check_ak(&azure.ak()), Ok(()));
        let apart = HclReport::from_parts(hcl.report().to_vec(), hcl.runtime_data().to_vec()).unwrap();
        assert_eq!(apart, hcl);
    }
}

#[test]
fn any_changed_byte_of_the_runtime_data_is_refused() {
    for azure in azure_vectors() {
        let good = HclReport::parse(&azure.hcl).unwrap();
        let endorsed = azure.vector.verify().unwrap();
        for at in 0..good.runtime_data().len() {
            let mut changed = good.runtime_data().to_vec();
            changed[at] ^= 1;
            let hcl = HclReport::from_parts(good.report().to_vec(), changed).unwrap();
            assert_eq!(hcl.endorse(endorsed.clone()).err(), Some(HclError::RuntimeDataMismatch), "byte {at}");
        }
    }
}

#[test]
fn report_or_runtime_data_of_another_vm_is_refused() {
    for (azure, other) in pairs() {
        let other_hcl = HclReport::parse(&other.hcl).unwrap();
        assert_eq!(azure.endorse(other_hcl.clone()).err(), Some(HclError::ReportChanged));
        let report = azure.vector.evidence.report.clone();
        let mixed = HclReport::from_parts(report, other_hcl.runtime_data().to_vec()).unwrap();
        assert_eq!(azure.endorse(mixed).err(), Some(HclError::RuntimeDataMismatch));
    }
}

#[test]
fn report_that_is_no_azure_report_endorses_no_ak() {
    for vector in all().into_iter().filter(|vector| !vector.name.starts_with("azure") && !vector.is_debug()) {
        let SnpEvidence { report, .. } = vector.evidence.clone();
        let hcl = HclReport::from_parts(report, b"{}".to_vec()).unwrap();
        let expected = match vector.report().vmpl() {
            0 => HclError::RuntimeDataMismatch,
            found => HclError::Vmpl { found },
        };
        assert_eq!(hcl.endorse(vector.verify().unwrap()).err(), Some(expected), "{}", vector.name);
    }
}

#[test]
fn quote_of_another_vm_or_with_anything_changed_is_refused() {
    for (azure, other) in pairs() {
        let vtpm = azure.endorsed();
        let refusal = |quote: &AzureQuote| vtpm.verify_quote(quote, &azure.nonce, &every_pcr()).unwrap_err();
        assert_eq!(refusal(&other.quote), VerifyError::SignatureInvalid);
        assert_eq!(vtpm.check_ak(&other.ak()), Err(HclError::AkMismatch));
        let change = |change: &dyn Fn(&mut AzureQuote)| {
            let mut quote = azure.quote.clone();
            change(&mut quote);
            refusal(&quote)
        };
        assert_eq!(change(&|quote| quote.attest[0] ^= 1), VerifyError::SignatureInvalid);
        assert_eq!(change(&|quote| quote.signature[6] ^= 1), VerifyError::SignatureInvalid);
        assert_eq!(change(&|quote| quote.pcrs[23].1[0] ^= 1), VerifyError::PcrDigestMismatch);
        assert_eq!(change(&|quote| quote.pcrs.truncate(23)), VerifyError::PcrValuesMismatch);
        let other_nonce = vtpm.verify_quote(&azure.quote, b"another", &every_pcr());
        assert_eq!(other_nonce, Err(VerifyError::ExtraDataMismatch));
        let fewer = PcrSelection::try_from([0, 7].as_slice()).unwrap();
        let fewer = vtpm.verify_quote(&azure.quote, &azure.nonce, &fewer);
        assert_eq!(fewer, Err(VerifyError::PcrSelectionMismatch));
    }
}

/// Each vector with each other one.
fn pairs() -> Vec<(AzureVector, AzureVector)> {
    let names = |vectors: Vec<AzureVector>| vectors.into_iter().map(|azure| azure.vector.name).collect::<Vec<_>>();
    let names = names(azure_vectors());
    let get = |name: &str| azure_vectors().into_iter().find(|azure| azure.vector.name == name).unwrap();
    names
        .iter()
        .flat_map(|name| names.iter().filter(move |other| *other != name).map(move |other| (get(name), get(other))))
        .collect()
}
