//! Evidence formats and their verification: what a TPM shows about the machine that it is in, and what an AMD SEV-SNP
//! report shows about its guest.
//!
//! This crate promises that a [`Verified`] statement was quoted by an attestation key of an endorsed TPM, for exactly
//! this challenge and these keys, over exactly these PCRs. Each value can be made only from the one before it:
//!
//! ```text
//!  TpmIdentity ──verify(TrustAnchors, now)──▶ EndorsedTpm ──make_credential──▶ Credential ──▶ to the requester's TPM
//!  raw: EK chain, AK                              │                                             │ which alone gives
//!                                                 │                                             ▼ back the secret
//!  LoadChallenge {…, ak_name, secret} ──bind(its HPKE key, its lease key)──▶ Binding<Load> ──▶ extraData of its quote
//!                                                 │                             │
//!  TpmQuote ──────────────────────────────────────┴─────────verify_tpm──────────┴──▶ Verified<Load> { Claims, Load }
//!  raw: TPMS_ATTEST, TPMT_SIGNATURE, PCR values
//! ```
//!
//! A report of SEV-SNP stands for itself, since its key is the chip's. Azure's form joins it with a TPM:
//!
//! ```text
//!  SnpEvidence ──verify(TrustAnchors, CrlRule, now)──▶ EndorsedReport { SnpClaims } ──check_report_data──▶ fresh
//!  raw: report, VCEK|VLEK, ASK, ARK, CRLs                    │
//!  HclReport (raw: runtime data) ──────────endorse───────────┴──▶ EndorsedVtpm ──verify_quote──▶ VtpmState
//! ```
//!
//! A log says what PCR values stand for, and is believed only where it leads to quoted ones:
//!
//! ```text
//!  bytes ──EventLog::parse──▶ EventLog ──replay──▶ ReplayedLog ──against(QuoteClaims, PCRs)──▶ MeasuredLog ──▶ its rules
//! ```
//!
//! - One-use values (challenge, [`Binding`], [`TpmQuote`]) are moved. A challenge, a binding and a [`Verified`] can be
//!   neither cloned nor serialised.
//! - The key that a grant will be wrapped to goes into the binding and comes out of the [`Verified`] statement: a key
//!   that the TPM did not quote for cannot be reached.
//! - An AK is trusted for its quote only because the binding holds a secret that came out of the EK's TPM for that AK.
//!
//! **What it does not show.** Root on the machine can read the memory of every process on it. An anchor marked
//! [`Trust::Emulated`] vouches for a software TPM, whose keys its owner has. A revoked EK certificate is not noticed: a
//! policy lists the EKs it wants. PCR values are given back as claims: whether they are good is for a policy to say.
//!
//! **What it never does.** It never reads a clock, a file, an environment variable or a network; `now` and randomness
//! are passed in. It holds no secret key. It never pads, trims or re-encodes what was signed. It contains no `unsafe`.
//! Structures are read in full, with exact lengths, by bounded readers; what is unknown is refused.
//!
//! # Example
//!
//! Evidence of a software TPM, recorded once (`tests/data/README.md`).
//!
//! ```
//! use attestation::{
//!     ActivationSecret, Anchor, EndorsedTpm, HpkePublicKey, LeaseKey, LoadChallenge, PcrSelection, Sha256Digest,
//!     TpmIdentity, TpmPart, TpmQuote, Trust, TrustAnchors, UnitSet, UnixTime, verify_tpm,
//! };
//! # use serde_json::Value;
//! # let recorded: Value = serde_json::from_str(include_str!("../tests/data/swtpm.json"))?;
//! # let quote = &recorded["quotes"][0];
//! # let bytes = |hex_text: &Value| hex::decode(hex_text.as_str().unwrap()).unwrap();
//! # let now = UnixTime(recorded["now"].as_u64().unwrap());
//! # let certificate = bytes(&recorded["anchor"]);
//! # let ek_certificates: Vec<_> = recorded["ek_certificates"].as_array().unwrap().iter().map(bytes).collect();
//! # let ak_public = bytes(&quote["ak_public"]);
//! # let (attest, signature) = (bytes(&quote["attest"]), bytes(&quote["signature"]));
//! # let pcrs = [0, 1, 2, 7, 11].map(|i: u32| (i, bytes(&recorded["pcrs"][i.to_string()]).try_into().unwrap())).to_vec();
//! # let secret = ActivationSecret::from_bytes(bytes(&quote["secret"]).try_into().unwrap());
//! # let generated = secret;
//!
//! // Whose TPM, and who says so? The anchors come from an approved policy.
//! let identity = TpmIdentity { ek_certificates, ek_public: Vec::new(), ak_public };
//! let anchor = Anchor { name: "ci-tpm".to_owned(), trust: Trust::Emulated, certificate };
//! let anchors = TrustAnchors::built_in().with(anchor)?;
//! let tpm = EndorsedTpm::verify(&identity, &anchors, now)?;
//!
//! // A challenge, with a secret that only that TPM can open (the recorded quote is for that of its own run).
//! let rng = ring::rand::SystemRandom::new();
//! let secret = ActivationSecret::generate(&rng)?;
//! let credential = tpm.make_credential(&secret, &rng)?;
//! # let secret = generated;
//! let challenge = LoadChallenge {
//!     rule: "serve".to_owned(),
//!     model: "minilm".to_owned(),
//!     version: "1.0".to_owned(),
//!     session: [1; 16],
//!     nonce: [2; 32],
//!     vault: Sha256Digest::of(b"vault"),
//!     policy: Sha256Digest::of(b"policy"),
//!     manifest: Sha256Digest::of(b"manifest"),
//!     units: UnitSet::try_from(vec![0, 1, 2])?,
//!     tpm: TpmPart::Activated { ak_name: *tpm.ak().name(), secret },
//! };
//!
//! // The answer: the requester's keys, and a quote for them.
//! let binding = challenge.bind(HpkePublicKey::try_from([3; 1665].as_slice())?, LeaseKey::try_from([4; 32].as_slice())?);
//! let quote = TpmQuote { identity, attest, signature, pcrs };
//! let verified = verify_tpm(quote, &tpm, binding, &PcrSelection::try_from([0, 1, 2, 7, 11].as_slice())?)?;
//!
//! assert_eq!(verified.claims().trust(), Trust::Emulated);
//! assert_eq!(verified.statement().model(), "minilm");
//! assert_eq!(verified.claims().quote().map(|quote| quote.pcrs().len()), Some(5));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod anchors;
mod binding;
mod certificate;
mod certificate_key;
mod claims;
mod command_line;
mod encoding;
mod error;
mod eventlog;
mod evidence;
mod keys;
mod launch;
mod le;
mod measured_boot;
mod pe;
mod snp;
mod tpm;
mod verify;

