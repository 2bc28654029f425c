//! Which hosts of a store have a stream to the keeper: `hosts/<sha256 of its address>` is the address of one, written
//! again while it has. What stands there is for people to read; no program goes where it points.

use std::time::{Duration, SystemTime};

use attestation::Sha256Digest;

use super::place::Objects;
use crate::config::{ADDRESS_BYTES_MAX, is_address};
use crate::link::ANNOUNCE_EVERY;
use crate::store::StoreError;

const HOSTS: &str = "hosts";
/// One that said nothing for so long is gone; the clocks are two.
const SILENCE_MAX: Duration = ANNOUNCE_EVERY.saturating_mul(5);
/// As many as a message has room for.
const HOSTS_MAX: usize = 4;

pub(super) fn announce(objects: &dyn Objects, address: &str, attached: bool) -> Result<(), StoreError> {
    let name = format!("{HOSTS}/{}", hex::encode(Sha256Digest::of(address.as_bytes()).as_bytes()));
    match attached {
        true => objects.write(&name, address.as_bytes().to_vec()),
        false => objects.remove(&name),
    }
}

pub(super) fn attached(objects: &dyn Objects, now: SystemTime) -> Result<Vec<String>, StoreError> {
    let mut listed = objects.list(HOSTS)?;
    // A host whose clock is ahead of ours said it just now.
    listed.retain(|host| now.duration_since(host.written).is_ok_and(|since| since < SILENCE_MAX) || host.written > now);
    listed.sort_by_key(|host| std::cmp::Reverse(host.written));
    let mut found = Vec::new();
    for host in listed.into_iter().take(HOSTS_MAX) {
        let address = objects.get(&host.name, ADDRESS_BYTES_MAX)?.and_then(|(bytes, _)| String::from_utf8(bytes).ok());
        found.extend(address.filter(|address| is_address(address)));
    }
    Ok(found)
}
