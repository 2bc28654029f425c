//! What a keeper and the holder of a lease sign (FORMAT.md §7).

use attestation::{LeaseKey, Sha256Digest, UnixTime, lv};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::json;
use crate::names::Name;
use crate::policy::{LeaseEnd, UnitCheck};

const GRANT: &[u8] = b"weightvault/v1 grant\0";
const STATEMENT: &[u8] = b"weightvault/v1 lease statement\0";
const RENEW: &[u8] = b"weightvault/v1 renew\0";
const END: &[u8] = b"weightvault/v1 end\0";

/// A lease as the keeper states it: what an agent shows to renew, and checks its own time by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatement {
    /// Vault id.
    pub vault: Sha256Digest,
    /// Lease id.
    pub lease: Sha256Digest,
    /// Signs renewals and the end.
    pub lease_key: LeaseKey,
    /// The release rule.
    pub rule: Name,
    /// SHA-256 of the policy that it was decided by: its approvers may extend it. A host only relays the challenge, so that
    /// the policy in that is its word.
    pub policy: Sha256Digest,
    /// When it was decided.
    pub issued: UnixTime,
    /// Its last moment without a renewal.
    pub renew_by: UnixTime,
    /// What the agent does at `renew_by`: the rule's choice.
    pub lease_end: LeaseEnd,
    /// Whether the agent hashes what it opens: the rule's choice.
    pub unit_check: UnitCheck,
}

/// A lease statement that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseStatementError;

impl std::fmt::Display for LeaseStatementError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a lease statement of version 1")
    }
}

impl std::error::Error for LeaseStatementError {}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    v: u32,
    vault: Sha256Digest,
    lease: Sha256Digest,
    lease_key: String,
    rule: Name,
    policy: Sha256Digest,
    issued: UnixTime,
    renew_by: UnixTime,
    on_lease_end: String,
    verify_units: bool,
}

impl LeaseStatement {
    /// Reads exact bytes; any spelling but the one that [`Self::encode`] writes is refused.
    ///
    /// # Errors
    /// [`LeaseStatementError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, LeaseStatementError> {
        let fields: Fields = json::parse_object(bytes).map_err(|_| LeaseStatementError)?;
        let lease_key = STANDARD.decode(&fields.lease_key).map_err(|_| LeaseStatementError)?;
        let statement = Self {
            vault: fields.vault,
            lease: fields.lease,
            lease_key: LeaseKey::try_from(lease_key.as_slice()).map_err(|_| LeaseStatementError)?,
            rule: fields.rule,
            policy: fields.policy,
            issued: fields.issued,
            renew_by: fields.renew_by,
            lease_end: lease_end(&fields.on_lease_end).ok_or(LeaseStatementError)?,
            unit_check: if fields.verify_units { UnitCheck::Hashed } else { UnitCheck::SealOnly },
        };
        if fields.v == 1 && statement.encode() == bytes { Ok(statement) } else { Err(LeaseStatementError) }
    }

    /// The exact bytes that are signed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let fields = Fields {
            v: 1,
            vault: self.vault,
            lease: self.lease,
            lease_key: STANDARD.encode(self.lease_key.as_bytes()),
            rule: self.rule.clone(),
            policy: self.policy,
            issued: self.issued,
            renew_by: self.renew_by,
            on_lease_end: self.lease_end.to_string(),
            verify_units: self.unit_check == UnitCheck::Hashed,
        };
        serde_json::to_vec(&fields).expect("strings and integers always serialise")
    }

    /// What the identity key signs for a statement.
    #[must_use]
    pub fn message(statement: &[u8]) -> Vec<u8> {
        tagged(STATEMENT, &[statement])
    }
}

/// What the identity key signs for a grant: the leaf hash of its entry and what is wrapped for it.
#[must_use]
pub fn grant_message(leaf: &[u8; 32], enc: &[u8], wrapped_keys: &[u8]) -> Vec<u8> {
    tagged(GRANT, &[leaf, enc, wrapped_keys])
}

/// What the lease key signs to renew: this session, this lease, this evidence.
#[must_use]
pub fn renew_message(session: &[u8; 16], lease: &Sha256Digest, binding: &[u8; 64]) -> Vec<u8> {
    tagged(RENEW, &[session, lease.as_bytes(), binding])
}

/// What the lease key signs to end its lease.
#[must_use]
pub fn end_message(vault: &Sha256Digest, lease: &Sha256Digest) -> Vec<u8> {
    tagged(END, &[vault.as_bytes(), lease.as_bytes()])
}

fn lease_end(text: &str) -> Option<LeaseEnd> {
    if text == "end" {
        return Some(LeaseEnd::End);
    }
    let seconds: u32 = text.strip_prefix("drain ")?.strip_suffix('s')?.parse().ok()?;
    (1..=LeaseEnd::DRAIN_SECS_MAX).contains(&u64::from(seconds)).then_some(LeaseEnd::Drain { seconds })
}

fn tagged(tag: &[u8], fields: &[&[u8]]) -> Vec<u8> {
    [tag, &lv(fields)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> LeaseStatement {
        LeaseStatement {
            vault: Sha256Digest::of(b"vault"),
            lease: Sha256Digest::of(b"lease"),
            lease_key: LeaseKey::try_from([7; 32].as_slice()).unwrap(),
            rule: Name::try_from("minilm".to_owned()).unwrap(),
            policy: Sha256Digest::of(b"policy"),
            issued: UnixTime(1_700_000_000),
            renew_by: UnixTime(1_700_000_900),
            lease_end: LeaseEnd::Drain { seconds: 30 },
            unit_check: UnitCheck::Hashed,
        }
    }

    #[test]
    fn a_statement_comes_back_from_its_bytes() {
        assert_eq!(LeaseStatement::parse(&statement().encode()), Ok(statement()));
    }

    #[test]
    fn another_spelling_version_or_field_is_refused() {
        let text = String::from_utf8(statement().encode()).unwrap();
        for changed in [
            text.replace("\"v\":1", "\"v\":2"),
            text.replace("{\"v\"", "{ \"v\""),
            text.replace("}", ",\"more\":1}"),
            text.replace("\"rule\":\"minilm\"", "\"rule\":\"MiniLM\""),
            text.replace("BwcH", "Bwc"),
            text.replace("drain 30s", "drain 0s"),
            text.replace("drain 30s", "drain 030s"),
            text.replace("drain 30s", "stay"),
            String::new(),
        ] {
            assert_ne!(changed, text);
            assert_eq!(LeaseStatement::parse(changed.as_bytes()), Err(LeaseStatementError), "{changed}");
        }
    }

    #[test]
    fn messages_of_different_acts_differ() {
        let id = Sha256Digest::of(b"x");
        let all = [
            grant_message(id.as_bytes(), b"", b""),
            LeaseStatement::message(id.as_bytes()),
            renew_message(&[0; 16], &id, &[0; 64]),
            end_message(&id, &id),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|other| other != one));
        }
    }
}
