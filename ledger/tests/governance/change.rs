//! The difference of two policies in words.

use attestation::{Sha256Digest, Trust};
use ledger::model_signature::PublisherKey;
use ledger::policy::{Policy, describe_change};

use crate::common::authority::Authority;
use crate::support::keys::Person;
use crate::support::policy_text::{PCR_0, PCR_11_GUEST, PCR_11_KEEPER, PUBLISHER_KEY, anchor, first, with_head};

const DIGEST: &str = "sha256:4444444444444444444444444444444444444444444444444444444444444444";

fn described(old: &str, new: &str) -> Vec<String> {
    describe_change(&Policy::parse(old).unwrap(), &Policy::parse(new).unwrap())
}

/// One change loosens; taking it back tightens.
#[track_caller]
fn looser(from: &str, to: &str, said: &str, taken_back: &str) {
    let (old, new) = (first(), first().replace(from, to));
    assert_ne!(old, new);
    assert_eq!(described(&old, &new), [format!("LOOSER: {said}")]);
    assert_eq!(described(&new, &old), [format!("stricter: {taken_back}")]);
}

#[test]
fn equal_policies_differ_in_nothing() {
    assert!(described(&first(), &format!("{}# a comment\n", first())).is_empty());
}

#[test]
fn every_loosening_is_named_and_so_is_its_opposite() {
    looser(
        "threshold = 2",
        "threshold = 1",
        "policies need 1 approvals, before 2",
        "policies need 2 approvals, before 1",
    );
    looser(
        "proposer_may_approve = false",
        "proposer_may_approve = true",
        "whoever proposes a policy may approve it himself",
        "whoever proposes a policy may no longer approve it himself",
    );
    looser(
        "2027-03-01T",
        "2027-04-01T",
        "the policy ends at 2027-04-01T00:00:00Z, before at 2027-03-01T00:00:00Z",
        "the policy ends at 2027-03-01T00:00:00Z, before at 2027-04-01T00:00:00Z",
    );
    looser(
        "models = [\"minilm\", \"llama\"]",
        "models = [\"minilm\", \"llama\", \"gpt\"]",
        "publish.ours.models also has gpt",
        "publish.ours.models no longer has gpt",
    );
    looser(
        "models = [\"minilm\"]",
        "models = \"any\"",
        "release.minilm.models is any, before minilm",
        "release.minilm.models is minilm, before any",
    );
    looser(
        "approvals = 2",
        "approvals = 1",
        "publish.ours needs 1 approvals, before 2",
        "publish.ours needs 2 approvals, before 1",
    );
    looser(
        "\"layer.0\", \"other\"",
        "\"layer.0\", \"other\", \"layer.1\"",
        "release.minilm.groups also has layer.1",
        "release.minilm.groups no longer has layer.1",
    );
    looser(
        "max_leases = 4",
        "max_leases = 5",
        "release.minilm runs at most 5 leases, before 4",
        "release.minilm runs at most 4 leases, before 5",
    );
    looser(
        "\"15m\"",
        "\"16m\"",
        "a lease of release.minilm lasts 960 s, before 900 s",
        "a lease of release.minilm lasts 900 s, before 960 s",
    );
    looser(
        "drain 30s",
        "drain 1m",
        "at its end a lease of release.minilm does \"drain 60s\", before \"drain 30s\"",
        "at its end a lease of release.minilm does \"drain 30s\", before \"drain 60s\"",
    );
    looser(
        "verify_units = true",
        "verify_units = false",
        "release.minilm no longer verifies the hash of each unit",
        "release.minilm verifies the hash of each unit",
    );
    let both = format!("11 = [\"{PCR_11_GUEST}\", \"{PCR_0}\"]");
    looser(
        &format!("11 = [\"{PCR_11_GUEST}\"]"),
        &both,
        &format!("release.minilm.pcrs.11 also allows {PCR_0}"),
        &format!("release.minilm.pcrs.11 no longer allows {PCR_0}"),
    );
    looser(
        &format!("0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_GUEST}\"]"),
        &format!("11 = [\"{PCR_11_GUEST}\"]"),
        "release.minilm.pcrs no longer checks PCR 0",
        &format!("release.minilm.pcrs also checks PCR 0: {PCR_0}"),
    );
    looser(
        &format!("0 = [\"{PCR_0}\"], 11 = [\"{PCR_11_KEEPER}\"]"),
        &format!("11 = [\"{PCR_11_KEEPER}\"]"),
        "keeper.pcrs no longer checks PCR 0",
        &format!("keeper.pcrs also checks PCR 0: {PCR_0}"),
    );
    let listed = first().replace("eks = \"any\"\nlease", &format!("eks = [\"{DIGEST}\"]\nlease"));
    assert_eq!(described(&listed, &first()), [format!("LOOSER: release.minilm.eks is any, before {DIGEST}")]);
    assert_eq!(described(&first(), &listed), [format!("stricter: release.minilm.eks is {DIGEST}, before any")]);
}

