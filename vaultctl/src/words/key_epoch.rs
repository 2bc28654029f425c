//! A key epoch in words.

use attestation::Sha256Digest;
use ledger::key_epoch::NextEpoch;
use ledger::state::Vault;

/// What begins with it, and what ends.
pub fn epoch_in_words(next: &NextEpoch, vault: &Vault) -> Vec<String> {
    let present = vault.epochs().present().epoch;
    let models = vault.models().count();
    vec![
        format!(
            "the vault has keys of its own for epoch {}, in the place of those of epoch {present}:",
            next.keys.epoch
        ),
        format!("  made by keeper:  {}", hex::encode(next.instance)),
        format!("  wrap key:        {}", Sha256Digest::of(next.keys.wrap_key.as_bytes())),
        format!("  identity key:    {}", Sha256Digest::of(next.keys.identity_key.as_bytes())),
        format!("the keys of {models} published models are sealed anew; their files stay as they are"),
        "what was sealed and is not published yet must be sealed again".to_owned(),
        "older records of the keeper open the keys of older epochs alone".to_owned(),
    ]
}
