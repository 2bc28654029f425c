//! Which program a keeper runs, in words.

use ledger::entry::{Program, Upgrade};
use ledger::state::State;

/// What an `upgrade` entry says, behind the state `before`.
pub(super) fn upgraded(upgrade: &Upgrade, before: &State) -> String {
    let runs = program(&upgrade.to);
    let was = match &upgrade.from {
        Some(from) if from.version == upgrade.to.version && from.digest != upgrade.to.digest => {
            format!("ANOTHER PROGRAM OF THE SAME VERSION: {}, and before {}", runs, program(from))
        }
        Some(from) if *from == upgrade.to => runs,
        Some(from) => format!("{runs}, and before {}", program(from)),
        None => format!("{runs}, which it never said before"),
    };
    match upgrade.fold > before.upgrades().fold() {
        true => format!("the keeper runs {was}; from here on whoever reads the log must know fold {}", upgrade.fold),
        false => format!("the keeper runs {was}"),
    }
}

fn program(program: &Program) -> String {
    let digest = program.digest.map_or_else(|| "of unknown digest".to_owned(), |digest| digest.to_string());
    format!("version {}, fold {}, {digest}", program.version, program.fold)
}
