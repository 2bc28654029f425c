//! Another keeper in words.

use ledger::genesis::AntiRollback;
use ledger::keepers::{Joiner, KeeperMachine, NO_COUNTER};
use ledger::state::Vault;

/// What it means to let it in: which machine, which image, and what it gets.
pub fn joiner_in_words(joiner: &Joiner, vault: &Vault) -> Vec<String> {
    let then = match vault.genesis().core().anti_rollback() {
        AntiRollback::Witnesses => "decides beside the present one",
        AntiRollback::Counter | AntiRollback::None => "the present one retires",
    };
    let mut says = vec![format!("LOOSER: another keeper gets all keys of this vault, and {then}:")];
    says.extend(machine_in_words(&joiner.machine).into_iter().map(|line| format!("  {line}")));
    says.push(format!("  wrap key:        {}", joiner.hpke_key));
    if joiner.counter_name != NO_COUNTER {
        says.push(format!("  NV counter:      {} at {}", hex::encode(joiner.counter_name), joiner.counter));
    }
    if vault.keepers().all().any(|keeper| keeper.platform == joiner.machine.platform) {
        says.push("on the machine of the present keeper".to_owned());
    } else {
        says.push("on ANOTHER machine than the present keeper's".to_owned());
    }
    says.push("booted, as its evidence showed:".to_owned());
    let allowed = vault.policy().keeper().tpm().pcrs.allowed();
    for (index, value) in &joiner.pcrs {
        let choice = match allowed.get(index).map_or(0, Vec::len) {
            0 | 1 => "the only one that the policy allows".to_owned(),
            values => format!("one of {values} that the policy allows"),
        };
        says.push(format!("  PCR {index:2} {} ({choice})", hex::encode(value)));
    }
    if let Some(measurement) = &joiner.measurement {
        says.push(format!("  launch digest {}", hex::encode(measurement)));
    }
    says.push(
        "compare instance, keys and counter with what `vault-enclave keeper-join` prints on that machine".to_owned(),
    );
    if let Some(approved) = vault.keepers().approved() {
        let other = hex::encode(approved.joiner().machine.instance);
        says.push(format!("it takes the place of {other}, which was let in and has not taken over"));
    }
    says
}

/// What it means to have a keeper leave.
pub fn leave_in_words(instance: [u8; 32], vault: &Vault) -> Vec<String> {
    let mut says = vec!["a keeper decides no more, and the others go on. It keeps the keys that it has:".to_owned()];
    let keepers = vault.keepers();
    let leaves = keepers.all().find(|keeper| keeper.instance == instance);
    says.extend(leaves.into_iter().flat_map(machine_in_words).map(|line| format!("  {line}")));
    for stays in keepers.all().filter(|keeper| keeper.instance != instance) {
        says.push(format!("stays: {} on platform {}", hex::encode(stays.instance), stays.platform));
    }
    says
}

/// Which machine.
pub fn machine_in_words(machine: &KeeperMachine) -> Vec<String> {
    vec![
        format!("instance:        {}", hex::encode(machine.instance)),
        format!("platform:        {}", machine.platform),
        format!("attestation key: {}", hex::encode(machine.ak_name.as_bytes())),
    ]
}
