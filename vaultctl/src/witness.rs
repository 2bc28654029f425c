//! A witness of logs (C2SP tlog-witness): its key, its durable state, and its HTTP service. What is cosigned is decided in
//! [`ledger::witness`].
//!
//! A cosignature has one way to come about: [`ledger::witness::step`] makes a step, the state makes it durable, and only
//! what is durable is signed, all under one lock a log.

mod key;
mod serve;
mod state;
mod tls;

pub use key::SigningKey;
pub use serve::{BoundWitness, Never};
pub use state::{AddFailure, State};
pub use tls::WitnessTls;
