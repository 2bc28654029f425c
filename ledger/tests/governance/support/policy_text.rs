//! A good policy, as text. Tests change one thing in it.

use attestation::Trust;

use super::keys::Person;
use crate::common::authority::Authority;

pub const PCR_0: &str = "1111111111111111111111111111111111111111111111111111111111111111";
pub const PCR_11_KEEPER: &str = "2222222222222222222222222222222222222222222222222222222222222222";
pub const PCR_11_GUEST: &str = "3333333333333333333333333333333333333333333333333333333333333333";
pub const PUBLISHER_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----
";

/// The first policy of a vault with three approvers.
pub fn first() -> String {
    with_head("genesis", 1, "none")
}

/// A policy with this `vault`, `serial` and `prev`.
pub fn with_head(vault: &str, serial: u64, prev: &str) -> String {
    let [alice, bob, carol] = [1, 2, 3].map(|seed| Person::new(seed).key_line());
    format!(
        r#"format = 1
vault = "{vault}"
serial = {serial}
prev = "{prev}"
not_after = "2027-03-01T00:00:00Z"

[approval]
threshold = 2
proposer_may_approve = false
approvers = [
  {{ id = "alice", key = "{alice}" }},
  {{ id = "bob", key = "{bob}" }},
  {{ id = "carol", key = "{carol}" }},
]

[keeper]
require = ["tpm"]
pcrs = {{ 0 = ["{PCR_0}"], 11 = ["{PCR_11_KEEPER}"] }}
eks = "any"

[publish.ours]
models = ["minilm", "llama"]
keys = ["""{PUBLISHER_KEY}"""]
approvals = 2

[release.minilm]
models = ["minilm"]
groups = ["layer.0", "other"]
require = ["tpm"]
pcrs = {{ 0 = ["{PCR_0}"], 11 = ["{PCR_11_GUEST}"] }}
eks = "any"
lease = "15m"
on_lease_end = "drain 30s"
max_leases = 4
verify_units = true

[audit]
readers = "any"
"#
    )
}

/// What a policy has at its end for each anchor.
pub fn anchor(name: &str, trust: Trust, authority: &Authority) -> String {
    let pem = authority.pem();
    format!("\n[[anchors]]\nname = \"{name}\"\ntrust = \"{trust}\"\ncertificate = \"\"\"\n{pem}\"\"\"\n")
}

/// The 32 bytes of a PCR value in a policy.
pub fn pcr(hex_digits: &str) -> [u8; 32] {
    let mut value = [0; 32];
    hex::decode_to_slice(hex_digits, &mut value).unwrap();
    value
}
