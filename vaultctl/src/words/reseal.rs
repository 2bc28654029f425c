//! A boot state of the keeper in words.

use ledger::reseal::Reseal;
use ledger::state::Vault;

/// What it means to seal the keeper to it.
pub fn reseal_in_words(reseal: &Reseal, vault: &Vault) -> Vec<String> {
    let mut says = vec!["seals the keeper's root to another boot state, beside the present one:".to_owned()];
    let allowed = vault.policy().keeper().tpm().pcrs.allowed();
    for (index, value) in &reseal.pcrs {
        let choice = match allowed.get(index).map_or(0, Vec::len) {
            0 | 1 => "the only one that the policy allows".to_owned(),
            values => format!("one of {values} that the policy allows"),
        };
        says.push(format!("  PCR {index:2} {} ({choice})", hex::encode(value)));
    }
    if let Some(measurement) = &reseal.measurement {
        says.push(format!("  on the guest that runs now: launch digest {}", hex::encode(measurement)));
    }
    let next = vault.sealing().next().is_some();
    if next && vault.sealing().present() == Some(reseal.boot_state()) {
        says.push("this is the present one: the reseal in force is taken back".to_owned());
    } else {
        says.push("whatever boots so gets the root: compare the values with a measurement of your own".to_owned());
        says.push("after its first start there the keeper starts on the present boot state no more".to_owned());
        if next {
            says.push("it takes the place of the reseal that is in force".to_owned());
        }
    }
    says
}