#[test]
fn approvers_and_readers_are_shown_with_their_keys() {
    let (bob, dave) = (Person::new(2).key_line(), Person::new(4).key_line());
    let another_key = described(&first(), &first().replace(&bob, &dave));
    assert_eq!(another_key.len(), 1);
    assert!(another_key[0].starts_with("LOOSER: approver bob has another key: ssh-ed25519 SHA256:"), "{another_key:?}");
    let more = first().replace("]\n\n[keeper]", &format!("  {{ id = \"dave\", key = \"{dave}\" }},\n]\n\n[keeper]"));
    let added = described(&first(), &more);
    assert!(added.len() == 1 && added[0].starts_with("LOOSER: dave (ssh-ed25519 SHA256:"), "{added:?}");
    // Nobody gains anything, but somebody who could say no is gone.
    let removed = described(&more, &first());
    assert!(removed.len() == 1 && removed[0].starts_with("changed: dave ("), "{removed:?}");
    let readers = first().replace("readers = \"any\"", &format!("readers = [{{ id = \"dave\", key = \"{dave}\" }}]"));
    assert!(described(&first(), &readers)[0].starts_with("stricter: audit.readers is dave ("));
}

#[test]
fn anchors_are_shown_with_what_they_count_as() {
    let (one, two) = (Authority::root("one"), Authority::root("two"));
    let with = |trust, authority| first() + &anchor("ci", trust, authority);
    let emulated = with(Trust::Emulated, &one);
    // Its name is what its proposer likes; who has the key shows by the certificate.
    let [first_one, second_one] = [&one, &two].map(|authority| Sha256Digest::of(&authority.der));
    let new = format!("LOOSER: anchor ci is new and counts as emulated: certificate {first_one}");
    assert_eq!(described(&first(), &emulated), [new]);
    assert_eq!(described(&emulated, &first()), ["stricter: anchor ci is gone"]);
    let raised = ["LOOSER: anchor ci counts as hardware, before as emulated"];
    assert_eq!(described(&emulated, &with(Trust::Hardware, &one)), raised);
    let replaced = format!(
        "LOOSER: anchor ci has another certificate and counts as emulated: certificate {second_one}, before certificate \
         {first_one}"
    );
    assert_eq!(described(&emulated, &with(Trust::Emulated, &two)), [replaced]);
}

#[test]
fn whole_rules_come_and_go() {
    let text = first().replace("[release.minilm]", "[release.another]").replace("[publish.ours]", "[publish.theirs]");
    let said = described(&first(), &text);
    assert_eq!(said.len(), 4);
    assert!(said[0].starts_with("LOOSER: publish.theirs is new: models minilm, llama, keys sha256:"), "{said:?}");
    assert!(said[0].ends_with(", 2 approvals"));
    assert_eq!(
        said[1],
        format!(
            "LOOSER: release.another is new: models minilm, groups layer.0, other, EKs any, PCR 0 = {PCR_0}, PCR 11 = \
             {PCR_11_GUEST}, 4 leases of 900 s, on_lease_end \"drain 30s\", verify_units = true, approvals of each release none"
        )
    );
    assert_eq!(said[2..], ["stricter: publish.ours is gone", "stricter: release.minilm is gone"]);
}

#[test]
fn publisher_keys_are_shown_by_their_digest() {
    let point = [[4].as_slice(), &[7; 64]].concat();
    let second = format!("\"\"\"{}\"\"\"", PublisherKey::from_point(&point).unwrap().to_pem());
    let one = format!("keys = [\"\"\"{PUBLISHER_KEY}\"\"\"]");
    let two = format!("keys = [\"\"\"{PUBLISHER_KEY}\"\"\", {second}]");
    let said = described(&first(), &first().replace(&one, &two));
    assert!(said.len() == 1 && said[0].starts_with("LOOSER: publish.ours also takes the key sha256:"), "{said:?}");
    let said = described(&first().replace(&one, &two), &first());
    assert!(said.len() == 1 && said[0].starts_with("stricter: publish.ours no longer takes the key sha256:"));
}

#[test]
fn who_may_revoke_is_said_where_it_is_not_what_policies_take() {
    let one = first().replace("threshold = 2", "threshold = 2\nrevoke_threshold = 1");
    assert_eq!(described(&first(), &one), ["changed: revocations need 1 approvals, before 2"]);
    assert_eq!(described(&one, &first()), ["changed: revocations need 2 approvals, before 1"]);
    assert!(described(&one, &one).is_empty());
}

#[test]
fn the_most_dangerous_comes_first() {
    let new = with_head(DIGEST, 2, DIGEST)
        .replace("verify_units = true", "verify_units = false")
        .replace("max_leases = 4", "max_leases = 3")
        .replace("threshold = 2", "threshold = 1");
    assert_eq!(
        described(&first(), &new),
        [
            "LOOSER: policies need 1 approvals, before 2",
            "LOOSER: release.minilm no longer verifies the hash of each unit",
            "changed: serial 1 becomes 2",
            "stricter: release.minilm runs at most 3 leases, before 4",
        ]
    );
}
