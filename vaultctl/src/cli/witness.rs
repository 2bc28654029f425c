//! `vaultctl witness …`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

const SERVE: &str = "\
A witness remembers the newest checkpoint of each log that it knows, and cosigns the next one only if that continues it. Whoever
demands a quorum of witnesses can't be shown a log that was forked or put back. It sees size and root of a log, never an entry.

Anybody can run one, the better the less he has to do with whoever runs the vault's host: it needs a disk, a clock and an open
port, and serves any C2SP log (tlog-witness). Exactly one process may use a key and its --state. Never put an older copy of the
state back, and never begin with an empty one under an old key: it could then cosign another log than it did before. Where the
state is lost, make a new key and have it approved.

The answer is one signature line (200), or: 400 malformed, 403 not signed by the log, 404 unknown log, 409 another size was
cosigned last (it is in the answer), 413 too long, 422 no continuation. GET /SHA-256-OF-THE-ORIGIN/checkpoint shows the newest
checkpoint with its cosignature. With --tls-cert and --tls-key it speaks HTTPS, and plain HTTP without: what is asked and answered is
signed, but whoever looks on then sees sizes and roots.";

/// `vaultctl witness …`
#[derive(Debug, Subcommand)]
pub enum WitnessCommand {
    /// Make a witness's key: a file for `serve`, and the vkey that others know it by.
    Keygen(WitnessKeygenArgs),
    /// Serve until a signal: whatever was answered is durable.
    #[command(after_help = SERVE)]
    Serve(WitnessServeArgs),
}

/// `vaultctl witness keygen`
#[derive(Debug, Args)]
pub struct WitnessKeygenArgs {
    /// Name of the witness, such as witness.example.com/1: a URL without its scheme, that nobody else uses.
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Where the private key goes: a new file, which only its owner can read.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `vaultctl witness serve`
#[derive(Debug, Args)]
pub struct WitnessServeArgs {
    /// Address to listen on; port 0 for any that is free.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: SocketAddr,
    /// The file that `keygen` made.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// A log to cosign, as its vkey: origin+id+key. Can be given more than once.
    #[arg(long, value_name = "VKEY", required = true)]
    pub log: Vec<String>,
    /// Where the newest checkpoints are kept; made where it is missing.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// PEM of the certificate to serve HTTPS with, its own first. The host's `[witnesses."NAME"]` then has an https URL, and the
    /// authority that signed it.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// PEM of its private key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}
