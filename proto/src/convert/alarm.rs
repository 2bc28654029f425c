//! Alarms in a status.

use attestation::UnixTime;
use ledger::policy::ALARMS_MAX;
use ledger::state::Alarm;

use super::{Fault, WireError, digest, name, version};
use crate::v1;

/// Every rule of a policy, and break-glass.
const RULES_MAX: usize = ALARMS_MAX + 1;

impl TryFrom<v1::AlarmSummary> for Alarm {
    type Error = WireError;

    fn try_from(alarm: v1::AlarmSummary) -> Result<Self, WireError> {
        const CODE: &str = "malformed-rules";
        if alarm.rules.len() > RULES_MAX {
            let fault = Fault::TooLarge { max: RULES_MAX, found: alarm.rules.len() };
            return Err(WireError::new(CODE, fault));
        }
        Ok(Self {
            entry: alarm.entry,
            time: UnixTime(alarm.time),
            rules: alarm.rules.into_iter().map(|rule| name(CODE, rule)).collect::<Result<_, _>>()?,
            model: name("malformed-model", alarm.model)?,
            version: version("malformed-version", alarm.version)?,
            platform: digest("malformed-platform", &alarm.platform)?,
        })
    }
}

impl From<Alarm> for v1::AlarmSummary {
    fn from(alarm: Alarm) -> Self {
        Self {
            entry: alarm.entry,
            time: alarm.time.seconds(),
            rules: alarm.rules.iter().map(ToString::to_string).collect(),
            model: alarm.model.to_string(),
            version: alarm.version.to_string(),
            platform: alarm.platform.as_bytes().to_vec(),
        }
    }
}
