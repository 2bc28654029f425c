//! A key epoch of a world's vault, by command line.

use std::process::Command;

use crate::world::{APPROVERS, World};
use crate::{run, run_ok};

/// `vaultctl propose key-epoch` in the name of Alice.
pub fn propose(world: &World) -> Command {
    let mut propose = world.vaultctl();
    propose.args(["propose", "key-epoch", "--yes", "--key"]).arg(world.path(APPROVERS[0]));
    propose
}

/// The one that the vault is in.
pub fn number(world: &World) -> u64 {
    let status = run_ok(world.vaultctl().args(["status", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    status["epoch"]["number"].as_u64().expect("an epoch")
}

/// Proposed, approved, begun, and open again.
pub fn begin(world: &World) {
    let before = number(world);
    let said = run_ok(propose(world).arg("--json"));
    // What was shown to the signer follows behind.
    let mut documents = serde_json::Deserializer::from_str(&said).into_iter::<serde_json::Value>();
    let said = documents.next().expect("a report").expect("JSON");
    let object = said["object"].as_str().expect("an object");
    for name in &APPROVERS[1..] {
        run_ok(world.vaultctl().args(["approve", object, "--yes", "--key"]).arg(world.path(name)));
    }
    opens(world);
    assert_eq!(number(world), before + 1);
}

/// Waits until the keeper serves: it starts anew with the keys of the epoch.
pub fn opens(world: &World) {
    for _ in 0..600 {
        let (_, status) = run(world.vaultctl().args(["status", "--insecure-skip-evidence"]));
        if status.contains("state:     open") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{}", world.keeper.as_ref().expect("it runs").log());
}
