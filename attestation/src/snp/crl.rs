//! Revocation lists of an ARK (RFC 5280 §5).

use der::oid::db::rfc5280;
use der::{Decode, Reader, SliceReader, Tag};
use x509_cert::certificate::Version;
use x509_cert::crl::CertificateList;
use x509_cert::ext::Extension;

use super::certificate::{AmdCertificate, Validity, is_pss_sha384};
use crate::encoding::UnixTime;
use crate::error::SnpError;

/// The most bytes of a revocation list.
pub const CRL_BYTES_MAX: usize = 64 * 1024;
/// The most revocation lists of one piece of evidence: AMD has one for ASKs and one for ASVKs.
pub const CRLS_MAX: usize = 2;

/// What must be there of revocation lists. There is no default: who calls chooses, and a policy says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CrlRule {
    /// A list that is in force at `now` must be there: without one nothing is released (fail closed).
    Required,
    /// Whatever is there is checked, and what it revokes is refused even if it is out of date; having none, or none
    /// that is in force, is no reason to refuse (fail open). Claims say which it was.
    IfPresent,
}

/// What was there of revocation lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CrlStatus {
    /// None.
    Absent,
    /// None that is in force.
    OutOfDate,
    /// At least one in force.
    Current {
        /// When the longest one ends.
        next_update: UnixTime,
    },
}

/// A list that the ARK signed.
#[derive(Clone, Debug)]
pub(crate) struct Crl {
    window: Validity,
    /// Serial numbers: the bytes of their INTEGERs without leading zeros.
    revoked: Vec<Vec<u8>>,
}

impl Crl {
    /// Reads one DER revocation list and checks that `root` signed it, and that it lists all that `root` revoked.
    ///
    /// A list that is for a part only says so in a critical extension (issuingDistributionPoint, deltaCRLIndicator),
    /// and is refused. AMD serves two lists of the same ARK without such an extension; neither shows by its bytes which
    /// of the two it is, so whoever collects them must take the one that the intermediate's certificate points to.
    pub(crate) fn verify(der: &[u8], root: &AmdCertificate) -> Result<Self, SnpError> {
        if der.len() > CRL_BYTES_MAX {
            return Err(SnpError::CrlTooLarge { found: der.len() });
        }
        let (tbs, issuer) = read_raw(der).map_err(|_| SnpError::CrlMalformed)?;
        let list: CertificateList = CertificateList::from_der(der).map_err(|_| SnpError::CrlMalformed)?;
        let parsed = &list.tbs_cert_list;
        if parsed.version != Version::V2 {
            return Err(SnpError::CrlVersion);
        }
        if issuer != root.subject() || !root.signs_crls() {
            return Err(SnpError::CrlIssuer);
        }
        if parsed.signature != list.signature_algorithm || !is_pss_sha384(&list.signature_algorithm) {
            return Err(SnpError::CrlPss);
        }
        let signature = list.signature.as_bytes().ok_or(SnpError::CrlMalformed)?;
        root.verify_pss(tbs, signature).map_err(|_| SnpError::CrlSignatureInvalid)?;
        refuse_critical(parsed.crl_extensions.as_deref())?;
        let next_update = parsed.next_update.ok_or(SnpError::CrlNextUpdateMissing)?;
        let mut revoked = Vec::new();
        for entry in parsed.revoked_certificates.iter().flatten() {
            refuse_critical(entry.crl_entry_extensions.as_deref())?;
            revoked.push(entry.serial_number.as_bytes().to_vec());
        }
        Ok(Self {
            window: Validity {
                not_before: UnixTime(parsed.this_update.to_unix_duration().as_secs()),
                not_after: UnixTime(next_update.to_unix_duration().as_secs()),
            },
            revoked,
        })
    }

    /// thisUpdate and nextUpdate.
    pub(crate) const fn window(&self) -> Validity {
        self.window
    }

    /// Whether it lists a certificate of the ARK.
    pub(crate) fn revokes(&self, certificate: &AmdCertificate) -> bool {
        self.revoked.iter().any(|serial| serial == certificate.serial())
    }
}

