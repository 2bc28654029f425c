//! Custodians of the vault's keys in words.

use ledger::escrow::EscrowPlan;

/// What it means to give them shares.
pub fn escrow_in_words(plan: &EscrowPlan) -> Vec<String> {
    let (threshold, count) = (plan.threshold, plan.custodians.len());
    let mut says = vec![format!(
        "LOOSER: any {threshold} of these {count} custodians together can have every model of this vault, by themselves:"
    )];
    for (index, custodian) in (1..).zip(&plan.custodians) {
        let index: u32 = index;
        says.push(format!("  share {index}: {}, key {}", custodian.id, custodian.key));
    }
    says.push(format!("escrow {}, of the keys of epoch {}; it takes the place of any before", plan.number, plan.epoch));
    says.push("compare each key with what its custodian told you over another way".to_owned());
    says
}
