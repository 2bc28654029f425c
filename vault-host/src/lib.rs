//! The untrusted gRPC broker of a weight vault: stores ciphertext and the log, relays to the keeper, limits, serves.
//!
//! It decides nothing. The keeper verifies whatever this host lets through, agents and auditors check whatever it hands
//! out, and neither key nor plaintext ever comes here: at worst it can refuse service. What it does promise is that
//! bytes it reported as stored are still there after a crash, and that no caller can use more than a bounded share of
//! it.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = vault_host::Config::read("/etc/weightvault/host.toml".as_ref())?;
//! let host = vault_host::BoundHost::bind(config).await?;
//! host.serve(std::future::pending()).await?;
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod admission;
mod config;
mod journal;
mod link;
mod server;
mod service;
mod status;
mod store;
mod telemetry;

pub use config::{CONFIG_TEMPLATE, Config, ConfigError, KeeperTls, Limits, LogFormat, StoreConfig, Tls, Witness};
pub use link::KeeperAddress;
pub use server::{BoundHost, ServeError, check_store, check_tls};
pub use service::WORK_MAX;
pub use status::REFUSAL_TRAILER;
pub use store::{
    BucketConfig, BucketError, Copied, PostgresConfig, PostgresError, StoreError, UnitsConfig, copy_store,
};
pub use telemetry::{LOG_FILTER_VARIABLE, init as init_log_lines};
