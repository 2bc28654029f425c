//! The password, read anew for each connection: it may be changed while the host runs.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tokio_postgres::config::Host;

use super::PostgresError;

const PASSFILE_BYTES_MAX: u64 = 64 << 10;

/// The password of a server: of the file where one is named, else of the environment; `None` where there is none.
pub(super) fn password(
    server: &tokio_postgres::Config,
    passfile: Option<&Path>,
) -> Result<Option<String>, PostgresError> {
    let Some(path) = passfile else { return Ok(std::env::var("PGPASSWORD").ok().filter(|word| !word.is_empty())) };
    let refused = |reason: String| PostgresError::Passfile { path: path.to_owned(), reason };
    let read = || {
        let file = File::open(path)?;
        let mode = file.metadata()?.mode();
        let mut text = String::new();
        file.take(PASSFILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok((mode, text))
    };
    let (mode, text) = read().map_err(|error: std::io::Error| refused(error.to_string()))?;
    if mode & 0o077 != 0 {
        return Err(refused("others can read it: chmod 600".to_owned()));
    }
    let found = find(&text, server);
    found.map(Some).ok_or_else(|| refused("no line is for this host, port, database and user".to_owned()))
}

/// The password of the first line that fits one of the hosts.
fn find(text: &str, server: &tokio_postgres::Config) -> Option<String> {
    let (database, user) = (server.get_dbname().unwrap_or_default(), server.get_user().unwrap_or_default());
    let ports = server.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432).to_string();
    let hosts: Vec<_> = server.get_hosts().iter().enumerate().map(|(index, host)| (name(host), port(index))).collect();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let [host, of_port, of_database, of_user, password]: [String; 5] = fields(line).try_into().ok()?;
        let fits = |field: &str, is: &str| field == "*" || field == is;
        let fits_host = hosts.iter().any(|(name, port)| fits(&host, name) && fits(&of_port, port));
        (fits_host && fits(&of_database, database) && fits(&of_user, user)).then_some(password)
    })
}

/// As such files call it: a socket is the machine itself.
fn name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(_) => "localhost".to_owned(),
    }
}

/// Five fields between colons; a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let character = match character {
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        fields.last_mut().expect("there is one").push(character);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const FILE: &str = "# db:5432:vaults:host:commented\n\
                        other:5432:vaults:host:no\n\
                        db:5433:vaults:host:wrong port\n\
                        db:5432:vaults:host:a\\:b\\\\c:d\n\
                        *:*:*:host:any\n\
                        localhost:*:vaults:sock:local\n";

    fn found(url: &str) -> Option<String> {
        find(FILE, &url.parse().unwrap())
    }

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        assert_eq!(found("postgres://host@db/vaults").as_deref(), Some("a:b\\c:d"));
        assert_eq!(found("postgres://host@x,db:5433/vaults").as_deref(), Some("wrong port"));
        assert_eq!(found("postgres://host@elsewhere/else").as_deref(), Some("any"));
        assert_eq!(found("postgres://sock@/vaults?host=/run").as_deref(), Some("local"));
        assert_eq!(found("postgres://nobody@db/vaults"), None);
    }

    #[test]
    fn a_file_that_others_can_read_or_that_has_no_line_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passfile");
        std::fs::write(&path, FILE).unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let read = |url: &str| password(&url.parse().unwrap(), Some(&path)).map_err(|error| error.code());
        mode(0o640);
        assert_eq!(read("postgres://host@db/vaults"), Err("postgres-passfile"));
        mode(0o600);
        assert_eq!(read("postgres://host@db/vaults").unwrap().as_deref(), Some("a:b\\c:d"));
        assert_eq!(read("postgres://nobody@db/vaults"), Err("postgres-passfile"));
        let missing = password(&"postgres://host@db/vaults".parse().unwrap(), Some(&dir.path().join("none")));
        assert_eq!(missing.unwrap_err().code(), "postgres-passfile");
    }
}
