//! Where the witnesses of a vault are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use vault_proto::http::ServiceUrl;

use super::ConfigError;

/// As many as a policy can name.
const WITNESSES_MAX: usize = 16;

/// Where one witness is. What it signs is checked by the keeper, so that https is for reachability and privacy alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Its submission prefix (C2SP tlog-witness).
    pub url: ServiceUrl,
    /// PEM file of who signs its certificate; without it the system's authorities do.
    pub ca: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWitness {
    url: String,
    ca: Option<PathBuf>,
}

pub(super) fn checked(raw: BTreeMap<String, RawWitness>) -> Result<BTreeMap<String, Witness>, ConfigError> {
    if raw.len() > WITNESSES_MAX {
        return Err(ConfigError::Witness { name: String::new(), hint: "a vault has at most 16 witnesses" });
    }
    let checked = raw.into_iter().map(|(name, RawWitness { url, ca })| {
        let refuse = |hint| ConfigError::Witness { name: name.clone(), hint };
        let url: ServiceUrl =
            url.parse().map_err(|_| refuse("url is http://HOST:PORT/PATH or https://HOST:PORT/PATH"))?;
        if ca.is_some() && !url.is_https() {
            return Err(refuse("ca is for a witness at https://, and this one is not"));
        }
        Ok((name, Witness { url, ca }))
    });
    checked.collect()
}
