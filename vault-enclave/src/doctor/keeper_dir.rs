//! A keeper's directory: what it is, and how to go on with it.

use std::path::Path;

use super::Check;
use crate::keeper::DirState;

pub(super) fn check(dir: &Path) -> Check {
    const CHECK: &str = "keeper's directory";
    let shown = dir.display();
    match DirState::of(dir) {
        DirState::Empty => Check::ok(
            CHECK,
            format_args!(
                "{shown} is empty: a vault begins here (`vaultctl init start`), or is joined (`vault-enclave keeper-join`)"
            ),
        ),
        DirState::Founder => Check::ok(CHECK, format_args!("{shown} is that of a vault's first keeper")),
        DirState::Joined => {
            Check::ok(CHECK, format_args!("{shown} has the keys of a vault, which another keeper handed over"))
        }
        DirState::Recovered => Check::ok(
            CHECK,
            format_args!("{shown} has the keys of a vault, which custodians gave: the next start goes on with its log"),
        ),
        DirState::Joining => Check::warn(
            CHECK,
            format_args!("{shown} is JOINING or RECOVERING: it has a root, and no keys of a vault yet"),
            "to join beside or behind a keeper that runs: start it again by vault-enclave keeper-join, and approvers let it in (vaultctl keeper \
             pending)\nin the place of a lost one: start it again by vault-enclave keeper --recover FILE, and custodians and approvers give the keys (vaultctl \
             recover status)",
        ),
        DirState::Incomplete { missing } => Check::fail(
            CHECK,
            format_args!("{shown} has files of a keeper, and no `{missing}`"),
            "put it back from a copy: it is sealed to this machine. Where its ceremony was cut short, clear the directory",
        ),
    }
}
