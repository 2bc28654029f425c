//! Reads an `snp` section.

use attestation::{CrlRule, FirmwareVersion, TcbVersion};

use super::error::{PolicyError, PolicyProblem};
use super::fields::{Field, Fields};
use super::snp::{Allowed, MinTcb, PlatformFeature, Sha384, SnpRule};
use super::{rules::Permitted, value};

/// Longest id of a cloud, in bytes.
const CSP_BYTES_MAX: usize = 128;

/// Which proof covers the code that runs after the firmware: stock images measure the firmware alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CodeCoveredBy {
    /// The launch digest.
    Launch,
    /// The paravisor's virtual TPM.
    ParavisorVtpm,
}

/// The section of a keeper, whose code the launch digest must cover.
pub(super) fn launched(fields: Fields) -> Result<SnpRule, PolicyError> {
    let (covered, rule) = rule(fields)?;
    match covered.value {
        CodeCoveredBy::Launch => Ok(rule),
        CodeCoveredBy::ParavisorVtpm => Err(covered.refuse(PolicyProblem::CodeCoverUnknown)),
    }
}

/// The section, and what it says of the code.
pub(super) fn rule(mut fields: Fields) -> Result<(Field<CodeCoveredBy>, SnpRule), PolicyError> {
    let covered = fields.text("code_covered_by")?;
    let value = match covered.value.as_str() {
        "launch" => CodeCoveredBy::Launch,
        "paravisor-vtpm" => CodeCoveredBy::ParavisorVtpm,
        _ => return Err(covered.refuse(PolicyProblem::CodeCoverUnknown)),
    };
    let rule = SnpRule {
        measurements: sha384s(&mut fields, "measurements")?,
        chips: match fields.any_or_texts("chips")? {
            None => Permitted::Any,
            Some(chips) => Permitted::Only(chips.iter().map(value::digest).collect::<Result<_, _>>()?),
        },
        csps: if_there(&mut fields, "csps", |fields, key| fields.texts(key)?.into_iter().map(csp).collect())?
            .unwrap_or_default(),
        min_tcb: min_tcb(fields.table("min_tcb")?)?,
        vmpl: number(&fields.count("vmpl")?, 3)?,
        min_report_version: report_version(&fields.count("min_report_version")?)?,
        crl: crl(&fields.text("crl")?)?,
        smt: allowed(fields.yes_or_no("smt")?),
        provisional_firmware: allowed(fields.yes_or_no("provisional_firmware")?),
        host_data: if_there(&mut fields, "host_data", host_data)?,
        id_keys: if_there(&mut fields, "id_keys", sha384s)?,
        author_keys: if_there(&mut fields, "author_keys", sha384s)?,
        min_guest_svn: if_there(&mut fields, "min_guest_svn", |fields, key| number(&fields.count(key)?, u32::MAX))?,
        min_firmware: if_there(&mut fields, "min_firmware", firmware)?,
        platform: if_there(&mut fields, "platform", features)?.unwrap_or_default(),
    };
    fields.finish()?;
    Ok((Field { key: covered.key, value }, rule))
}

/// A key that only narrows may be left out.
fn if_there<T>(
    fields: &mut Fields,
    key: &str,
    read: impl FnOnce(&mut Fields, &str) -> Result<T, PolicyError>,
) -> Result<Option<T>, PolicyError> {
    if fields.has(key) { read(fields, key).map(Some) } else { Ok(None) }
}

fn sha384s(fields: &mut Fields, key: &str) -> Result<Vec<Sha384>, PolicyError> {
    fields.texts(key)?.iter().map(|field| value::lower_hex(field, PolicyProblem::Sha384Malformed)).collect()
}

/// The id of a cloud, as its VLEK's certificate has it. Approvers read it: no line break may pass for a line of ours.
fn csp(field: Field<String>) -> Result<String, PolicyError> {
    let printable = field.value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    match (1..=CSP_BYTES_MAX).contains(&field.value.len()) && printable {
        true => Ok(field.value),
        false => Err(field.refuse(PolicyProblem::CspMalformed)),
    }
}

fn host_data(fields: &mut Fields, key: &str) -> Result<Vec<[u8; 32]>, PolicyError> {
    fields.texts(key)?.iter().map(|field| value::lower_hex(field, PolicyProblem::HostDataMalformed)).collect()
}

fn features(fields: &mut Fields, key: &str) -> Result<Vec<PlatformFeature>, PolicyError> {
    let known = |field: &Field<String>| {
        let found = PlatformFeature::ALL.iter().find(|(_, name)| *name == field.value);
        found.map(|(feature, _)| *feature).ok_or_else(|| field.refuse(PolicyProblem::PlatformFeatureUnknown))
    };
    fields.texts(key)?.iter().map(known).collect()
}

fn min_tcb(mut fields: Fields) -> Result<MinTcb, PolicyError> {
    let key = fields.path().to_owned();
    let mut of =
        |product: &str, has_fmc: bool| if_there(&mut fields, product, |fields, key| tcb(fields.table(key)?, has_fmc));
    let min = MinTcb { milan: of("milan", false)?, genoa: of("genoa", false)?, turin: of("turin", true)? };
    fields.finish()?;
    if min.iter().next().is_none() {
        return Err(PolicyError { key, problem: PolicyProblem::MinTcbEmpty });
    }
    Ok(min)
}

/// Every part of the TCB of a product: one that were left out would not be looked at.
fn tcb(mut fields: Fields, has_fmc: bool) -> Result<TcbVersion, PolicyError> {
    let mut part = |key: &str| number(&fields.count(key)?, u8::MAX);
    let version = TcbVersion {
        fmc: if has_fmc { Some(part("fmc")?) } else { None },
        bootloader: part("bootloader")?,
        tee: part("tee")?,
        snp: part("snp")?,
        microcode: part("microcode")?,
    };
    fields.finish()?;
    Ok(version)
}

/// A number up to `max`.
fn number<T: TryFrom<u64> + Copy + Into<u64>>(field: &Field<u64>, max: T) -> Result<T, PolicyError> {
    let max_value: u64 = max.into();
    match T::try_from(field.value) {
        Ok(number) if field.value <= max_value => Ok(number),
        _ => Err(field.refuse(PolicyProblem::NumberTooLarge { max: max_value })),
    }
}

fn report_version(field: &Field<u64>) -> Result<u32, PolicyError> {
    match field.value {
        2..=5 => number(field, 5),
        _ => Err(field.refuse(PolicyProblem::ReportVersionUnknown)),
    }
}

fn crl(field: &Field<String>) -> Result<CrlRule, PolicyError> {
    match field.value.as_str() {
        "required" => Ok(CrlRule::Required),
        "if-present" => Ok(CrlRule::IfPresent),
        _ => Err(field.refuse(PolicyProblem::CrlRuleUnknown)),
    }
}

fn allowed(field: Field<bool>) -> Allowed {
    if field.value { Allowed::Yes } else { Allowed::No }
}

/// `major.minor.build`, decimal without leading zeros.
fn firmware(fields: &mut Fields, key: &str) -> Result<FirmwareVersion, PolicyError> {
    let field = fields.text(key)?;
    let parts: Option<Vec<u8>> = field.value.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some(&[major, minor, build]) if format!("{major}.{minor}.{build}") == field.value => {
            Ok(FirmwareVersion { major, minor, build })
        }
        _ => Err(field.refuse(PolicyProblem::FirmwareVersionMalformed)),
    }
}
