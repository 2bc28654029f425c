//! What a guest must start with the weights.

use std::fmt;

use attestation::{Sha256Digest, Workload};

use super::rules::Permitted;

/// `workloads` of a release rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkloadRule {
    /// The key is not there: no guest is asked, and none may say.
    NotAsked,
    /// A guest has to show what it starts, which goes into the log: one of these, or anything.
    Asked(Permitted<WorkloadPin>),
}

/// One workload that a rule allows. `None`: `"any"`, spelled out, which a policy may not say of program and environment:
/// arguments and names without those are of any program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadPin {
    /// The file of the program, or script and interpreter.
    pub program: Sha256Digest,
    /// Its arguments, and the name that it is called by.
    pub arguments: Option<Sha256Digest>,
    /// Its environment variables, all of them.
    pub environment: Sha256Digest,
    /// What the agent's image is called.
    pub image: Option<Sha256Digest>,
}

/// A part of a workload, in the order in which they are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkloadField {
    /// `program`.
    Program,
    /// `arguments`.
    Arguments,
    /// `environment`.
    Environment,
    /// `image`.
    Image,
}

/// Why what a guest starts is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkloadMismatch {
    /// It does not say what it starts.
    Missing,
    /// It says so, and the rule does not ask.
    Unasked,
    /// Something else than any entry of the rule has. Of the entries that agree with it longest:
    Differs {
        /// the first part that they do not agree in,
        field: WorkloadField,
        /// what they have there,
        expected: Vec<Sha256Digest>,
        /// and what it has; `None`: no image is named.
        seen: Option<Sha256Digest>,
    },
}

impl WorkloadRule {
    /// Whether a guest is asked.
    #[must_use]
    pub const fn asks(&self) -> bool {
        matches!(self, Self::Asked(_))
    }

    /// What a guest shows that asks for keys: as much as it is asked for, and no more, since nobody would look at the rest.
    ///
    /// # Errors
    /// [`WorkloadMismatch`].
    pub fn check_load(&self, shown: Option<&Workload>) -> Result<(), WorkloadMismatch> {
        match (self, shown) {
            (Self::NotAsked, Some(_)) => Err(WorkloadMismatch::Unasked),
            (Self::NotAsked, None) | (Self::Asked(_), _) => self.check_lease(shown),
        }
    }

    /// What runs under a lease, as its release says. The rule may have asked then and ask no more.
    ///
    /// # Errors
    /// [`WorkloadMismatch`].
    pub fn check_lease(&self, shown: Option<&Workload>) -> Result<(), WorkloadMismatch> {
        match (self, shown) {
            (Self::NotAsked, _) | (Self::Asked(Permitted::Any), Some(_)) => Ok(()),
            (Self::Asked(_), None) => Err(WorkloadMismatch::Missing),
            (Self::Asked(Permitted::Only(pins)), Some(shown)) => check(pins, shown),
        }
    }
}

fn check(pins: &[WorkloadPin], shown: &Workload) -> Result<(), WorkloadMismatch> {
    let mut differences = Vec::new();
    for pin in pins {
        match pin.difference(shown) {
            None => return Ok(()),
            Some(difference) => differences.push(difference),
        }
    }
    let field = differences.iter().map(|(field, _)| *field).max().unwrap_or(WorkloadField::Program);
    let mut expected: Vec<Sha256Digest> = Vec::new();
    for (_, digest) in differences.into_iter().filter(|(of, _)| *of == field) {
        if !expected.contains(&digest) {
            expected.push(digest);
        }
    }
    Err(WorkloadMismatch::Differs { field, expected, seen: field.of(shown) })
}

impl WorkloadPin {
    /// Its fields by name.
    #[must_use]
    pub const fn fields(&self) -> [(WorkloadField, Option<Sha256Digest>); 4] {
        [
            (WorkloadField::Program, Some(self.program)),
            (WorkloadField::Arguments, self.arguments),
            (WorkloadField::Environment, Some(self.environment)),
            (WorkloadField::Image, self.image),
        ]
    }

    /// The first field that is not as it is pinned, and what it should be.
    fn difference(&self, shown: &Workload) -> Option<(WorkloadField, Sha256Digest)> {
        let pinned = self.fields().into_iter().filter_map(|(field, pin)| pin.map(|pin| (field, pin)));
        pinned.into_iter().find(|(field, pin)| field.of(shown) != Some(*pin))
    }
}

