//! `vaultctl explain`

use std::fmt;

use attestation::UnixTime;
use serde::Serialize;

use crate::failure::Failure;
use crate::print::{distance, moment};
use crate::session::Session;

/// The exact reason of a refusal, as the host's journal has it.
#[derive(Debug, Serialize)]
pub(crate) struct ExplainReport {
    request_id: String,
    code: String,
    message: String,
    method: String,
    time: UnixTime,
    #[serde(skip)]
    now: UnixTime,
}

pub(crate) async fn explain(session: &Session, request_id: &str) -> Result<ExplainReport, Failure> {
    let remote = match session.vault_if_named()? {
        Some(vault) => session.remote(&vault).await?,
        None => session.named_host().await?,
    };
    let explanation = remote.explain(request_id).await?;
    Ok(ExplainReport {
        request_id: request_id.to_owned(),
        code: explanation.code,
        message: explanation.message,
        method: explanation.method,
        time: UnixTime(explanation.time),
        now: session.now(),
    })
}

impl fmt::Display for ExplainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} was refused: {}", self.method, self.code)?;
        writeln!(f, "  why:  {}", self.message)?;
        writeln!(f, "  when: {} ({})", moment(self.time), distance(self.time, self.now))
    }
}
