//! Keeper and agent of Weight Vault: all that may see a key.
//!
//! **Promises.** Keys live in locked pages, have no `Clone`, `Debug`, `Deref` or serde, and are wiped. A key leaves the
//! keeper only as [`keeper`] releases it: wrapped to a key inside verified evidence, after its log entry is durable.
//! What opens units runs in a process that ends with the load, or in the program that has the weights anyway.
//!
//! **Never.** Nothing here trusts the host: what it stores or relays is checked against the head, a digest or a signature.
//!
//! **As a library.** A program attests and has a model in memory of its own, without files ([`agent::library`]);
//! `examples/candle-embed` is one that runs.
//!
//! ```no_run
//! use vault_enclave::{Failure, MachineArgs, ModelRequest, Overdue, Session};
//! # async fn serve() -> Result<(), Failure> {
//! let session = Session::open(MachineArgs::new("/etc/weightvault/vault.json".into())).await?;
//! let request = ModelRequest::new("minilm@1".parse().expect("a name and a version"), Overdue::EndProcess);
//! let model = session.load(request).await?;
//! // Borrowed for one piece of work: nothing is wiped meanwhile.
//! let weights = model.weights()?;
//! for tensor in weights.tensors() {
//!     println!("{} {} {:?}: {} bytes", tensor.name(), tensor.dtype(), tensor.shape(), tensor.bytes().len());
//! }
//! drop(weights);
//! model.lease().lost().await;
//! model.close().await
//! # }
//! ```

pub mod agent;
pub mod bare;
pub mod chip;
pub mod collateral_args;
pub mod container;
pub mod derive;
pub mod doctor;
pub mod ek_args;
pub mod escrow;
pub mod evidence_cmd;
pub mod failure;
pub mod hand_over;
pub mod head;
pub mod keeper;
pub mod keeper_dir;
pub mod keeper_join;
pub mod keeper_listen;
pub mod keeper_main;
pub mod open;
pub mod place;
pub mod publish;
pub mod publisher;
pub mod record;
pub mod region;
pub mod root;
pub mod seal;
pub mod secret;
pub mod snp;
pub mod tpm;
pub mod unit_keys;
pub mod vault_keys;
pub mod wrap;

mod aead;
mod drawn;
mod program;
mod stack;
mod tree_hash;
mod user_namespace;

pub use agent::library::{LeaseLost, LeaseState, LeaseWatch, Loading, Model, ModelRequest, Overdue, Session};
pub use agent::machine::MachineArgs;
pub use agent::options::ModelRef;
pub use agent::part::PartArgs;
pub use agent::sources::SourceArgs;
pub use failure::Failure;
pub use open::{Layer, Tensor, Weights};
pub use region::WeightRegion;

// The tests below `src` use what the tests beside it use.
#[cfg(test)]
extern crate self as vault_enclave;

#[cfg(test)]
mod format_vectors;
#[cfg(test)]
mod memory_scan;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod throughput;
#[cfg(test)]
#[path = "../tests/tpm_support/mod.rs"]
mod tpm_support;