impl WorkloadField {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Program, Self::Arguments, Self::Environment, Self::Image];

    /// This part of a workload.
    #[must_use]
    pub const fn of(self, workload: &Workload) -> Option<Sha256Digest> {
        match self {
            Self::Program => Some(workload.program),
            Self::Arguments => Some(workload.arguments),
            Self::Environment => Some(workload.environment),
            Self::Image => workload.image,
        }
    }

    /// Its key in a policy.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Arguments => "arguments",
            Self::Environment => "environment",
            Self::Image => "image",
        }
    }

    /// Code of the refusal of another.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Program => "workload-program",
            Self::Arguments => "workload-arguments",
            Self::Environment => "workload-environment",
            Self::Image => "workload-image",
        }
    }
}

impl WorkloadMismatch {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "workload-missing",
            Self::Unasked => "workload-unasked",
            Self::Differs { field, .. } => field.code(),
        }
    }

    /// Claim, expected and seen, in words.
    #[must_use]
    pub fn words(&self) -> (&'static str, String, String) {
        match self {
            Self::Missing => ("workload", "digests of what is started".to_owned(), "none".to_owned()),
            Self::Unasked => ("workload", "none".to_owned(), "digests of what is started".to_owned()),
            Self::Differs { field, expected, seen } => {
                let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
                let seen = seen.map_or_else(|| "none".to_owned(), |seen| seen.to_string());
                (field.claim(), format!("one of {}", expected.join(", ")), seen)
            }
        }
    }
}

impl WorkloadField {
    const fn claim(self) -> &'static str {
        match self {
            Self::Program => "program of the workload",
            Self::Arguments => "arguments of the workload",
            Self::Environment => "environment of the workload",
            Self::Image => "image of the workload",
        }
    }
}

impl fmt::Display for WorkloadField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// As in a policy, what is `"any"` left out.
impl fmt::Display for WorkloadPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pinned = self.fields().into_iter().filter_map(|(field, pin)| pin.map(|pin| format!("{field} {pin}")));
        write!(f, "{{{}}}", pinned.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Sha256Digest {
        Sha256Digest::from_bytes([n; 32])
    }

    fn shown() -> Workload {
        Workload { program: digest(1), arguments: digest(2), environment: digest(3), image: Some(digest(4)) }
    }

    fn pin() -> WorkloadPin {
        let Workload { program, arguments, environment, image } = shown();
        WorkloadPin { program, arguments: Some(arguments), environment, image }
    }

    fn only(pins: &[WorkloadPin]) -> WorkloadRule {
        WorkloadRule::Asked(Permitted::Only(pins.to_vec()))
    }

    #[test]
    fn each_part_that_is_pinned_is_compared_and_no_other() {
        assert_eq!(only(&[pin()]).check_load(Some(&shown())), Ok(()));
        let others = [
            (Workload { program: digest(9), ..shown() }, None, "workload-program"),
            (
                Workload { arguments: digest(9), ..shown() },
                Some(WorkloadPin { arguments: None, ..pin() }),
                "workload-arguments",
            ),
            (Workload { environment: digest(9), ..shown() }, None, "workload-environment"),
            (
                Workload { image: Some(digest(9)), ..shown() },
                Some(WorkloadPin { image: None, ..pin() }),
                "workload-image",
            ),
            (Workload { image: None, ..shown() }, Some(WorkloadPin { image: None, ..pin() }), "workload-image"),
        ];
        for (other, open, code) in others {
            assert_eq!(only(&[pin()]).check_load(Some(&other)).unwrap_err().code(), code);
            if let Some(open) = open {
                assert_eq!(only(&[open]).check_load(Some(&other)), Ok(()), "{code}");
            }
        }
    }

    #[test]
    fn the_entry_that_agrees_longest_says_what_is_wrong() {
        let other_program = WorkloadPin { program: digest(9), ..pin() };
        let arguments = [7, 8].map(|n| WorkloadPin { arguments: Some(digest(n)), ..pin() });
        let rule = only(&[other_program, arguments[0], arguments[1], arguments[0]]);
        let (field, seen) = (WorkloadField::Arguments, Some(digest(2)));
        let expected = vec![digest(7), digest(8)];
        assert_eq!(rule.check_load(Some(&shown())), Err(WorkloadMismatch::Differs { field, expected, seen }));
    }

    #[test]
    fn who_is_asked_shows_and_who_is_not_does_not() {
        let any = WorkloadRule::Asked(Permitted::Any);
        assert_eq!(any.check_load(Some(&shown())), Ok(()));
        for asked in [any, only(&[pin()])] {
            assert_eq!(asked.check_load(None), Err(WorkloadMismatch::Missing));
            assert_eq!(asked.check_lease(None), Err(WorkloadMismatch::Missing));
        }
        assert_eq!(WorkloadRule::NotAsked.check_load(None), Ok(()));
        assert_eq!(WorkloadRule::NotAsked.check_load(Some(&shown())), Err(WorkloadMismatch::Unasked));
        assert_eq!(WorkloadRule::NotAsked.check_lease(Some(&shown())), Ok(()));
    }
}
