//! The side of the vault that uses a model: `load`, `run` and `agent`.
//!
//! ```text
//! load, run ──Job──▶ loader (a child): challenge ▶ evidence ▶ Session::accept ▶ units opened in place ──▶ ends
//!     ▲                  │ signed lease, release entry                    │ files
//!     └──────────────────┴───────────────adopts──────────────────────────┘
//!  then: renews from a third of the lease on, wipes at its end
//! ```
//! The loader alone touches unit keys; the parent holds the lease key, nothing else. What a host or keeper says is checked
//! in [`session`]; how long a lease lasts by this machine's clock is in [`term`].

pub mod attester;
pub mod command;
pub mod error;
pub mod event_log;
pub mod init;
pub mod lease_signer;
pub mod library;
pub mod load;
pub mod loader;
pub mod machine;
pub mod numa;
pub mod options;
pub mod part;
pub mod ready;
pub mod remote;
pub mod run;
pub mod serve;
pub mod session;
pub mod sources;
pub mod spec;
pub mod started;
pub mod status;
pub mod term;
pub mod user;

mod child;
mod extensions;
mod fetch;
mod fixed;
mod follow;
mod holder;
mod in_use;
mod job;
mod look;
mod mount;
mod namespace;
mod outage;

mod progress;
mod refusals;
mod report;
mod served;
mod state;
mod stream;
mod supervise;
mod watcher;

#[cfg(test)]
mod fetch_tests;
#[cfg(test)]
mod session_tests;
