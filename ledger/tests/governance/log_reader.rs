//! Who may read a private log: each refusal changes one thing in a good statement.

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalStatement, SshsigError};
use ledger::log_reader::{READ_SECS_MAX, READ_STATEMENT_BYTES_MAX, ReadStatement, ReaderError, authorise};
use ledger::policy::Policy;

use crate::support::keys::Person;
use crate::support::policy_text;

const NOW: UnixTime = UnixTime(1_700_000_000);
/// The seed of the reader, who approves nothing.
const DAVE: u8 = 40;

fn vault() -> Sha256Digest {
    Sha256Digest::of(b"vault")
}

fn policy() -> Policy {
    let readers = format!("readers = [ {{ id = \"dave\", key = \"{}\" }} ]", Person::new(DAVE).key_line());
    Policy::parse(&policy_text::first().replace("readers = \"any\"", &readers)).unwrap()
}

fn good() -> ReadStatement {
    ReadStatement { vault: vault(), not_after: UnixTime(NOW.0 + READ_SECS_MAX) }
}

/// What a statement signed by the reader gives.
fn read(statement: &[u8]) -> Result<String, ReaderError> {
    let signature = Person::new(DAVE).sign(statement);
    authorise(statement, &signature, &policy(), vault(), NOW).map(|reader| reader.id().to_string())
}

#[test]
fn a_readers_statement_is_written_in_the_form_of_the_format() {
    let statement = ReadStatement { vault: vault(), not_after: UnixTime(1_800_000_000) };
    let text = format!("{{\"v\":1,\"action\":\"read-log\",\"vault\":\"{}\",\"not_after\":1800000000}}\n", vault());
    assert_eq!(String::from_utf8(statement.encode()).unwrap(), text);
    assert_eq!(ReadStatement::parse(text.trim_end().as_bytes()), Ok(statement));
    // The vector of FORMAT.md §7: the vault there is SHA-256("vault").
    let digest = Sha256Digest::of(text.as_bytes()).to_string();
    assert!(include_str!("../../../vault-enclave/FORMAT.md").contains(&digest), "{digest}");
}

#[test]
fn a_reader_and_an_approver_may_read_until_the_last_moment() {
    assert_eq!(read(&good().encode()).unwrap(), "dave");
    assert!(read(&ReadStatement { not_after: NOW, ..good() }.encode()).is_ok());
    let statement = good().encode();
    let approver = policy().approval().approvers[0].clone();
    let signer = (0..=255).map(Person::new).find(|person| {
        authorise(&statement, &person.sign(&statement), &policy(), vault(), NOW)
            .is_ok_and(|reader| *reader.id() == approver.id)
    });
    assert!(signer.is_some(), "{approver} must be able to read what he approves");
}

#[test]
fn a_statement_that_does_not_count_here_and_now_is_refused() {
    let of = |statement: ReadStatement| read(&statement.encode()).unwrap_err().code();
    assert_eq!(of(ReadStatement { vault: Sha256Digest::of(b"other"), ..good() }), "reader-vault-other");
    assert_eq!(of(ReadStatement { not_after: UnixTime(NOW.0 - 1), ..good() }), "reader-statement-expired");
    let too_far = UnixTime(NOW.0 + READ_SECS_MAX + 1);
    assert_eq!(of(ReadStatement { not_after: too_far, ..good() }), "reader-statement-too-far-ahead");
    assert_eq!(of(ReadStatement { not_after: UnixTime(u64::MAX), ..good() }), "reader-statement-too-far-ahead");
}

#[test]
fn a_readers_statement_of_any_other_form_is_refused() {
    let text = String::from_utf8(good().encode()).unwrap();
    let code = |text: &str| read(text.as_bytes()).unwrap_err().code();
    assert_eq!(code(&text.replace("read-log", "policy")), "reader-action-other");
    assert_eq!(code(&text.replace("\"v\":1", "\"v\":2")), "reader-statement-version-unknown");
    assert_eq!(code(&format!("{text}\n")), "reader-statement-surrounded");
    assert_eq!(code(&text.replace("\"v\":1", "\"v\":1,\"v\":1")), "reader-statement-malformed");
    assert_eq!(code(&text.replace("\"v\":1", "\"v\":1,\"x\":1")), "reader-statement-malformed");
    assert_eq!(code(&" ".repeat(READ_STATEMENT_BYTES_MAX + 1)), "reader-statement-too-long");
}

#[test]
fn a_stranger_or_a_signature_over_other_bytes_reads_nothing() {
    let statement = good().encode();
    let by = |signature: &str| authorise(&statement, signature, &policy(), vault(), NOW).unwrap_err();
    let stranger = by(&Person::new(41).sign(&statement));
    assert_eq!(stranger.code(), "not-a-reader");
    assert_eq!(by(&Person::new(DAVE).sign(b"other")), ReaderError::Signature(SshsigError::SignatureInvalid));
}

#[test]
fn a_readers_statement_is_no_approval() {
    assert!(ApprovalStatement::parse(&good().encode()).is_err());
}
