//! Azure confidential VMs: the paravisor (HCL) takes the SNP report at boot and leaves it in the virtual TPM.
//!
//! Its report data is fixed: SHA-256 of the runtime JSON that follows the report and names the vTPM's attestation key. What
//! is fresh and the caller's own goes into that key's quote.

use attestation::PcrSelection;

use super::{REPORT_BYTES, SnpDeviceError};
use crate::tpm::{Quote, Tpm};

/// NV index of the HCL report.
pub const HCL_REPORT_INDEX: u32 = 0x0140_0001;
/// Persistent handle of the attestation key that the runtime JSON names.
pub const HCL_AK_HANDLE: u32 = 0x8100_0003;

/// Evidence by the virtual TPM of an Azure confidential VM.
#[derive(Clone)]
pub struct AzureVtpm {
    tpm: Tpm,
}

/// What an Azure confidential VM shows, as the vTPM gave it and unchecked.
#[derive(Clone, Debug)]
pub struct AzureEvidence {
    /// The content of NV index 0x01400001: 32 bytes of header (`HCLA`), the SNP report (1184), 20 bytes about what follows,
    /// and the runtime JSON; padding may follow.
    pub hcl_report: Vec<u8>,
    /// TPMT_PUBLIC of the key at 0x81000003.
    pub ak_public: Vec<u8>,
    /// That key's quote, with the PCRs.
    pub quote: Quote,
}

/// The vectors have 2600 bytes; a vTPM's index may have more.
const HCL_BYTES_MAX: usize = 16 << 10;
const MAGIC: &[u8; 4] = b"HCLA";
/// Header, report, and what says how long the JSON is.
const HCL_BYTES_MIN: usize = 32 + REPORT_BYTES + 20;

impl AzureVtpm {
    /// The vTPM behind `tpm`.
    #[must_use]
    pub const fn new(tpm: Tpm) -> Self {
        Self { tpm }
    }

    /// The report, and a quote over `extra_data` and these PCRs by the key that it names.
    ///
    /// # Errors
    /// [`SnpDeviceError::HclMalformed`], [`SnpDeviceError::Tpm`] where this is no Azure confidential VM.
    pub fn evidence(&self, extra_data: [u8; 32], pcrs: PcrSelection) -> Result<AzureEvidence, SnpDeviceError> {
        let hcl_report = self.hcl_report()?;
        let ak_public = self.ak_public()?;
        let quote = self.tpm.quote_persistent(HCL_AK_HANDLE, extra_data, pcrs).wait()?;
        Ok(AzureEvidence { hcl_report, ak_public, quote })
    }

    /// Whether this TPM has what an Azure confidential VM's has.
    pub(super) fn probe(&self) -> Result<(), SnpDeviceError> {
        self.hcl_report()?;
        self.tpm.persistent_public(HCL_AK_HANDLE).wait()?;
        Ok(())
    }

    /// TPMT_PUBLIC of the key that quotes.
    ///
    /// # Errors
    /// [`SnpDeviceError::Tpm`] where this is no Azure confidential VM.
    pub fn ak_public(&self) -> Result<Vec<u8>, SnpDeviceError> {
        Ok(self.tpm.persistent_public(HCL_AK_HANDLE).wait()?)
    }

