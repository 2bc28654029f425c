//! A vault whose keeper proves an SNP guest and seals to its chip, and guests that prove one: real processes on soft
//! platforms, and guests out of the forge for what no good guest shows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a test has no outside")]

#[path = "snp_vault/guests.rs"]
mod guests;
#[path = "snp_vault/keeper.rs"]
mod keeper;
#[path = "snp_vault/life.rs"]
mod life;
#[path = "snp_vault/reseal.rs"]
mod reseal;
#[path = "snp_vault/scene.rs"]
mod scene;
