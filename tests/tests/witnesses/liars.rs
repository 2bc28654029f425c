//! A witness that says yes, and has not cosigned.

use attestation::{LogKey, UnixTime};
use ledger::cosignature::WitnessKey;
use ring::signature::{Ed25519KeyPair, KeyPair};
use vault_tests::witnesses::{Lie, serve};
use vault_tests::{Guest, World};

use super::{release, start, wait_open, witnesses};

/// The line of a stranger's key under this name, with the id that the line of `as_key` would have.
fn signed_by_a_stranger(text: &str, as_key: &WitnessKey) -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
    let key = LogKey::try_from(pair.public_key().as_ref()).expect("a key");
    let stranger = WitnessKey::new(as_key.name(), key).expect("a name");
    let time = UnixTime(1_700_000_000);
    let signature = pair.sign(&WitnessKey::message(text, time));
    stranger.line(text, time, signature.as_ref().try_into().expect("64 bytes")).expect("its own signature")
}

/// The same signature under the id of the witness's own key.
fn signature_of_another_key(text: &str, as_key: &WitnessKey) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let line = signed_by_a_stranger(text, as_key);
    let (name, bytes) = line.trim_end().rsplit_once(' ').expect("a line");
    let mut bytes = BASE64_STANDARD.decode(bytes).expect("base64");
    let vkey = as_key.to_string();
    let id = vkey.split('+').nth(1).expect("name, id and key");
    bytes[..4].copy_from_slice(&hex::decode(id).expect("hex"));
    format!("{name} {}\n", BASE64_STANDARD.encode(bytes))
}

fn nothing_at_all(_: &str, _: &WitnessKey) -> String {
    "yes\n".to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn witness_that_lies_counts_for_nothing_and_holds_up_nobody() {
    let mut world = World::open_witnessed();
    world.publish("1");
    let genesis = world.vault_file();
    let vkey = genesis.policy().witnesses().expect("it has witnesses").witnesses()[0].clone();
    for lie in [signed_by_a_stranger as Lie, signature_of_another_key, nothing_at_all] {
        let listener = witnesses(&mut world).stand_before(0);
        serve(listener, vkey.clone(), lie);
        world.host.take().expect("it runs").terminate();
        world.start_host();
        // Beside two honest ones.
        release(&world).await;
        // Beside one.
        witnesses(&mut world).stop(1);
        let mut guest = Guest::new(&world).await;
        let refused = guest.load().await.expect_err("a lie is no cosignature");
        assert_eq!(guest.code_of(refused).await, "witness-quorum-missing");
        let log = world.keeper.as_ref().expect("it runs").log();
        assert!(log.contains("witness.example/1 answered with something that is not its cosignature"), "{log}");
        let opened = log.matches("the vault is open").count();
        start(&mut world, 1);
        wait_open(&mut world, opened + 1);
    }
}
