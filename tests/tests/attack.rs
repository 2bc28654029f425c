//! The attack suite goes on to be played: `cargo xtask attack` has the rest of it.

use vault_tests::attack::{Expected, Extent, Verdict, play};

#[tokio::test(flavor = "multi_thread")]
async fn each_attack_on_one_vault_is_stopped_by_what_is_there_for_it() {
    let mut lines = play(Extent::Quick);
    let (mut stopped, mut bad) = (0, Vec::new());
    while let Some(row) = lines.recv().await {
        match row.verdict() {
            Verdict::Stopped => stopped += 1,
            Verdict::Works => assert_eq!(row.expected, Expected::Works),
            Verdict::Succeeded | Verdict::StoppedOtherwise | Verdict::Broken => bad.push(row),
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(stopped >= 40, "{stopped} attacks were played");
}
