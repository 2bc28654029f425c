//! Evidence explained to a person: one line a field, what it means, and whether it deserves a second look.

mod eventlog;
mod hcl;
mod report;
mod tpm;

use std::fmt;

use serde::Serialize;

pub use eventlog::{explain_boot, explain_events, explain_replay};
pub use hcl::explain_runtime_data;
pub use report::explain_report;
pub use tpm::{explain_identity, explain_pcrs, explain_quote};

/// A part of a file.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// What it is.
    pub title: String,
    /// Its fields, in their order.
    pub fields: Vec<Explained>,
}

/// A field.
#[derive(Debug, Clone, Serialize)]
pub struct Explained {
    /// Its name.
    pub field: String,
    /// What it holds.
    pub value: String,
    /// What that means.
    pub meaning: &'static str,
    /// Why it deserves a second look, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_look: Option<&'static str>,
}

impl Explained {
    /// A field that deserves none.
    pub fn new(field: impl Into<String>, value: impl fmt::Display, meaning: &'static str) -> Self {
        Self { field: field.into(), value: value.to_string(), meaning, second_look: None }
    }

    /// It deserves one for this reason if `does`.
    #[must_use]
    pub fn look_if(mut self, does: bool, why: &'static str) -> Self {
        if does {
            self.second_look = Some(why);
        }
        self
    }
}

/// On or off.
pub(super) fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let width = self.fields.iter().map(|line| line.field.chars().count()).max().unwrap_or(0);
        for line in &self.fields {
            let mark = if line.second_look.is_some() { '!' } else { ' ' };
            write!(f, "{mark} {:<width$}  {}  ({})", line.field, line.value, line.meaning)?;
            match line.second_look {
                Some(why) => writeln!(f, "  <- SECOND LOOK: {why}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}
