//! Text for people and JSON for programs, from one typed value.

use std::fmt::{self, Display, Write as _};
use std::io;

use attestation::UnixTime;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const SECS_PER_MINUTE: u64 = 60;
const SECS_PER_HOUR: u64 = 60 * SECS_PER_MINUTE;
const SECS_PER_DAY: u64 = 24 * SECS_PER_HOUR;

/// Which form a report has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For a person.
    Text,
    /// One JSON document.
    Json,
}

/// Writes a report, with a newline at its end.
///
/// Text passes through [`Plain`]: much of what is shown comes from a host or from a proposal, and an escape sequence in
/// it could make a terminal show another change than the one that gets signed.
pub fn emit<T: Display + Serialize>(report: &T, form: Form, out: &mut impl io::Write) -> io::Result<()> {
    match form {
        Form::Text => writeln!(out, "{}", Plain(report.to_string().trim_end_matches('\n'))),
        Form::Json => {
            serde_json::to_writer_pretty(&mut *out, report)?;
            writeln!(out)
        }
    }
}

/// Text in which nothing steers a terminal: control characters other than the newline, and the invisible characters that
/// reorder or hide text, are written as `\u{…}`.
pub struct Plain<T>(pub T);

impl<T: AsRef<str>> Display for Plain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().chars().try_for_each(|char| match char {
            '\n' => f.write_char('\n'),
            '\t' => f.write_str("    "),
            _ if steers(char) => write!(f, "{}", char.escape_unicode()),
            _ => f.write_char(char),
        })
    }
}

/// Control characters, and Unicode's directional, zero-width and tag characters ("Trojan Source", CVE-2021-42574).
fn steers(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(char, '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}')
}

/// A moment as RFC 3339 in UTC.
pub fn moment(time: UnixTime) -> String {
    let time = i64::try_from(time.seconds()).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "after the year 9999".to_owned())
}

/// How far a moment is from now, in words: `in 3 days`, `2 hours ago`.
pub fn distance(time: UnixTime, now: UnixTime) -> String {
    match (time.seconds().checked_sub(now.seconds()), now.seconds().saturating_sub(time.seconds())) {
        (Some(0), _) => "now".to_owned(),
        (Some(ahead), _) => format!("in {}", span(ahead)),
        (None, behind) => format!("{} ago", span(behind)),
    }
}

/// A span of time in its two largest units at most.
pub fn span(seconds: u64) -> String {
    let units = [(SECS_PER_DAY, "day"), (SECS_PER_HOUR, "hour"), (SECS_PER_MINUTE, "minute"), (1, "second")];
    let Some(largest) = units.iter().position(|(scale, _)| seconds >= *scale) else {
        return "0 seconds".to_owned();
    };
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (scale, unit) in units.iter().skip(largest).take(2) {
        let count = rest / scale;
        rest %= scale;
        if count > 0 {
            parts.push(count_of(count, unit));
        }
    }
    parts.join(" ")
}

/// `1 entry`, `2 entries`.
pub fn entries(count: u64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

/// `1 unit`, `2 units`.
pub fn count_of(count: u64, unit: &str) -> String {
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

/// A size in decimal units, with three digits.
pub fn size(bytes: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.iter().find(|(scale, _)| bytes >= *scale) {
        None => count_of(bytes, "byte"),
        Some((scale, unit)) => {
            // Two digits after the point, cut and not rounded: 999_999 must not become "1000.00 kB".
            let hundredths = u128::from(bytes) * 100 / u128::from(*scale);
            format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
        }
    }
}

/// Lines under a heading, each with the same indent.
pub fn indented(text: impl Display) -> String {
    let text = text.to_string();
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Two {
        name: String,
    }

    impl Display for Two {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            writeln!(f, "name {}", self.name)
        }
    }

    #[test]
    fn one_value_gives_text_and_json() {
        let value = Two { name: "a".to_owned() };
        let mut out = Vec::new();
        emit(&value, Form::Text, &mut out).unwrap();
        emit(&value, Form::Json, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name a\n{\n  \"name\": \"a\"\n}\n");
    }

    #[test]
    fn text_of_a_stranger_cannot_steer_the_terminal() {
        let value = Two { name: "x\u{1b}[2Ky\rz\u{202e}\u{200b}\u{9b}".to_owned() };
        let mut out = Vec::new();
        emit(&value, Form::Text, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name x\\u{1b}[2Ky\\u{d}z\\u{202e}\\u{200b}\\u{9b}\n");
        assert_eq!(Plain("ä\n\tb").to_string(), "ä\n    b");
    }

    #[test]
    fn times_are_utc_and_distances_have_two_units() {
        assert_eq!(moment(UnixTime(1_800_000_000)), "2027-01-15T08:00:00Z");
        assert_eq!(moment(UnixTime(u64::MAX)), "after the year 9999");
        let now = UnixTime(1_000_000);
        assert_eq!(distance(now, now), "now");
        assert_eq!(distance(now.plus(90), now), "in 1 minute 30 seconds");
        assert_eq!(distance(now.plus(86_400), now), "in 1 day");
        assert_eq!(distance(UnixTime(1_000_000 - 7_260), now), "2 hours 1 minute ago");
        assert_eq!(distance(now.plus(3 * 86_400 + 59), now), "in 3 days");
    }

    #[test]
    fn sizes_are_decimal() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1), "1 byte");
        assert_eq!(size(999_999), "999.99 kB");
        assert_eq!(size(90_868_376), "90.86 MB");
        assert_eq!(size(u64::MAX), "18446744.07 TB");
    }
}
