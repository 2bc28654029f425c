//! How a statement gets its signature: by `ssh-keygen` now, or somewhere else and later.

use std::path::{Path, PathBuf};

use attestation::UnixTime;
use ledger::approvals::{
    self, ApprovalError, ApprovalStatement, SSHSIG_BYTES_MAX, SSHSIG_NAMESPACE, STATEMENT_BYTES_MAX,
};
use ledger::names::Name;
use ledger::policy::Approver;
use serde::Serialize;

use crate::cli::Signing;
use crate::failure::{Failure, Kind};
use crate::session::{Session, read, read_text, write_new};
use crate::ssh;

/// What came of it.
pub enum Signed {
    /// A signature by an approver.
    Now(Signature),
    /// The statement was written, and nothing signed.
    Later(Printed),
}

/// A statement and the signature of an approver over its exact bytes.
pub struct Signature {
    /// The exact bytes.
    pub statement: Vec<u8>,
    /// Armored SSHSIG.
    pub armored: String,
    /// Whose key signed.
    pub approver: Name,
    /// Until when it counts.
    pub not_after: UnixTime,
}

/// A statement that waits for a signature.
#[derive(Debug, Serialize)]
pub struct Printed {
    /// Where it is.
    pub statement: PathBuf,
    /// How to sign it.
    pub sign_with: String,
    /// How to go on.
    pub submit_with: String,
}

/// Signs, or takes the signature that was made elsewhere. `expected` is what must be signed; its `not_after` is that of
/// the invocation.
///
/// Whatever comes out was checked as the keeper will check it, so that a wrong key shows here.
pub fn obtain(
    signing: &Signing,
    expected: &ApprovalStatement,
    approvers: &[Approver],
    session: &Session,
) -> Result<Signed, Failure> {
    if let Some(path) = &signing.print_statement {
        return print(path, expected).map(Signed::Later);
    }
    let (statement, armored) = match (&signing.signature, &signing.key) {
        (Some(signature), _) => made_elsewhere(signature, signing.statement.as_deref(), expected, session.now())?,
        (None, Some(key)) => {
            session.confirm("Sign this?", signing.yes)?;
            let statement = expected.encode();
            let armored = ssh::sign(key, &statement)?;
            (statement, armored)
        }
        (None, None) => {
            return Err(Failure::new(Kind::Usage, "key-missing", "nobody signs").next("give --key KEY"));
        }
    };
    let signed = approvals::verify(&statement, &armored, approvers).map_err(|error| {
        let next = match &error {
            ApprovalError::NotAnApprover { .. } => approver_list(approvers),
            ApprovalError::Statement(_) | ApprovalError::Signature(_) => {
                format!("sign exactly the statement: ssh-keygen -Y sign -n {SSHSIG_NAMESPACE} -f KEY FILE")
            }
        };
        Failure::new(Kind::Usage, error.code(), "this signature would not count").why(error).next(next)
    })?;
    let not_after = signed.statement().not_after;
    Ok(Signed::Now(Signature { approver: signed.approver().clone(), statement, armored, not_after }))
}

/// Refuses a key that is not an approver's, before anybody is asked to read and sign. Says nothing where the public half
/// of the key is not at hand.
pub fn check_approver(signing: &Signing, approvers: &[Approver]) -> Result<Option<Name>, Failure> {
    let Some(key) = signing.key.as_deref() else { return Ok(None) };
    let Some(public) = ssh::public_key(key)? else { return Ok(None) };
    match approvers.iter().find(|approver| approver.key == public) {
        Some(approver) => Ok(Some(approver.id.clone())),
        None => Err(Failure::new(
            Kind::Usage,
            "not-an-approver",
            format!("{} is not the key of an approver", key.display()),
        )
        .why(format!("its fingerprint is {}", public.fingerprint()))
        .next(approver_list(approvers))),
    }
}

fn approver_list(approvers: &[Approver]) -> String {
    let list: Vec<String> = approvers.iter().map(ToString::to_string).collect();
    format!("sign with the key of one of: {}", list.join(", "))
}

fn print(path: &Path, statement: &ApprovalStatement) -> Result<Printed, Failure> {
    write_new(path, &statement.encode())?;
    Ok(Printed {
        statement: path.to_owned(),
        sign_with: format!("ssh-keygen -Y sign -n {SSHSIG_NAMESPACE} -f KEY {}", path.display()),
        submit_with: format!("the same command with --signature {}.sig", path.display()),
    })
}

/// A signature from elsewhere must be over the statement that this invocation would sign, but for its last moment.
fn made_elsewhere(
    signature: &Path,
    statement: Option<&Path>,
    expected: &ApprovalStatement,
    now: UnixTime,
) -> Result<(Vec<u8>, String), Failure> {
    let path = match statement {
        Some(path) => path.to_owned(),
        None => match signature.to_str().and_then(|path| path.strip_suffix(".sig")) {
            Some(path) => PathBuf::from(path),
            None => {
                return Err(Failure::new(Kind::Usage, "statement-missing", "which statement is the signature over?")
                    .next("give it with --statement FILE"));
            }
        },
    };
    let bytes = read(&path, STATEMENT_BYTES_MAX)?;
    let found = ApprovalStatement::parse(&bytes).map_err(|error| {
        Failure::new(Kind::Usage, error.code(), format!("{} is not an approval statement", path.display())).why(error)
    })?;
    if (ApprovalStatement { not_after: expected.not_after, ..found }) != *expected {
        return Err(Failure::new(Kind::Usage, "statement-other", "the signature is over another statement than this")
            .why(format!("expected {expected:?}\nfound {found:?}"))
            .next("the policy in force may have changed since it was printed: print and sign the statement again"));
    }
    if found.not_after < now {
        return Err(Failure::new(Kind::Usage, "statement-expired", "the statement no longer counts")
            .next("print and sign it again"));
    }
    Ok((bytes, read_text(signature, SSHSIG_BYTES_MAX)?))
}

impl std::fmt::Display for Printed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "Nothing was signed. The statement is in {}.", self.statement.display())?;
        writeln!(f, "  sign it:   {}", self.sign_with)?;
        writeln!(f, "  submit it: {}", self.submit_with)
    }
}
