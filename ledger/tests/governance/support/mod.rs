//! What the tests build a vault from.

pub mod budget;
pub mod evidence;
pub mod keys;
pub mod permit;
pub mod policy_text;
pub mod security_key;
pub mod world;
