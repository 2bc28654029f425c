use std::fmt;

use attestation::AnchorError;

use super::alarm::ALARMS_MAX;
use super::budget::BUDGETS_MAX;
use super::rules::{LeaseEnd, LeaseTime};
use crate::approvals::KeyError;
use crate::cosignature::WitnessPolicyError;
use crate::model_signature::PublisherKeyError;
use crate::note::NoteError;

/// Why a text is not a policy: which key, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// Full name of the key, such as `release.llama.pcrs.11[0]`; empty where it is the text as a whole.
    pub key: String,
    /// What is wrong.
    pub problem: PolicyProblem,
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyProblem {
    /// Longer than 12 KiB.
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Not TOML.
    NotToml {
        /// Line, from 1; 0 where it is not known.
        line: usize,
        /// What the reader of TOML says.
        message: String,
    },
    /// The key has to be there.
    KeyMissing,
    /// There is no such key.
    KeyUnknown,
    /// The value is of another type.
    WrongType {
        /// What it should be.
        expected: &'static str,
    },
    /// `format` is not 1.
    FormatUnknown {
        /// What it is.
        found: u64,
    },
    /// A list is empty.
    ListEmpty,
    /// A list has an item twice.
    ItemRepeated,
    /// Not a name.
    NameMalformed,
    /// Not a group label.
    GroupMalformed,
    /// Not `sha256:` and 64 lower-case hex digits.
    DigestMalformed,
    /// `vault`, `serial` and `prev` are partly of a first and partly of a later policy.
    LineageMixed,
    /// Not a time.
    NotAfterMalformed,
    /// A threshold is zero.
    ThresholdZero,
    /// More approvals than can ever be given.
    ThresholdUnreachable {
        /// How many are asked for.
        threshold: u64,
        /// How many approvers can sign.
        approvers: usize,
    },
    /// Break-glass would take fewer approvals than a policy.
    BreakGlassEasier {
        /// What a policy takes.
        threshold: u32,
    },
    /// Not a usable OpenSSH public key.
    SshKeyRefused(KeyError),
    /// Two ids have the same key.
    KeyRepeated,
    /// Two keys have the same id.
    IdRepeated,
    /// Not the PEM of a P-256 or P-384 public key.
    PublisherKeyRefused(PublisherKeyError),
    /// Not a usable anchor.
    AnchorRefused(AnchorError),
    /// `trust` is neither `emulated` nor `hardware`.
    TrustUnknown,
    /// This version knows no such proof.
    ProofUnknown {
        /// What was written.
        found: String,
    },
    /// A release rule requires a proof that the keeper need not give.
    ProofNotOfKeeper {
        /// Which.
        proof: String,
    },
    /// No PCR is named.
    PcrSetEmpty,
    /// There is no such PCR.
    PcrIndexUnknown,
    /// A PCR value is not 64 lower-case hex digits.
    PcrValueMalformed,
    /// Every PCR may be all zero: a machine that measured nothing would do.
    PcrsAllZero,
    /// Every PCR may be all ones: a machine that never launched would do.
    PcrsAllOnes,
    /// Every PCR may be all zero or all ones.
    PcrsBlank,
    /// Only PCRs that any program can reset.
    PcrsOnlyResettable,
    /// A PCR may have any value, and no rule on events says what has to be in it.
    PcrOpen {
        /// Which.
        pcr: u32,
    },
    /// A rule on events needs a PCR that `pcrs` does not name.
    BootPcrNotQuoted {
        /// Which.
        pcr: u32,
    },
    /// A rule on events beside firmware that may be any: events are what it says.
    BootFirmwareOpen,
    /// A rule on events that anybody's own kernel fulfils: it measures the good ones itself.
    BootImagesOpen,
    /// A rule on events that asks for nothing.
    BootEmpty,
    /// A command line is empty, too long, or not printable ASCII.
    CommandLineMalformed,
    /// Too many command lines, root hashes filled in.
    CommandLinesTooMany {
        /// The most that may be.
        max: usize,
    },
    /// A root hash is not 64 to 128 lower-case hex digits.
    VerityRootMalformed,
    /// A command line names no root hash that is listed, or another beside.
    VerityRootMissing,
    /// A root hash is listed that no command line names.
    VerityRootUnused,
    /// A machine could fulfil both `[keeper]` and this rule.
    KeeperNotDisjoint,
    /// `[keeper]` and this rule list the same launch digest.
    KeeperSameLaunch,
    /// `[keeper]` requires a TPM beside a report that does not endorse it.
    KeeperTpmUnbound,
    /// A rule requires a TPM beside a report that does not endorse it.
    GuestTpmUnbound,
    /// A rule takes enrolled EKs, and there is no `[platforms]` by which any could be enrolled.
    PlatformsMissing,
    /// Not the vkey of a witness.
    WitnessKeyRefused(NoteError),
    /// The witnesses and their two numbers do not go together.
    WitnessesRefused(WitnessPolicyError),
    /// The launch digest covers the paravisor alone, and nothing is asked of what was booted after it.
    CodeNotCovered,
    /// `code_covered_by` is unknown, or can't be used here.
    CodeCoverUnknown,
    /// Not a launch digest or key digest.
    Sha384Malformed,
    /// Not 32 bytes of HOST_DATA.
    HostDataMalformed,
    /// Not 1 to 128 bytes of printable ASCII.
    CspMalformed,
    /// `min_tcb` names no product.
    MinTcbEmpty,
    /// A number is too large for its field.
    NumberTooLarge {
        /// The most it may be.
        max: u64,
    },
    /// This version knows no such report version.
    ReportVersionUnknown,
    /// Neither `required` nor `if-present`.
    CrlRuleUnknown,
    /// Not a firmware version.
    FirmwareVersionMalformed,
    /// There is no such platform feature.
    PlatformFeatureUnknown,
    /// A time span is not a number and a unit.
    DurationMalformed,
    /// A lease is too short or too long.
    LeaseOutOfBounds {
        /// How long it is, in seconds.
        seconds: u64,
    },
    /// Neither `end` nor `drain` and a time.
    LeaseEndMalformed,
    /// `max_leases` is zero or too large.
    MaxLeasesOutOfBounds,
    /// More than 16 budgets.
    TooManyBudgets {
        /// How many.
        found: usize,
    },
    /// A budget limits nothing.
    BudgetEmpty,
    /// A limit of a budget is zero.
    BudgetZero,
    /// A budget of each platform limits platforms.
    BudgetOfOnePlatform,
    /// Neither `model`, `platform` nor `vault`.
    BudgetPerUnknown,
    /// Neither `refuse` nor `hold`.
    OverBudgetUnknown,
    /// Not a number of bytes.
    BytesMalformed,
    /// `[alarm]` without a rule.
    AlarmEmpty,
    /// More than 16 alarm rules.
    TooManyAlarms {
        /// How many.
        found: usize,
    },
    /// There is no such alarm.
    AlarmOnUnknown,
    /// Neither `alarm` nor `hold`.
    AlarmThenUnknown,
    /// `more_than` is zero.
    MoreThanZero,
    /// Not two times of a day.
    HoursMalformed,
    /// Not a weekday.
    WeekdayUnknown,
    /// An entry of `workloads` that allows any program.
    WorkloadOpen,
    /// One that pins a program and lets its environment be anything.
    WorkloadEnvironmentOpen,
    /// Neither a digest nor `"any"`.
    WorkloadDigestMalformed,
}