/// What the rule makes of lists with these windows at `now`.
pub(crate) fn check_rule(windows: &[Validity], rule: CrlRule, now: UnixTime) -> Result<CrlStatus, SnpError> {
    let in_force = windows.iter().filter(|window| window.check(now).is_ok()).map(|window| window.not_after).max();
    match (in_force, rule) {
        (Some(next_update), CrlRule::Required | CrlRule::IfPresent) => Ok(CrlStatus::Current { next_update }),
        (None, CrlRule::IfPresent) if windows.is_empty() => Ok(CrlStatus::Absent),
        (None, CrlRule::IfPresent) => Ok(CrlStatus::OutOfDate),
        (None, CrlRule::Required) if windows.is_empty() => Err(SnpError::CrlMissing),
        (None, CrlRule::Required) if windows.iter().all(|window| now < window.not_before) => {
            Err(SnpError::CrlNotYetValid)
        }
        (None, CrlRule::Required) => Err(SnpError::CrlStale),
    }
}

/// The bytes of TBSCertList, which are signed, and of its issuer.
fn read_raw(der: &[u8]) -> der::Result<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(der)?;
    let tbs = reader.sequence(|list| {
        let tbs = list.tlv_bytes()?;
        let _algorithm = list.tlv_bytes()?;
        let _signature = list.tlv_bytes()?;
        Ok::<_, der::Error>(tbs)
    })?;
    reader.finish()?;
    let mut reader = SliceReader::new(tbs)?;
    let issuer = reader.sequence(|fields| {
        if Tag::peek(fields)? == Tag::Integer {
            let _version = fields.tlv_bytes()?;
        }
        let _algorithm = fields.tlv_bytes()?;
        let issuer = fields.tlv_bytes()?;
        while !fields.is_finished() {
            fields.tlv_bytes()?;
        }
        Ok::<_, der::Error>(issuer)
    })?;
    Ok((tbs, issuer))
}

/// No critical extension changes what a list says here; one that is not known might (RFC 5280 §5.2, §5.3).
fn refuse_critical(extensions: Option<&[Extension]>) -> Result<(), SnpError> {
    // Of the known ones only these can be critical without changing which certificates are listed.
    let harmless = [rfc5280::ID_CE_CRL_NUMBER, rfc5280::ID_CE_CRL_REASONS];
    let mut critical = extensions.unwrap_or_default().iter().filter(|extension| extension.critical);
    if critical.any(|extension| !harmless.contains(&extension.extn_id)) {
        return Err(SnpError::CrlExtension);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(not_before: u64, not_after: u64) -> Validity {
        Validity { not_before: UnixTime(not_before), not_after: UnixTime(not_after) }
    }

    #[test]
    fn required_list_must_be_there_and_in_force() {
        let check = |windows: &[Validity], now| check_rule(windows, CrlRule::Required, UnixTime(now));
        let current = |next_update| Ok(CrlStatus::Current { next_update: UnixTime(next_update) });
        assert_eq!(check(&[], 10), Err(SnpError::CrlMissing));
        assert_eq!(check(&[window(10, 20)], 9), Err(SnpError::CrlNotYetValid));
        assert_eq!(check(&[window(10, 20)], 10), current(20));
        assert_eq!(check(&[window(10, 20)], 20), current(20));
        assert_eq!(check(&[window(10, 20)], 21), Err(SnpError::CrlStale));
        assert_eq!(check(&[window(10, 20), window(15, 30)], 16), current(30));
        assert_eq!(check(&[window(10, 20), window(30, 40)], 25), Err(SnpError::CrlStale));
    }

    #[test]
    fn list_that_is_not_required_may_be_missing_or_out_of_date() {
        let check = |windows: &[Validity], now| check_rule(windows, CrlRule::IfPresent, UnixTime(now));
        assert_eq!(check(&[], 10), Ok(CrlStatus::Absent));
        assert_eq!(check(&[window(10, 20)], 21), Ok(CrlStatus::OutOfDate));
        assert_eq!(check(&[window(10, 20)], 15), Ok(CrlStatus::Current { next_update: UnixTime(20) }));
    }
}
