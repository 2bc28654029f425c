//! The gRPC packages `weightvault.v1` and `weightvault.agent.v1`: generated messages and services, and their conversions to domain types.
//!
//! A handler that touches a generated message after its first line is a bug: [`convert`] is the only place where wire
//! messages become domain types, and there every length is checked.
#![forbid(unsafe_code)]

pub mod bulk;
pub mod client;
pub mod collateral;
pub mod convert;
pub mod http;
pub mod limits;
pub mod reader;

/// Generated code. Field documentation is that of the `.proto` files.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("weightvault.v1");
}

/// What an agent serves on its own machine.
pub mod agent {
    /// Generated code. Field documentation is that of the `.proto` file.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
    pub mod v1 {
        tonic::include_proto!("weightvault.agent.v1");
    }
}
