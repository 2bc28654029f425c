//! Reads an entry in one pass: `v`, then `type`, then the fields of that type and no others.
//!
//! serde's own tagged enums buffer the fields and lose `deny_unknown_fields`; this hands the rest of the map to the type.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::{ENTRY_VERSION, Entry, EntryError};
use crate::json;

/// Characters of an unknown type that are kept for the message.
const TYPE_CHARS_MAX: usize = 32;

pub(super) fn entry(bytes: &[u8]) -> Result<Entry, EntryError> {
    json::parse_object::<Tagged>(bytes)?.0
}

struct Tagged(Result<Entry, EntryError>);

impl<'de> Deserialize<'de> for Tagged {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TaggedVisitor)
    }
}

struct TaggedVisitor;

impl<'de> Visitor<'de> for TaggedVisitor {
    type Value = Tagged;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tagged, A::Error> {
        let found: u64 = field(&mut map, "v")?;
        if found != ENTRY_VERSION {
            skip(map)?;
            return Ok(Tagged(Err(EntryError::UnknownVersion { found })));
        }
        let kind: String = field(&mut map, "type")?;
        fields_of(&kind, map).map(Tagged)
    }
}

fn fields_of<'de, A: MapAccess<'de>>(kind: &str, map: A) -> Result<Result<Entry, EntryError>, A::Error> {
    Ok(Ok(match kind {
        "genesis" => Entry::Genesis(Box::new(rest(map)?)),
        "start" => Entry::Start(rest(map)?),
        "propose" => Entry::Propose(rest(map)?),
        "approve" => Entry::Approve(rest(map)?),
        "policy" => Entry::Policy(rest(map)?),
        "model" => Entry::Model(rest(map)?),
        "platform" => Entry::Platform(rest(map)?),
        "reseal" => Entry::Reseal(rest(map)?),
        "resealed" => Entry::Resealed(rest(map)?),
        "keeper-join" => Entry::KeeperJoin(rest(map)?),
        "keeper-retire" => Entry::KeeperRetire(rest(map)?),
        "escrow" => Entry::Escrow(rest(map)?),
        "recover" => Entry::Recover(rest(map)?),
        "keeper-leave" => Entry::KeeperLeave(rest(map)?),
        "key-epoch" => Entry::KeyEpoch(Box::new(rest(map)?)),
        "budget" => Entry::Budget(rest(map)?),
        "permit" => Entry::Permit(rest(map)?),
        "clock" => Entry::Clock(rest(map)?),
        "alarm" => Entry::Alarm(rest(map)?),
        "release" => Entry::Release(Box::new(rest(map)?)),
        "renew" => Entry::Renew(rest(map)?),
        "end" => Entry::End(rest(map)?),
        "revoke" => Entry::Revoke(rest(map)?),
        "extend" => Entry::Extend(rest(map)?),
        "deny" => Entry::Deny(rest(map)?),
        "deny-summary" => Entry::DenySummary(rest(map)?),
        "upgrade" => Entry::Upgrade(rest(map)?),
        unknown => {
            let found = unknown.chars().take(TYPE_CHARS_MAX).collect();
            skip(map)?;
            return Ok(Err(EntryError::UnknownType { found }));
        }
    }))
}

fn field<'de, T: Deserialize<'de>, A: MapAccess<'de>>(map: &mut A, name: &'static str) -> Result<T, A::Error> {
    match map.next_key::<String>()? {
        Some(key) if key == name => map.next_value(),
        _ => Err(A::Error::custom(format_args!("expected the field `{name}` here"))),
    }
}

fn rest<'de, T: Deserialize<'de>, A: MapAccess<'de>>(map: A) -> Result<T, A::Error> {
    T::deserialize(MapAccessDeserializer::new(map))
}

fn skip<'de, A: MapAccess<'de>>(map: A) -> Result<(), A::Error> {
    IgnoredAny::deserialize(MapAccessDeserializer::new(map)).map(drop)
}
