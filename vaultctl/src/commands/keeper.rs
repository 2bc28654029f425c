//! `vaultctl keeper`

use std::fmt;

use attestation::{Sha256Digest, UnixTime};
use ledger::keepers::KeeperMachine;
use ledger::state::{Member, PendingProposal, Subject};
use serde::Serialize;

use crate::audit;
use crate::failure::Failure;
use crate::print::{count_of, distance, indented, moment};
use crate::session::Session;
use crate::words::{ProposalReport, machine_in_words};

/// The keepers of a vault, from the verified log.
#[derive(Debug, Serialize)]
pub(crate) struct KeeperReport {
    vault: Sha256Digest,
    keeper: Machine,
    /// Those that decide beside it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<Other>,
    /// The keeper retired, and this one has not started yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    successor: Option<Machine>,
    /// Approvers let it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    approved: Option<Approved>,
    former: Vec<Machine>,
    waiting: u64,
    /// Whether the vault file that was given knows this keeper.
    known_to_vault_file: bool,
    #[serde(skip)]
    now: UnixTime,
}

#[derive(Debug, Serialize)]
struct Machine {
    instance: String,
    platform: Sha256Digest,
    ak_name: String,
    #[serde(skip)]
    says: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Other {
    keeper: Machine,
    /// Whether it has the keys: a run of it is in the log.
    started: bool,
    object: Sha256Digest,
    not_after: UnixTime,
}

#[derive(Debug, Serialize)]
struct Approved {
    keeper: Machine,
    object: Sha256Digest,
    not_after: UnixTime,
}

/// The keepers that ask to take over.
#[derive(Debug, Serialize)]
pub(crate) struct KeeperPendingReport {
    vault: Sha256Digest,
    pending: Vec<ProposalReport>,
}

pub(crate) async fn status(session: &Session) -> Result<KeeperReport, Failure> {
    let file = session.vault()?;
    let remote = session.remote(&file).await?;
    let log = audit::read_log(&remote, &file).await?;
    let (vault, now) = (log.vault()?, audit::moment_of(session.now(), log.state()));
    let keepers = vault.keepers();
    let approved = keepers.approved().filter(|approved| approved.check_time(now).is_ok());
    Ok(KeeperReport {
        vault: file.id(),
        keeper: keepers.current().into(),
        others: keepers.others().iter().map(Other::from).collect(),
        successor: keepers.successor().map(|successor| (&successor.machine).into()),
        approved: approved.map(|approved| Approved {
            keeper: (&approved.joiner().machine).into(),
            object: approved.object(),
            not_after: approved.not_after(),
        }),
        former: keepers.former().iter().map(Machine::from).collect(),
        waiting: vault.pending(now).filter(|proposal| is_join(proposal)).count() as u64,
        known_to_vault_file: file.keepers().iter().eq(keepers.all()),
        now,
    })
}

pub(crate) async fn pending(session: &Session) -> Result<KeeperPendingReport, Failure> {
    let file = session.vault()?;
    let remote = session.remote(&file).await?;
    let log = audit::read_log(&remote, &file).await?;
    let (vault, now) = (log.vault()?, audit::moment_of(session.now(), log.state()));
    let joins = vault.pending(now).filter(|proposal| is_join(proposal));
    let pending = joins.map(|proposal| ProposalReport::new(proposal, vault, now)).collect();
    Ok(KeeperPendingReport { vault: file.id(), pending })
}

fn is_join(proposal: &PendingProposal) -> bool {
    match proposal.subject() {
        Subject::Join(_) => true,
        Subject::Policy { .. }
        | Subject::Model(_)
        | Subject::Platform { .. }
        | Subject::Reseal { .. }
        | Subject::Escrow { .. }
        | Subject::Recover(_)
        | Subject::Leave { .. }
        | Subject::KeyEpoch { .. }
        | Subject::Raise { .. }
        | Subject::Permit { .. }
        | Subject::Revocation { .. } => false,
    }
}

impl From<&KeeperMachine> for Machine {
    fn from(machine: &KeeperMachine) -> Self {
        Self {
            instance: hex::encode(machine.instance),
            platform: machine.platform,
            ak_name: hex::encode(machine.ak_name.as_bytes()),
            says: machine_in_words(machine),
        }
    }
}

impl From<&Member> for Other {
    fn from(member: &Member) -> Self {
        let let_in = member.let_in();
        let (object, not_after) = (let_in.object(), let_in.not_after());
        Self { keeper: member.machine().into(), started: member.has_started(), object, not_after }
    }
}

impl Machine {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&indented(self.says.join("\n")))
    }
}

impl fmt::Display for KeeperReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.successor {
            None => writeln!(f, "The keeper of {}:", self.vault)?,
            Some(_) => writeln!(f, "RETIRED: this was the keeper of {}:", self.vault)?,
        }
        self.keeper.write(f)?;
        for Other { keeper, started, object, not_after } in &self.others {
            match started {
                true => writeln!(f, "Beside it:")?,
                false => writeln!(
                    f,
                    "Beside it, let in ({object}) and not started yet; it may take the keys until {} ({}):",
                    moment(*not_after),
                    distance(*not_after, self.now)
                )?,
            }
            keeper.write(f)?;
        }
        if let Some(successor) = &self.successor {
            writeln!(f, "Its successor has not started yet:")?;
            successor.write(f)?;
        }
        if let Some(Approved { keeper, object, not_after }) = &self.approved {
            writeln!(
                f,
                "Approvers let another keeper in ({object}), which may take over until {}",
                moment(*not_after)
            )?;
            writeln!(f, "({}):", distance(*not_after, self.now))?;
            keeper.write(f)?;
        }
        if self.waiting > 0 {
            writeln!(f, "{} to take over: see `vaultctl keeper pending`", count_of(self.waiting, "keeper asks"))?;
        }
        for machine in &self.former {
            writeln!(f, "Before, until it retired:")?;
            machine.write(f)?;
        }
        if !self.known_to_vault_file {
            writeln!(
                f,
                "This vault file knows other keepers. Whoever seals models or asks the keeper for evidence needs one"
            )?;
            writeln!(f, "that knows these: vaultctl vault-file --vault FILE --out NEW. Agents need none.")?;
        }
        Ok(())
    }
}

impl fmt::Display for KeeperPendingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pending.is_empty() {
            writeln!(f, "No keeper asks to take over.")?;
            return writeln!(
                f,
                "Next: `vault-enclave keeper-join --vault FILE --dir DIR` on the machine of the new one"
            );
        }
        for proposal in &self.pending {
            writeln!(f, "{proposal}")?;
        }
        writeln!(f, "Next: vaultctl approve OBJECT --vault FILE --key KEY")
    }
}