    fn hcl_report(&self) -> Result<Vec<u8>, SnpDeviceError> {
        let report = self.tpm.nv_read(HCL_REPORT_INDEX, HCL_BYTES_MAX).wait()?;
        match report.starts_with(MAGIC) && report.len() >= HCL_BYTES_MIN {
            true => Ok(report),
            false => Err(SnpDeviceError::HclMalformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

    use super::*;
    use crate::snp::{KeyRequest, Pace, RootKey, SnpChoice, SnpDevice, SnpDeviceKind, Unusable, Way, probe};
    use crate::test_support::vector_bytes;
    use crate::tpm::TpmError;
    use crate::tpm_support::{SoftTpm, pcrs, raw};

    /// The most that libtpms lets an index hold; the recorded report is some 300 bytes longer, all of them of its JSON.
    const INDEX_BYTES: usize = 2048;

    fn soft_tpm(report: Option<&[u8]>, ak: bool) -> (tempfile::TempDir, SoftTpm) {
        let dir = tempfile::tempdir().unwrap();
        let soft = SoftTpm::start(dir.path());
        if let Some(report) = report {
            raw::define(soft.port(), HCL_REPORT_INDEX, report);
        }
        if ak {
            raw::persist_rsa_ak(soft.port(), HCL_AK_HANDLE);
        }
        (dir, soft)
    }

    fn refusal(report: Option<&[u8]>, ak: bool) -> SnpDeviceError {
        let (_dir, soft) = soft_tpm(report, ak);
        AzureVtpm::new(soft.connect()).evidence([1; 32], pcrs()).expect_err("refused")
    }

    #[test]
    fn evidence_is_the_report_as_stored_and_a_quote_by_the_key_beside_it() {
        let Some(mut report) = vector_bytes("azure-snp-vtpm/azure-milan-v3/hcl-report.bin") else { return };
        report.truncate(INDEX_BYTES);
        let (_dir, soft) = soft_tpm(Some(&report), true);
        let tpm = soft.connect();
        let (kind, found) = probe(&SnpChoice::AzureVtpm, Some(&tpm)).next().unwrap();
        assert_eq!(kind, SnpDeviceKind::AzureVtpm);
        let device = found.ok().unwrap();

        let evidence = device.azure().unwrap().evidence([0xa5; 32], pcrs()).unwrap();
        assert_eq!(evidence.hcl_report, report);
        let quote = &evidence.quote;
        // TPMT_PUBLIC ends with the modulus; TPMT_SIGNATURE begins with RSASSA, SHA-256 and a length.
        let (n, e) = (&evidence.ak_public[evidence.ak_public.len() - 256..], &[1, 0, 1][..]);
        let key = RsaPublicKeyComponents { n, e };
        assert_eq!(quote.signature[..6], [0x00, 0x14, 0x00, 0x0b, 0x01, 0x00]);
        key.verify(&RSA_PKCS1_2048_8192_SHA256, &quote.attest, &quote.signature[6..]).unwrap();
        let covers = |bytes: &[u8]| quote.attest.windows(bytes.len()).any(|window| window == bytes);
        assert!(covers(&[0xa5; 32]) && covers(quote.pcrs.digest().as_bytes()));
        assert_eq!(quote.pcrs, tpm.read_pcrs(pcrs()).wait().unwrap());
    }

    #[test]
    fn an_azure_device_binds_nothing_in_its_report_and_derives_no_keys() {
        let (_dir, soft) = soft_tpm(None, false);
        let azure = AzureVtpm::new(soft.connect());
        let device = SnpDevice { way: Way::AzureVtpm(azure), pace: Pace::none() };
        let refused = device.report(&[1; 64], None).err().unwrap();
        assert_eq!(refused.code(), "snp-report-data-fixed");
        let request = KeyRequest::new(crate::snp::KeySpec {
            root_key: RootKey::Default,
            fields: Default::default(),
            guest_svn: None,
            tcb_version: None,
            launch_mit_vector: None,
            vmpl: 0,
        });
        let refused = device.derived_key(&request.unwrap()).err().unwrap();
        assert_eq!(refused.code(), "snp-no-derived-keys");
        let refused = device.with_service(crate::snp::SvsmService::default()).err();
        assert_eq!(refused, Some(SnpDeviceError::AttributeMissing("service_provider")));
    }

    #[test]
    fn a_tpm_without_report_or_key_and_a_report_that_is_none_are_told_apart() {
        let report = [&b"HCLA"[..], &[0; HCL_BYTES_MIN - 4]].concat();
        assert_eq!(refusal(None, true), TpmError::NvMissing(HCL_REPORT_INDEX).into());
        assert_eq!(refusal(Some(&report), false), TpmError::KeyMissing(HCL_AK_HANDLE).into());
        assert_eq!(refusal(Some(&report[..HCL_BYTES_MIN - 1]), true), SnpDeviceError::HclMalformed);
        assert_eq!(refusal(Some(&[&b"HCLB"[..], &report[4..]].concat()), true), SnpDeviceError::HclMalformed);
        let (_dir, soft) = soft_tpm(Some(&report), false);
        let tpm = soft.connect();
        let too_long = tpm.nv_read(HCL_REPORT_INDEX, HCL_BYTES_MIN - 1).wait().err().unwrap();
        assert_eq!(too_long.code(), "tpm-nv-too-long");
        let found = probe(&SnpChoice::AzureVtpm, Some(&tpm)).next().unwrap();
        assert_eq!(found.1.err(), Some(Unusable::NotAzure));
    }
}
