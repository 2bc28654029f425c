//! How large things on the wire may be. The `.proto` comments say the same.

use attestation::HPKE_PUBLIC_KEY_BYTES;

/// CRLs of one report.
pub const CRLS_MAX: usize = 2;
/// One CRL.
pub const CRL_BYTES_MAX: usize = 64 << 10;
/// An HCL report.
pub const HCL_REPORT_BYTES_MAX: usize = 16 << 10;
/// X.509 certificates of one EK or report chain.
pub const CERTIFICATES_MAX: usize = 6;
/// One X.509 certificate.
pub const CERTIFICATE_BYTES_MAX: usize = 4 << 10;
/// TPMT_PUBLIC of an attestation key.
pub const AK_PUBLIC_BYTES_MAX: usize = 1 << 10;
/// Bytes of an EK's public area.
pub const EK_PUBLIC_BYTES_MAX: usize = 1 << 10;
/// TPM2B_ID_OBJECT.
pub const ID_OBJECT_BYTES_MAX: usize = 256;
/// TPM2B_ENCRYPTED_SECRET.
pub const ENCRYPTED_SECRET_BYTES_MAX: usize = 514;
/// TPMS_ATTEST.
pub const ATTEST_BYTES_MAX: usize = 1 << 10;
/// TPMT_SIGNATURE.
pub const TPM_SIGNATURE_BYTES_MAX: usize = 600;
/// PCRs of one quote.
pub const PCRS_MAX: usize = 24;
/// An event log. The longest recorded one has 50 kB; with all other evidence it fits [`VAULT_MESSAGE_BYTES_MAX`].
pub const EVENT_LOG_BYTES_MAX: usize = 256 << 10;
/// Pieces of evidence in a set.
pub const EVIDENCE_MAX: usize = 2;
/// Forms of evidence that a requester names.
pub const FORMS_MAX: usize = 4;
/// Labels in a selection.
pub const GROUPS_MAX: usize = 256;
/// An entry of the log.
pub const ENTRY_BYTES_MAX: usize = 16 << 10;
/// A C2SP tlog-proof: 64 hashes and a checkpoint with its cosignatures.
pub const LOG_PROOF_BYTES_MAX: usize = 64 << 10;
/// A C2SP checkpoint with its cosignatures.
pub const CHECKPOINT_BYTES_MAX: usize = 32 << 10;
/// A lease statement.
pub const LEASE_STATEMENT_BYTES_MAX: usize = 2 << 10;
/// The act of a revocation.
pub const REVOCATION_BYTES_MAX: usize = 4 << 10;
/// An extension file.
pub const EXTENSION_FILE_BYTES_MAX: usize = 64 << 10;
/// Leases of one notice.
pub const NOTICE_LEASES_MAX: usize = 128;
/// The core of a genesis.
pub const CORE_BYTES_MAX: usize = 14 << 10;
/// A genesis: an entry of the log.
pub const GENESIS_BYTES_MAX: usize = ENTRY_BYTES_MAX;
/// A policy.
pub const POLICY_BYTES_MAX: usize = 12 << 10;
/// An approval statement.
pub const APPROVAL_BYTES_MAX: usize = 1 << 10;
/// An armored SSHSIG.
pub const SSHSIG_BYTES_MAX: usize = 4 << 10;
/// A statement of a reader of the log.
pub const READ_STATEMENT_BYTES_MAX: usize = 256;
/// Approvers of a proposal.
pub const APPROVERS_MAX: usize = 256;
/// A line about a proposal, for a person.
pub const SUMMARY_BYTES_MAX: usize = 1 << 10;
/// `dek.hpke`: an encapsulated key, and a DEK of 64 bytes with its tag.
pub const DEK_BYTES: usize = HPKE_PUBLIC_KEY_BYTES + 64 + 16;
/// The keys of a vault on their way to its next keeper: 144 bytes and a tag.
pub const WRAPPED_VAULT_KEYS_BYTES: usize = 144 + 16;
/// A share of a vault's keys on its way to a recovering keeper: 32 bytes and a tag.
pub const CONTRIBUTION_BYTES: usize = 32 + 16;
/// `model.sig`.
pub const MODEL_SIGNATURE_BYTES_MAX: usize = 8 << 20;
/// A blob.
pub const BLOB_BYTES_MAX: usize = 8 << 20;
/// The data of one message of FetchUnits or UploadUnit.
pub const DATA_BYTES_MAX: usize = 4 << 20;
/// Ranges of one FetchUnits call.
pub const RANGES_MAX: usize = 16_384;
/// Entries of one ReadLog call.
pub const READ_LOG_MAX: u32 = 4_096;
/// Entries of one GetEntries call.
pub const GET_ENTRIES_MAX: u32 = 1_024;
/// Bytes of entries in one AppendLog or its like, together.
pub const ENTRIES_BYTES_MAX: usize = 8 << 20;

/// A message from an agent: 16,384 ranges at their longest.
pub const VAULT_MESSAGE_BYTES_MAX: usize = 640 << 10;
/// An answer to an agent: a manifest with its signature.
pub const VAULT_REPLY_BYTES_MAX: usize = 17 << 20;
/// A message of a provisioning call: a manifest, its signature and a wrapped DEK.
pub const PROVISION_MESSAGE_BYTES_MAX: usize = 17 << 20;
/// A message on the keeper's link, either way.
pub const LINK_MESSAGE_BYTES_MAX: usize = 18 << 20;
