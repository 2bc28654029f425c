//! `vaultctl witness …`

use std::fmt;
use std::path::PathBuf;

use ledger::note::VerifierKey;
use serde::Serialize;

use crate::cli::{WitnessKeygenArgs, WitnessServeArgs};
use crate::failure::{Failure, Kind};
use crate::session::Session;
use crate::witness::{BoundWitness, SigningKey, State, WitnessTls};

/// A key that was made.
#[derive(Debug, Serialize)]
pub(crate) struct KeygenReport {
    vkey: String,
    file: PathBuf,
}

/// A witness that listens.
#[derive(Debug, Serialize)]
pub(crate) struct ServeReport {
    listening: String,
    vkey: String,
    logs: Vec<String>,
}

/// Makes a key.
pub(crate) fn keygen(session: &Session, args: &WitnessKeygenArgs) -> Result<KeygenReport, Failure> {
    let key = SigningKey::create(&args.name, &args.out, session.rng())?;
    Ok(KeygenReport { vkey: key.public().to_string(), file: args.out.clone() })
}

/// Takes key, state and address; the state is read, and locked against a second process.
pub(crate) async fn bind(args: &WitnessServeArgs) -> Result<(BoundWitness, ServeReport), Failure> {
    let logs = args.log.iter().map(|vkey| {
        VerifierKey::parse(vkey).map_err(|error| {
            Failure::new(Kind::Usage, error.code(), format!("{vkey} is not the vkey of a log"))
                .why(error)
                .next("write origin+id+key, as the log's operator gives it")
        })
    });
    let logs = logs.collect::<Result<Vec<_>, _>>()?;
    let key = SigningKey::read(&args.key)?;
    let vkey = key.public().to_string();
    let origins = logs.iter().map(|log| log.name().to_owned()).collect();
    let tls = args.tls_cert.as_ref().zip(args.tls_key.as_ref());
    let tls = tls.map(|(certificate, key)| WitnessTls::read(certificate, key)).transpose()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let state = State::open(&args.state, key, logs)?;
    let bound = BoundWitness::bind(args.listen, state, tls).await?;
    let listening = format!("{scheme}://{}", bound.address());
    Ok((bound, ServeReport { listening, vkey, logs: origins }))
}

impl fmt::Display for KeygenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.vkey)?;
        writeln!(f, "\nThat is the witness's name and public key: give it to whoever writes the policy of a log.")?;
        write!(
            f,
            "The private key is in {}. Keep it on the witness, and make no second copy serve.",
            self.file.display()
        )
    }
}

impl fmt::Display for ServeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "listening: {}", self.listening)?;
        writeln!(f, "witness:   {}", self.vkey)?;
        for log in &self.logs {
            writeln!(f, "log:       {log}")?;
        }
        Ok(())
    }
}
