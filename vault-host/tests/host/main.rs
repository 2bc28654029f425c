//! The host from outside: a client on one side, a keeper's stream on the other, its files below.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test program: helpers fail the test, nothing is exported")]

mod audit;
mod bucket_tls;
mod copy;
mod fetch;
mod keeper;
mod limits;
mod malformed;
mod model;
#[allow(dead_code, reason = "shared with the end-to-end tests")]
mod postgres;
mod postgres_store;
mod process;
mod publish;
mod raw_http2;
mod relay;
mod relay_cut;
#[allow(dead_code, reason = "shared with the end-to-end tests")]
mod s3;
mod setup;
mod shared;
mod store_calls;
#[allow(dead_code, reason = "shared with the end-to-end tests")]
mod stores;
mod strangers;
mod upload;
