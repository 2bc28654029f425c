//! Why a statement came to nothing, and what that means.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::PostgresError;
use crate::store::StoreError;

/// Why nothing came of a statement.
#[derive(Debug)]
pub(super) enum Failed {
    /// There was no answer in time.
    Late(Duration),
    /// It can't be used as it is configured.
    Config(PostgresError),
    /// It would lose what it acknowledged.
    NotDurable(&'static str),
    /// A later version of this program made the tables.
    Newer {
        /// Their version.
        found: i32,
    },
    /// What server or connection said.
    Server(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl Failed {
    /// Whether it may be gone when the statement is made again: a server that starts, stops or hands over to another.
    pub(super) fn passes(&self) -> bool {
        let Self::Server(error) = self else { return false };
        match error.code() {
            Some(code) => {
                let passing = [
                    SqlState::ADMIN_SHUTDOWN,
                    SqlState::CRASH_SHUTDOWN,
                    SqlState::CANNOT_CONNECT_NOW,
                    SqlState::TOO_MANY_CONNECTIONS,
                    SqlState::READ_ONLY_SQL_TRANSACTION,
                    SqlState::T_R_SERIALIZATION_FAILURE,
                    SqlState::T_R_DEADLOCK_DETECTED,
                ];
                passing.contains(code)
            }
            None => error.is_closed() || source_io(error).is_some_and(|kind| kind != io::ErrorKind::InvalidData),
        }
    }

    /// For an operator: with what the server said, which never has a password in it.
    pub(super) fn of(self, name: String, known: i32) -> StoreError {
        match self {
            Self::Late(after) => {
                StoreError::Unreachable { name, reason: format!("no answer within {} s", after.as_secs()) }
            }
            Self::Config(error) => StoreError::Postgres(error),
            Self::NotDurable(setting) => StoreError::NotDurable { setting },
            Self::Newer { found } => StoreError::SchemaNewer { found, known },
            Self::Server(error) => {
                let reason = text(&error);
                match error.code() {
                    Some(code) if *code == SqlState::DISK_FULL => StoreError::DiskFull { path: name.into() },
                    // Authorisation, a database that is not there, a right or a table that is missing.
                    Some(code) if ["28", "3D", "42"].contains(&code.code().get(..2).unwrap_or_default()) => {
                        StoreError::Refused { name, reason }
                    }
                    None if !error.is_closed() && source_io(&error).is_none() => StoreError::Refused { name, reason },
                    Some(_) | None => StoreError::Unreachable { name, reason },
                }
            }
        }
    }
}

fn source_io(error: &Error) -> Option<io::ErrorKind> {
    error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// The server's own words, or all that is known of a connection that failed.
fn text(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text.push_str(": ");
        text.push_str(&next.to_string());
        source = next.source();
    }
    text
}
