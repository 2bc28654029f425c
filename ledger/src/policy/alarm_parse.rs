//! `[alarm.NAME]` from its text.

use std::collections::BTreeMap;

use super::alarm::{ALARMS_MAX, AlarmOn, AlarmRule, AlarmThen, Hours, WEEKDAYS};
use super::budget::Budget;
use super::error::{PolicyError, PolicyProblem};
use super::fields::{Field, Fields};
use super::{parse, value};
use crate::names::Name;

/// All alarm rules, by name. A raise names a budget or an alarm: none has the name of the other.
pub(super) fn alarms(
    root: &mut Fields,
    budgets: &BTreeMap<Name, Budget>,
) -> Result<BTreeMap<Name, AlarmRule>, PolicyError> {
    let (key, there) = (root.key("alarm"), root.has("alarm"));
    let sections = root.named_tables_if_any("alarm")?;
    if there && sections.is_empty() {
        return Err(PolicyError { key, problem: PolicyProblem::AlarmEmpty });
    }
    if sections.len() > ALARMS_MAX {
        return Err(PolicyError { key, problem: PolicyProblem::TooManyAlarms { found: sections.len() } });
    }
    for (name, _) in &sections {
        if budgets.contains_key(&value::name(name)?) {
            return Err(name.refuse(PolicyProblem::IdRepeated));
        }
    }
    parse::by_name(sections, alarm)
}

fn alarm(mut fields: Fields) -> Result<AlarmRule, PolicyError> {
    let models = parse::models(&mut fields)?;
    let on = fields.text("on")?;
    let on = match on.value.as_str() {
        "new-platform" => AlarmOn::NewPlatform,
        "new-measurement" => AlarmOn::NewMeasurement,
        "more-leases" => AlarmOn::MoreLeases { more_than: more_than(&fields.count("more_than")?)? },
        "outside-hours" => AlarmOn::OutsideHours(hours(&mut fields)?),
        "canary" => AlarmOn::Canary,
        _ => return Err(on.refuse(PolicyProblem::AlarmOnUnknown)),
    };
    let then = fields.text("then")?;
    let then = match then.value.as_str() {
        "alarm" => AlarmThen::Alarm,
        "hold" => AlarmThen::Hold,
        _ => return Err(then.refuse(PolicyProblem::AlarmThenUnknown)),
    };
    fields.finish()?;
    Ok(AlarmRule { models, on, then })
}

fn more_than(field: &Field<u64>) -> Result<u64, PolicyError> {
    match field.value {
        0 => Err(field.refuse(PolicyProblem::MoreThanZero)),
        count => Ok(count),
    }
}

/// `08:00-20:00` of some days.
fn hours(fields: &mut Fields) -> Result<Hours, PolicyError> {
    let field = fields.text("hours")?;
    let bounds = field.value.split_once('-').and_then(|(from, to)| Some((clock(from)?, clock(to)?)));
    let (from, to) =
        bounds.filter(|(from, to)| from < to).ok_or_else(|| field.refuse(PolicyProblem::HoursMalformed))?;
    let mut days = [false; 7];
    for field in fields.texts("days")? {
        let index = WEEKDAYS.iter().position(|name| *name == field.value);
        let day =
            index.and_then(|index| days.get_mut(index)).ok_or_else(|| field.refuse(PolicyProblem::WeekdayUnknown))?;
        *day = true;
    }
    Ok(Hours { from, to, days })
}

/// `HH:MM` from 00:00 to 24:00, in seconds of the day.
fn clock(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| {
        let good = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
        good.then(|| digits.parse::<u64>().ok()).flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let good = (hours < 24 && minutes < 60) || (hours, minutes) == (24, 0);
    good.then_some(hours * 3600 + minutes * 60)
}
