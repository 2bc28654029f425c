//! `vaultctl models`

use std::fmt;

use attestation::Sha256Digest;
use serde::Serialize;

use crate::audit;
use crate::client::ListedModel;
use crate::failure::Failure;
use crate::print::{count_of, size};
use crate::session::Session;

/// The published models, from the verified log.
#[derive(Debug, Serialize)]
pub(crate) struct ModelsReport {
    vault: Sha256Digest,
    models: Vec<ModelReport>,
}

#[derive(Debug, Serialize)]
struct ModelReport {
    model: String,
    version: String,
    manifest: Sha256Digest,
    publisher: Sha256Digest,
    bytes: u64,
    units: u32,
    entry: u64,
    /// Whether the host that was asked says that it can deliver this very manifest.
    at_host: bool,
}

pub(crate) async fn models(session: &Session) -> Result<ModelsReport, Failure> {
    let file = session.vault()?;
    let remote = session.remote(&file).await?;
    let log = audit::read_log(&remote, &file).await?;
    let listed = remote.models().await?;
    let models = log.vault()?.models().map(|published| {
        let proposed = &published.proposed;
        let is_this = |listed: &ListedModel| {
            listed.model == proposed.model.as_str()
                && listed.version == proposed.version.as_str()
                && listed.manifest == proposed.manifest
        };
        ModelReport {
            model: proposed.model.to_string(),
            version: proposed.version.to_string(),
            manifest: proposed.manifest,
            publisher: proposed.publisher,
            bytes: proposed.bytes,
            units: proposed.units,
            entry: published.entry,
            at_host: listed.iter().any(is_this),
        }
    });
    Ok(ModelsReport { vault: file.id(), models: models.collect() })
}

impl fmt::Display for ModelsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.models.is_empty() {
            writeln!(f, "No model is published.")?;
            return writeln!(
                f,
                "Next: `vault-enclave seal` proposes one; `vaultctl pending --vault FILE` shows what waits"
            );
        }
        for model in &self.models {
            let units = count_of(u64::from(model.units), "unit");
            writeln!(f, "{}@{}  {} in {units}", model.model, model.version, size(model.bytes))?;
            writeln!(f, "  manifest  {}", model.manifest)?;
            writeln!(f, "  publisher {}", model.publisher)?;
            if !model.at_host {
                writeln!(f, "  this host does not say that it can deliver it")?;
            }
        }
        Ok(())
    }
}
