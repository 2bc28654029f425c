//! The plaintext of the head (FORMAT.md §5).

use attestation::Sha256Digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::derive::KeeperContext;
use crate::tpm::{Counter, TpmName};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadRecord {
    pub(super) size: u64,
    pub(super) root: Sha256Digest,
    /// What the counter reads once this head is in force; 0 without a counter.
    pub(super) count: u64,
    pub(super) counter: Option<Counter>,
    pub(super) srk_name: TpmName,
    pub(super) context: Option<KeeperContext>,
}

impl HeadRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let plain = Plain {
            v: 1,
            size: self.size,
            root: self.root,
            counter: self.count,
            nv_index: self.counter.map(|counter| counter.index),
            nv_name: self.counter.map(|counter| STANDARD.encode(counter.name.as_bytes())),
            run_index: self.counter.map(|counter| counter.run_index),
            run_name: self.counter.map(|counter| STANDARD.encode(counter.run_name.as_bytes())),
            srk_name: STANDARD.encode(self.srk_name.as_bytes()),
            instance: self.context.map(|context| STANDARD.encode(context.instance)),
            core_digest: self.context.map(|context| context.core),
        };
        serde_json::to_vec(&plain).expect("strings and numbers are JSON")
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let plain: Plain = serde_json::from_slice(bytes).ok().filter(|plain: &Plain| plain.v == 1)?;
        let counter = match (plain.nv_index, plain.nv_name, plain.run_index, plain.run_name) {
            (Some(index), Some(nv_name), Some(run_index), Some(run_name)) => {
                Some(Counter { index, name: name(&nv_name)?, run_index, run_name: name(&run_name)? })
            }
            (None, None, None, None) if plain.counter == 0 => None,
            _ => return None,
        };
        let context = match (plain.instance, plain.core_digest) {
            (Some(instance), Some(core)) => {
                Some(KeeperContext { instance: STANDARD.decode(instance).ok()?.try_into().ok()?, core })
            }
            (None, None) => None,
            _ => return None,
        };
        let srk_name = name(&plain.srk_name)?;
        Some(Self { size: plain.size, root: plain.root, count: plain.counter, counter, srk_name, context })
    }
}

fn name(base64: &str) -> Option<TpmName> {
    STANDARD.decode(base64).ok()?[..].try_into().ok()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    v: u32,
    size: u64,
    root: Sha256Digest,
    counter: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nv_index: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nv_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_index: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_name: Option<String>,
    srk_name: String,
    instance: Option<String>,
    core_digest: Option<Sha256Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> HeadRecord {
        let name = TpmName::of(b"public");
        HeadRecord {
            size: 3,
            root: Sha256Digest::of(b"root"),
            count: 7,
            counter: Some(Counter { index: 0x0180_7700, name, run_index: 0x0180_7701, run_name: name }),
            srk_name: name,
            context: Some(KeeperContext { instance: [9; 32], core: Sha256Digest::of(b"core") }),
        }
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        let (full, empty) = (head(), HeadRecord { count: 0, counter: None, context: None, ..head() });
        for head in [full, empty] {
            assert_eq!(HeadRecord::parse(&head.encode()), Some(head));
        }
    }

    #[test]
    fn a_head_without_a_counter_has_no_nv_fields_and_one_without_a_core_has_nulls() {
        let head = HeadRecord { count: 0, counter: None, context: None, ..head() };
        let json: serde_json::Value = serde_json::from_slice(&head.encode()).unwrap();
        for field in ["nv_index", "nv_name", "run_index", "run_name"] {
            assert!(json.get(field).is_none(), "{field}");
        }
        assert!(json["instance"].is_null() && json["core_digest"].is_null());
    }

    #[test]
    fn half_a_counter_half_a_context_or_another_version_is_no_head() {
        let json: serde_json::Value = serde_json::from_slice(&head().encode()).unwrap();
        let without = |field: &str| {
            let mut json = json.clone();
            json[field] = serde_json::Value::Null;
            HeadRecord::parse(&serde_json::to_vec(&json).unwrap())
        };
        for field in ["nv_index", "nv_name", "run_index", "run_name", "instance", "core_digest", "srk_name", "size"] {
            assert_eq!(without(field), None, "{field}");
        }
        let mut other = json.clone();
        other["v"] = 2.into();
        assert_eq!(HeadRecord::parse(&serde_json::to_vec(&other).unwrap()), None);
        let mut unknown = json.clone();
        unknown["more"] = 1.into();
        assert_eq!(HeadRecord::parse(&serde_json::to_vec(&unknown).unwrap()), None);
    }
}
