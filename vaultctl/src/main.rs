//! `vaultctl`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use vaultctl::cli::Cli;
use vaultctl::commands;
use vaultctl::failure::Failure;
use vaultctl::print::{Form, Plain};
use vaultctl::session::Session;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let session = Session::new(cli.global);
    match commands::run(&session, cli.command, &mut std::io::stdout().lock()).await {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(failure) => {
            report(&failure, session.form());
            ExitCode::from(failure.kind().exit_code())
        }
    }
}

/// A failure goes to standard error. Where even that is closed, the exit code is what is left.
fn report(failure: &Failure, form: Form) {
    let text = match form {
        Form::Text => format!("error: {}", Plain(failure.to_string())),
        Form::Json => serde_json::to_string(failure).unwrap_or_else(|_| failure.code().to_owned()),
    };
    let _ = writeln!(std::io::stderr(), "{text}");
}
