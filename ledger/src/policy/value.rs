//! Single values of a policy, from their text.

use attestation::{Sha256Digest, UnixTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::{PolicyError, PolicyProblem};
use super::fields::Field;
use super::rules::{LeaseEnd, LeaseTime};
use crate::approvals::ApproverKey;
use crate::names::{Group, Name};

pub(super) fn name(field: &Field<String>) -> Result<Name, PolicyError> {
    Name::try_from(field.value.as_str()).map_err(|_| field.refuse(PolicyProblem::NameMalformed))
}

pub(super) fn group(field: &Field<String>) -> Result<Group, PolicyError> {
    Group::try_from(field.value.as_str()).map_err(|_| field.refuse(PolicyProblem::GroupMalformed))
}

pub(super) fn digest(field: &Field<String>) -> Result<Sha256Digest, PolicyError> {
    field.value.parse().map_err(|_| field.refuse(PolicyProblem::DigestMalformed))
}

pub(super) fn approver_key(field: &Field<String>) -> Result<ApproverKey, PolicyError> {
    ApproverKey::parse(&field.value).map_err(|error| field.refuse(PolicyProblem::SshKeyRefused(error)))
}

/// RFC 3339 in UTC, whole seconds, from 1970 on: one moment has one spelling.
pub(super) fn time(field: &Field<String>) -> Result<UnixTime, PolicyError> {
    let refused = || field.refuse(PolicyProblem::NotAfterMalformed);
    let time = OffsetDateTime::parse(&field.value, &Rfc3339).map_err(|_| refused())?;
    let seconds = u64::try_from(time.unix_timestamp()).map_err(|_| refused())?;
    if time.format(&Rfc3339).ok().as_deref() != Some(field.value.as_str()) || !field.value.ends_with('Z') {
        return Err(refused());
    }
    Ok(UnixTime(seconds))
}

/// 64 lower-case hex digits.
pub(super) fn pcr_value(field: &Field<String>) -> Result<[u8; 32], PolicyError> {
    lower_hex(field, PolicyProblem::PcrValueMalformed)
}

/// Twice `N` lower-case hex digits.
pub(super) fn lower_hex<const N: usize>(field: &Field<String>, problem: PolicyProblem) -> Result<[u8; N], PolicyError> {
    let mut value = [0; N];
    let lower = !field.value.bytes().any(|digit| digit.is_ascii_uppercase());
    match hex::decode_to_slice(&field.value, &mut value) {
        Ok(()) if lower => Ok(value),
        _ => Err(field.refuse(problem)),
    }
}

/// A decimal number without leading zeros, 0 to 23.
pub(super) fn pcr_index(field: &Field<String>) -> Result<u32, PolicyError> {
    (0..24)
        .find(|index: &u32| index.to_string() == field.value)
        .ok_or_else(|| field.refuse(PolicyProblem::PcrIndexUnknown))
}

pub(super) fn lease(field: &Field<String>) -> Result<LeaseTime, PolicyError> {
    let seconds = seconds(&field.value).ok_or_else(|| field.refuse(PolicyProblem::DurationMalformed))?;
    LeaseTime::from_seconds(seconds).ok_or_else(|| field.refuse(PolicyProblem::LeaseOutOfBounds { seconds }))
}

pub(super) fn lease_end(field: &Field<String>) -> Result<LeaseEnd, PolicyError> {
    if field.value == "end" {
        return Ok(LeaseEnd::End);
    }
    let drain = field.value.strip_prefix("drain ").and_then(seconds);
    match drain.filter(|seconds| (1..=LeaseEnd::DRAIN_SECS_MAX).contains(seconds)).map(u32::try_from) {
        Some(Ok(seconds)) => Ok(LeaseEnd::Drain { seconds }),
        _ => Err(field.refuse(PolicyProblem::LeaseEndMalformed)),
    }
}

/// `90s`, `15m`, `24h`, `7d`: a whole number without leading zeros and a unit.
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    let count: u64 = number.parse().ok()?;
    (count.to_string() == number).then_some(count)?.checked_mul(scale)
}