impl PolicyError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        self.problem.code()
    }
}

impl PolicyProblem {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "policy-too-long",
            Self::NotToml { .. } => "policy-not-toml",
            Self::KeyMissing => "policy-key-missing",
            Self::KeyUnknown => "policy-key-unknown",
            Self::WrongType { .. } => "policy-wrong-type",
            Self::FormatUnknown { .. } => "policy-format-unknown",
            Self::ListEmpty => "policy-list-empty",
            Self::ItemRepeated => "policy-item-repeated",
            Self::NameMalformed => "policy-name-malformed",
            Self::GroupMalformed => "policy-group-malformed",
            Self::DigestMalformed => "policy-digest-malformed",
            Self::LineageMixed => "policy-lineage-mixed",
            Self::NotAfterMalformed => "policy-not-after-malformed",
            Self::ThresholdZero => "policy-threshold-zero",
            Self::ThresholdUnreachable { .. } => "policy-threshold-unreachable",
            Self::BreakGlassEasier { .. } => "policy-break-glass-easier",
            Self::SshKeyRefused(KeyError::Malformed) => "policy-ssh-key-malformed",
            Self::SshKeyRefused(KeyError::Unsupported) => "policy-ssh-key-unsupported",
            Self::SshKeyRefused(KeyError::Weak) => "policy-ssh-key-weak",
            Self::KeyRepeated => "policy-key-repeated",
            Self::IdRepeated => "policy-id-repeated",
            Self::PublisherKeyRefused(_) => "policy-publisher-key-refused",
            Self::AnchorRefused(_) => "policy-anchor-refused",
            Self::TrustUnknown => "policy-trust-unknown",
            Self::ProofUnknown { .. } => "policy-proof-unknown",
            Self::ProofNotOfKeeper { .. } => "policy-proof-not-of-keeper",
            Self::PcrSetEmpty => "policy-pcr-set-empty",
            Self::PcrIndexUnknown => "policy-pcr-index-unknown",
            Self::PcrValueMalformed => "policy-pcr-value-malformed",
            Self::PcrsAllZero => "policy-pcrs-all-zero",
            Self::PcrsAllOnes => "policy-pcrs-all-ones",
            Self::PcrsBlank => "policy-pcrs-blank",
            Self::PcrsOnlyResettable => "policy-pcrs-only-resettable",
            Self::PcrOpen { .. } => "policy-pcr-open",
            Self::BootPcrNotQuoted { .. } => "policy-boot-pcr-not-quoted",
            Self::BootFirmwareOpen => "policy-boot-firmware-open",
            Self::BootImagesOpen => "policy-boot-images-open",
            Self::BootEmpty => "policy-boot-empty",
            Self::CommandLineMalformed => "policy-command-line-malformed",
            Self::CommandLinesTooMany { .. } => "policy-command-lines-too-many",
            Self::VerityRootMalformed => "policy-verity-root-malformed",
            Self::VerityRootMissing => "policy-verity-root-missing",
            Self::VerityRootUnused => "policy-verity-root-unused",
            Self::KeeperNotDisjoint => "policy-keeper-not-disjoint",
            Self::KeeperSameLaunch => "policy-keeper-same-launch",
            Self::KeeperTpmUnbound => "policy-keeper-tpm-unbound",
            Self::GuestTpmUnbound => "policy-guest-tpm-unbound",
            Self::PlatformsMissing => "policy-platforms-missing",
            Self::WitnessKeyRefused(_) => "policy-witness-key",
            Self::WitnessesRefused(error) => error.code(),
            Self::CodeNotCovered => "policy-code-not-covered",
            Self::CodeCoverUnknown => "policy-code-cover-unknown",
            Self::Sha384Malformed => "policy-sha384-malformed",
            Self::HostDataMalformed => "policy-host-data-malformed",
            Self::CspMalformed => "policy-csp-malformed",
            Self::MinTcbEmpty => "policy-min-tcb-empty",
            Self::NumberTooLarge { .. } => "policy-number-too-large",
            Self::ReportVersionUnknown => "policy-report-version-unknown",
            Self::CrlRuleUnknown => "policy-crl-rule-unknown",
            Self::FirmwareVersionMalformed => "policy-firmware-version-malformed",
            Self::PlatformFeatureUnknown => "policy-platform-feature-unknown",
            Self::DurationMalformed => "policy-duration-malformed",
            Self::LeaseOutOfBounds { .. } => "policy-lease-out-of-bounds",
            Self::LeaseEndMalformed => "policy-lease-end-malformed",
            Self::MaxLeasesOutOfBounds => "policy-max-leases-out-of-bounds",
            Self::TooManyBudgets { .. } => "policy-too-many-budgets",
            Self::BudgetEmpty => "policy-budget-empty",
            Self::BudgetZero => "policy-budget-zero",
            Self::BudgetOfOnePlatform => "policy-budget-of-one-platform",
            Self::BudgetPerUnknown => "policy-budget-per-unknown",
            Self::OverBudgetUnknown => "policy-over-budget-unknown",
            Self::BytesMalformed => "policy-bytes-malformed",
            Self::AlarmEmpty => "policy-alarm-empty",
            Self::TooManyAlarms { .. } => "policy-too-many-alarms",
            Self::AlarmOnUnknown => "policy-alarm-on-unknown",
            Self::AlarmThenUnknown => "policy-alarm-then-unknown",
            Self::MoreThanZero => "policy-more-than-zero",
            Self::HoursMalformed => "policy-hours-malformed",
            Self::WeekdayUnknown => "policy-weekday-unknown",
            Self::WorkloadOpen => "policy-workload-open",
            Self::WorkloadEnvironmentOpen => "policy-workload-environment-open",
            Self::WorkloadDigestMalformed => "policy-workload-digest-malformed",
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        self.problem.fmt(f)
    }
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::TooLong { bytes } => return write!(f, "{bytes} bytes are more than 12 KiB; shorten the policy"),
            Self::NotToml { line, message } => return write!(f, "not TOML (line {line}): {message}"),
            Self::SshKeyRefused(error) => return error.fmt(f),
            Self::WrongType { expected } => return write!(f, "write {expected}"),
            Self::FormatUnknown { found } => return write!(f, "format {found} is unknown; write 1"),
            Self::ThresholdUnreachable { threshold, approvers } => {
                return write!(f, "{threshold} approvals can never be given: {approvers} can sign; write at most that");
            }
            Self::BreakGlassEasier { threshold } => {
                return write!(
                    f,
                    "break-glass takes at least as many approvals as a policy; write at least {threshold}"
                );
            }
            Self::PublisherKeyRefused(error) => return write!(f, "{error}; write the PEM of one public key"),
            Self::WitnessKeyRefused(error) => {
                return write!(f, "{error}; write the vkey that `vaultctl witness keygen` printed");
            }
            Self::WitnessesRefused(error) => return error.fmt(f),
            Self::AnchorRefused(error) => return write!(f, "{error}; write the PEM of one CA certificate"),
            Self::ProofUnknown { found } => return write!(f, "proof {found:?} is unknown; write \"tpm\" or \"snp\""),
            Self::ProofNotOfKeeper { proof } => {
                return write!(f, "requires {proof:?}, which `keeper.require` does not; add it there or drop it here");
            }
            Self::LeaseOutOfBounds { seconds } => {
                let (min, max) = (LeaseTime::SECS_MIN, LeaseTime::SECS_MAX);
                return write!(f, "{seconds} s is not between {min} s and {max} s; write for example \"15m\"");
            }
            Self::NumberTooLarge { max } => return write!(f, "write a number from 0 to {max}"),
            Self::PcrOpen { pcr } => {
                return write!(
                    f,
                    "any value of PCR {pcr} would do, and no key of `boot` asks what is in it; list its values"
                );
            }
            Self::BootPcrNotQuoted { pcr } => {
                return write!(f, "these events are in PCR {pcr}; add it to `pcrs`, with its values or as \"any\"");
            }
            Self::CommandLinesTooMany { max } => {
                return write!(f, "more than {max} command lines with their root hashes; list fewer");
            }
            Self::LeaseEndMalformed => {
                return write!(f, "write \"end\" or \"drain 30s\", at most {} s", LeaseEnd::DRAIN_SECS_MAX);
            }
            Self::KeyMissing => "is missing; nothing has a default, write it out",
            Self::KeyUnknown => "there is no such key; remove it or correct its name",
            Self::ListEmpty => "an empty list; write at least one item, or remove the section",
            Self::ItemRepeated => "stands in the list twice; remove one",
            Self::NameMalformed => "not a name; write 1 to 64 of a-z, 0-9, '.', '_', '-', a letter or digit first",
            Self::GroupMalformed => "not a group; write 1 to 128 characters of printable ASCII without space",
            Self::DigestMalformed => "write \"sha256:\" and 64 lower-case hex digits",
            Self::LineageMixed => {
                "a first policy has vault \"genesis\", serial 1 and prev \"none\"; a later one has the vault's id, the \
                 next serial and the digest of the policy before"
            }
            Self::NotAfterMalformed => "write a time in UTC and quotes, such as \"2027-03-01T00:00:00Z\"",
            Self::ThresholdZero => "0 approvals means that nobody decides; write at least 1",
            Self::KeyRepeated => "this key already stands under another id; each person has his own",
            Self::IdRepeated => "this name is already taken; each needs its own",
            Self::TrustUnknown => "write \"emulated\" or \"hardware\"",
            Self::PcrSetEmpty => "names no PCR; name those that hold the measured boot, such as 0, 4, 7 and 11",
            Self::PcrIndexUnknown => "there is no such PCR; write 0 to 23",
            Self::PcrValueMalformed => "write 64 lower-case hex digits (the SHA-256 bank)",
            Self::PcrsAllZero => "all zero is what a machine shows that measured nothing; write measured values",
            Self::PcrsAllOnes => "all ones is what PCRs 17 to 22 show before a launch; write measured values",
            Self::PcrsBlank => "all zero and all ones are what a machine shows that measured nothing",
            Self::PcrsOnlyResettable => "any program can reset PCRs 16 and 23; add a PCR that holds the measured boot",
            Self::BootFirmwareOpen => {
                "events are what the firmware says, and any firmware would do; list the values of PCR 0, the firmware's"
            }
            Self::BootImagesOpen => {
                "any kernel would do, and it can measure the listed command line itself, or was signed by a key that the \
                 machine's owner enrolled; list `images`, or values of PCR 4"
            }
            Self::BootEmpty => "asks for nothing; ask for something, or remove the section",
            Self::CommandLineMalformed => "write 1 to 2048 characters of printable ASCII, as the kernel gets them",
            Self::VerityRootMalformed => "write 64 to 128 lower-case hex digits",
            Self::VerityRootMissing => {
                "this command line must name a root hash of `verity_root_hashes`, and no other; write \
                 roothash={verity_root_hash} where it belongs"
            }
            Self::VerityRootUnused => {
                "no command line names this root hash; remove it, or write {verity_root_hash} in one"
            }
            Self::KeeperNotDisjoint => {
                "a machine could fulfil both this rule and `keeper.pcrs`, and pose as a keeper; let them differ in a PCR"
            }
            Self::KeeperSameLaunch => {
                "`keeper.snp.measurements` has one of these launch digests: a guest could pose as a keeper; give each its own image"
            }
            Self::KeeperTpmUnbound => {
                "nothing binds a TPM to an SNP report; write [\"snp\"], and `pcrs` and `eks` for the TPM that it seals to"
            }
            Self::GuestTpmUnbound => {
                "nothing binds this TPM to the SNP report, so it would prove nothing; drop \"tpm\", or write \
                 code_covered_by = \"paravisor-vtpm\""
            }
            Self::PlatformsMissing => {
                "nobody could enrol an EK, or remove it again; add [platforms] with its threshold, or drop this key"
            }
            Self::CodeNotCovered => {
                "the launch digest covers the paravisor alone; add \"tpm\" to `require` and the PCRs of what it boots"
            }
            Self::CodeCoverUnknown => "write \"launch\" or, for a guest, \"paravisor-vtpm\"",
            Self::Sha384Malformed => "write 96 lower-case hex digits (SHA-384)",
            Self::HostDataMalformed => "write 64 lower-case hex digits",
            Self::CspMalformed => "write 1 to 128 printable ASCII characters, as the cloud's certificate has them",
            Self::MinTcbEmpty => "names no product; write milan, genoa or turin with its lowest TCB",
            Self::ReportVersionUnknown => "write 2, 3, 4 or 5",
            Self::CrlRuleUnknown => "write \"required\" or \"if-present\"",
            Self::FirmwareVersionMalformed => "write major.minor.build, such as \"1.55.21\"",
            Self::PlatformFeatureUnknown => "write ecc, tsme, rapl-disabled, ciphertext-hiding or alias-check",
            Self::DurationMalformed => "write a whole number and s, m, h or d, such as \"15m\"",
            Self::MaxLeasesOutOfBounds => "write a number from 1 to 4294967295",
            Self::TooManyBudgets { found } => return write!(f, "{found} budgets; write at most {BUDGETS_MAX}"),
            Self::TooManyAlarms { found } => return write!(f, "{found} alarm rules; write at most {ALARMS_MAX}"),
            Self::AlarmEmpty => "has no rule; write [alarm.NAME], or remove it",
            Self::AlarmOnUnknown => {
                "write \"new-platform\", \"new-measurement\", \"more-leases\", \"outside-hours\" or \"canary\""
            }
            Self::AlarmThenUnknown => "write \"alarm\" or \"hold\"",
            Self::MoreThanZero => "write at least 1; to hear of every release write on = \"canary\"",
            Self::HoursMalformed => "write two times of a day in UTC, the earlier first, such as \"08:00-20:00\"",
            Self::WeekdayUnknown => "write mon, tue, wed, thu, fri, sat or sun",
            Self::WorkloadOpen => {
                "any program would do, whatever else is pinned; pin `program`, or write workloads = \"any\", which has it shown \
                 and logged"
            }
            Self::WorkloadEnvironmentOpen => {
                "with LD_PRELOAD or PYTHONPATH the program is whatever they name; pin `environment` too, which `run --clean-env \
                 --env NAME=VALUE` fixes and `vaultctl measure workload` prints"
            }
            Self::WorkloadDigestMalformed => {
                "write \"any\", or \"sha256:\" and 64 lower-case hex digits, as `vaultctl measure workload` prints them"
            }
            Self::BudgetEmpty => {
                "limits nothing; write bytes_per_day, releases_per_hour, platforms_per_day or leases, or remove it"
            }
            Self::BudgetZero => "0 releases nothing; remove the release rules instead, or write at least 1",
            Self::BudgetOfOnePlatform => "each platform by itself is one platform; write per = \"model\" or \"vault\"",
            Self::BudgetPerUnknown => "write \"model\", \"platform\" or \"vault\"",
            Self::OverBudgetUnknown => "write \"refuse\" or \"hold\"",
            Self::BytesMalformed => "write a whole number and B, KiB, MiB, GiB or TiB, such as \"500GiB\"",
        };
        f.write_str(text)
    }
}

impl std::error::Error for PolicyError {}
