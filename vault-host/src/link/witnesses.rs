//! Asking witnesses, for a keeper that has no network: POST `add-checkpoint` (C2SP tlog-witness) to the addresses of the
//! configuration. The keeper checks what comes back; a host that changes it gets no cosignature.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use vault_proto::http::{RootsError, Service, connector};
use vault_proto::v1::{AskWitness, WitnessAnswer, store_result};

use crate::config::Witness;

/// How long a witness may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longest answer, in bytes: what the keeper reads.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// Requests under way to one witness: one that answers slowly is left out of what comes meanwhile.
const CALLS_MAX: usize = 4;

/// The witnesses of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Witnesses(Arc<BTreeMap<String, Place>>);

#[derive(Debug)]
struct Place {
    service: Service,
    calls: Semaphore,
}

impl Witnesses {
    /// Reads the authorities that https addresses need.
    ///
    /// # Errors
    /// The witness's name, and what is wrong with the file.
    pub(crate) fn new(configured: &BTreeMap<String, Witness>) -> Result<Self, (String, RootsError)> {
        let places = configured.iter().map(|(name, Witness { url, ca })| {
            let tls = url.is_https().then(|| connector(ca.as_deref())).transpose();
            let service = Service::new(url.clone(), tls.map_err(|error| (name.clone(), error))?);
            Ok((name.clone(), Place { service, calls: Semaphore::new(CALLS_MAX) }))
        });
        Ok(Self(Arc::new(places.collect::<Result<_, _>>()?)))
    }

    /// One request. It takes no longer than a witness may.
    pub(super) async fn ask(&self, AskWitness { name, body }: AskWitness) -> store_result::Result {
        let failed = |why: &dyn std::fmt::Display| store_result::Result::Error(format!("{why}"));
        let Some(place) = self.0.get(&name) else {
            return failed(&"the host's configuration has no [witnesses] address for it");
        };
        let Ok(_place) = place.calls.try_acquire() else {
            return failed(&"it still owes the host answers");
        };
        match place.service.post("/add-checkpoint", body, ANSWER_BYTES_MAX, ANSWER_WITHIN).await {
            Ok(response) => {
                let status = response.status().as_u16().into();
                store_result::Result::WitnessAnswer(WitnessAnswer { status, body: response.into_body() })
            }
            Err(error) => {
                tracing::warn!(witness = name, %error, "a witness was not reached");
                failed(&error)
            }
        }
    }
}
