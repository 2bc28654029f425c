//! A good policy, as text. Tests change one thing in it.

use attestation::{LogKey, Trust};
use ledger::cosignature::WitnessKey;

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

/// Three witnesses, two of which must have cosigned.
pub fn witnesses() -> String {
    let [first, second, third] = [1, 2, 3].map(witness_vkey);
    format!("[witnesses]\nkeys = [\"{first}\", \"{second}\", \"{third}\"]\nquorum = 2\nfaulty = 0\n")
}

/// The vkey of a witness.
pub fn witness_vkey(number: u8) -> String {
    let key = LogKey::try_from([number; 32].as_slice()).unwrap();
    WitnessKey::new(&format!("witness.example/{number}"), key).unwrap().to_string()
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

/// Launch digest of the keeper in [`snp`].
pub const LAUNCH_KEEPER: &str =
    "666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666";
/// Launch digest of the guest in [`snp`].
pub const LAUNCH_GUEST: &str =
    "777777777777777777777777777777777777777777777777777777777777777777777777777777777777777777777777";
/// Digest of an ID key and of an author key in [`snp_section`].
pub const ID_KEY: &str =
    "888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888";

/// A section with every key, a line each.
pub fn snp_section(measurement: &str) -> String {
    format!(
        r#"code_covered_by = "launch"
measurements = ["{measurement}"]
chips = "any"
csps = ["CN=cc-us-east-2.amazonaws.com"]
vmpl = 0
min_report_version = 3
crl = "required"
smt = false
provisional_firmware = false
host_data = ["{PCR_0}"]
id_keys = ["{ID_KEY}"]
author_keys = ["{ID_KEY}"]
min_guest_svn = 7
min_firmware = "1.55.21"
platform = ["ecc", "alias-check"]
min_tcb.milan = {{ bootloader = 4, tee = 1, snp = 24, microcode = 219 }}
min_tcb.turin = {{ fmc = 1, bootloader = 2, tee = 1, snp = 4, microcode = 71 }}
"#
    )
}

/// The first policy of a vault whose keeper and guest show SNP reports. Each section begins with its heading.
pub fn snp() -> String {
    let keeper = format!(
        "[keeper]\nrequire = [\"tpm\"]\npcrs = {{ 0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_KEEPER}\"] }}\neks = \"any\"\n"
    );
    let guest =
        format!("require = [\"tpm\"]\npcrs = {{ 0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_GUEST}\"] }}\neks = \"any\"\nlease");
    let text = first();
    assert!(text.contains(&keeper) && text.contains(&guest));
    let keeper_snp = format!("{}\n[keeper.snp]\n{}", keeper.replace("\"tpm\"", "\"snp\""), snp_section(LAUNCH_KEEPER));
    let guest_snp = format!("\n[release.minilm.snp]\n{}\n[audit]", snp_section(LAUNCH_GUEST));
    text.replace(&keeper, &keeper_snp).replace(&guest, "require = [\"snp\"]\nlease").replace("\n[audit]", &guest_snp)
}

/// The same with a guest of Azure's: the launch digest covers the paravisor, its virtual TPM the rest.
pub fn paravisor() -> String {
    let guest = format!("require = [\"snp\", \"tpm\"]\npcrs = {{ 11 = [\"{PCR_11_GUEST}\"] }}\nlease");
    let (head, tail) = snp().split_once("[release.minilm.snp]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let head = head.replace("require = [\"snp\"]\nlease", &guest);
    format!("{head}[release.minilm.snp]{}", tail.replace("\"launch\"", "\"paravisor-vtpm\""))
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