pub use anchors::{ANCHORS_MAX, Anchor, AnchorKind, TpmRoot, Trust, TrustAnchors};
pub use binding::{
    Binding, Genesis, GenesisChallenge, Join, JoinChallenge, JoinerKeys, Keeper, KeeperChallenge, Load, LoadChallenge,
    ProgramForm, ProgramFormError, Recover, RecoverChallenge, Renew, RenewChallenge, TpmPart, Transcript, Workload,
    arguments_digest, environment_digest, lease_id, script_program,
};
pub use claims::{Claims, EkClaims, QuoteClaims};
pub use command_line::{RootHash, verity_root_hashes};
pub use encoding::{Sha256Digest, UNITS_MAX, UnitSet, UnixTime, lv};
pub use error::{
    AnchorError, CertificateError, CertificateTableError, CollateralError, CredentialError, DecodeError, EventLogError,
    HclError, KernelHeaderError, LaunchError, PeError, SignatureInvalid, SnpCertificate, SnpError, VerifyError,
};
pub use eventlog::{
    Bank, Content, EVENT_LOG_BYTES_MAX, EVENTS_MAX, Event, EventLog, MeasuredCommandLine, MeasuredLog, ReplayedLog,
    Separator, Variable, VariableClass,
};
pub use evidence::{AzureEvidence, Evidence, EvidenceForm, Expected};
pub use keys::{HPKE_PUBLIC_KEY_BYTES, HpkePublicKey, IdentityKey, LeaseKey, LogKey};
pub use launch::{CpuType, FIRMWARE_BYTES_MAX, Firmware, GUEST_FEATURES_SNP, KernelHashes, Launch, VCPUS_MAX};
pub use measured_boot::{QemuQ35, efi_stub_pcr9, ovmf_direct_boot_pcr4, systemd_stub_pcr11};
pub use pe::{PE_BYTES_MAX, PeImage, PeSection};
pub use snp::{
    AzureQuote, CRL_BYTES_MAX, CRLS_MAX, CertificateTable, ChainId, CollateralChain, CollateralKey, CpuId, CrlRule,
    CrlStatus, CrlWindow, EndorsedReport, EndorsedVtpm, FirmwareVersion, GuestPolicy, HclReport, KEPT_CHAINS_MAX,
    KeptChains, KeyInfo, LeafState, PlatformInfo, Report, SNP_REPORT_BYTES, SigningKey, SnpClaims, SnpEvidence,
    SnpProduct, TableEntry, TcbComponent, TcbVersion, VcekId, VerifiedChain, VtpmState, chip_platform, csp_platform,
};
pub use tpm::{
    ActivationSecret, AkName, AttestationKey, Credential, EkEndorsement, EkKind, EkPublic, EndorsedEk, EndorsedTpm,
    EnrolledEk, EnrolledEks, PcrBank, PcrSelection, QuoteStatement, TpmIdentity, TpmQuote, claimed_ek,
};
pub use verify::{Verified, verify_snp, verify_snp_vtpm, verify_snp_with_tpm, verify_tpm};
