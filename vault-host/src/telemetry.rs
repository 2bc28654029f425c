//! Names of the methods, the span of a call, and the log lines.

use std::fmt;
use std::io::IsTerminal;

use ring::rand::{SecureRandom, SystemRandom};
use tracing::Span;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Which log lines are written: the only setting that the environment has a word in.
pub const LOG_FILTER_VARIABLE: &str = "WEIGHTVAULT_LOG";

/// A method as log lines name it, and what it costs to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    /// Service and method.
    pub(crate) name: &'static str,
    /// How it is limited.
    pub(crate) kind: Kind,
    /// What its caller may learn of a refusal.
    pub(crate) audience: Audience,
}

/// How a method is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Small request, small or bounded answer, seconds at most.
    Call,
    /// A challenge: a call that makes the keeper remember something for whoever asks.
    Challenge,
    /// One of the few large requests.
    Publish,
    /// The keeper's evidence, for which it waits for its TPM.
    Evidence,
    /// A search of the journal, which may read all of it.
    Search,
    /// Ciphertext down, for as long as it takes.
    Stream,
    /// Ciphertext up.
    Upload,
    /// An open stream over which little goes, for as long as its client likes.
    Watch,
    /// Health and whatever else is not ours.
    Other,
}

/// What a caller may learn of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The kind of refusal.
    Agent,
    /// The exact code.
    Engineer,
}

const fn method(name: &'static str, kind: Kind, audience: Audience) -> Method {
    Method { name, kind, audience }
}

const METHODS: [(&str, Method); 37] = [
    ("/weightvault.v1.Vault/GetChallenge", method("Vault.GetChallenge", Kind::Challenge, Audience::Agent)),
    ("/weightvault.v1.Vault/ReleaseKeys", method("Vault.ReleaseKeys", Kind::Call, Audience::Agent)),
    ("/weightvault.v1.Vault/RenewLease", method("Vault.RenewLease", Kind::Call, Audience::Agent)),
    ("/weightvault.v1.Vault/EndLease", method("Vault.EndLease", Kind::Call, Audience::Agent)),
    ("/weightvault.v1.Vault/WatchLease", method("Vault.WatchLease", Kind::Watch, Audience::Agent)),
    ("/weightvault.v1.Vault/SubmitExtension", method("Vault.SubmitExtension", Kind::Call, Audience::Agent)),
    ("/weightvault.v1.Vault/GetKeyEpochs", method("Vault.GetKeyEpochs", Kind::Call, Audience::Agent)),
    ("/weightvault.v1.Vault/GetManifest", method("Vault.GetManifest", Kind::Call, Audience::Agent)),
    ("/weightvault.v1.Vault/FetchUnits", method("Vault.FetchUnits", Kind::Stream, Audience::Agent)),
    ("/weightvault.v1.Vault/ListModels", method("Vault.ListModels", Kind::Call, Audience::Agent)),
    ("/weightvault.v1.Provision/InitKeeper", method("Provision.InitKeeper", Kind::Call, Audience::Engineer)),
    (
        "/weightvault.v1.Provision/GetKeeperIdentity",
        method("Provision.GetKeeperIdentity", Kind::Call, Audience::Engineer),
    ),
    (
        "/weightvault.v1.Provision/GetKeeperEvidence",
        method("Provision.GetKeeperEvidence", Kind::Evidence, Audience::Engineer),
    ),
    ("/weightvault.v1.Provision/SubmitGenesis", method("Provision.SubmitGenesis", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Provision/GetUpload", method("Provision.GetUpload", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Provision/UploadUnit", method("Provision.UploadUnit", Kind::Upload, Audience::Engineer)),
    ("/weightvault.v1.Provision/PublishModel", method("Provision.PublishModel", Kind::Publish, Audience::Engineer)),
    ("/weightvault.v1.Provision/SubmitPolicy", method("Provision.SubmitPolicy", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Provision/SubmitPlatform", method("Provision.SubmitPlatform", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Provision/SubmitReseal", method("Provision.SubmitReseal", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Provision/SubmitKeyEpoch", method("Provision.SubmitKeyEpoch", Kind::Call, Audience::Engineer)),
    (
        "/weightvault.v1.Provision/GetJoinChallenge",
        method("Provision.GetJoinChallenge", Kind::Challenge, Audience::Engineer),
    ),
    ("/weightvault.v1.Provision/JoinKeeper", method("Provision.JoinKeeper", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Provision/SubmitEscrow", method("Provision.SubmitEscrow", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Provision/GetRecovery", method("Provision.GetRecovery", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Provision/ContributeShare", method("Provision.ContributeShare", Kind::Call, Audience::Engineer)),
    (
        "/weightvault.v1.Provision/SubmitKeeperLeave",
        method("Provision.SubmitKeeperLeave", Kind::Call, Audience::Engineer),
    ),
    ("/weightvault.v1.Provision/SubmitRaise", method("Provision.SubmitRaise", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Provision/SubmitApproval", method("Provision.SubmitApproval", Kind::Call, Audience::Engineer)),
    (
        "/weightvault.v1.Provision/SubmitRevocation",
        method("Provision.SubmitRevocation", Kind::Call, Audience::Engineer),
    ),
    ("/weightvault.v1.Provision/SubmitPermit", method("Provision.SubmitPermit", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Provision/Status", method("Provision.Status", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Provision/Explain", method("Provision.Explain", Kind::Search, Audience::Engineer)),
    ("/weightvault.v1.Audit/GetCheckpoint", method("Audit.GetCheckpoint", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Audit/GetTile", method("Audit.GetTile", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Audit/GetEntries", method("Audit.GetEntries", Kind::Call, Audience::Engineer)),
    ("/weightvault.v1.Audit/GetBlob", method("Audit.GetBlob", Kind::Call, Audience::Engineer)),
];

impl Method {
    /// The method of a request path.
    pub(crate) fn of(path: &str) -> Self {
        let known = METHODS.iter().find(|(known, _)| *known == path);
        known.map_or(method("other", Kind::Other, Audience::Agent), |(_, method)| *method)
    }
}

/// Names one call in log lines, in the journal and to its caller: 16 random bytes in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(String);

impl RequestId {
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut bytes = [0; 16];
        // A request id is a name, not a secret: without randomness it only says less.
        let _ = SystemRandom::new().fill(&mut bytes);
        Self(hex::encode(bytes))
    }

    /// Reads one that a caller sends back.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 32 && text.bytes().all(digits)).then(|| Self(text.to_owned()))
    }

    /// The hex digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The one span of a call. Never holds what the caller sent.
pub(crate) fn span(method: Method, id: &RequestId) -> Span {
    tracing::info_span!(
        "rpc",
        method = method.name,
        request_id = %id,
        outcome = tracing::field::Empty,
        code = tracing::field::Empty,
    )
}

/// Writes log lines to standard error from now on.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_env(LOG_FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // Fails only if something else in this process writes log lines already; then they are written.
    let _ = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}
