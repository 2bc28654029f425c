//! Where things lie, and how other programs are run.

use crate::Result;
use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let xtask =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map_or(xtask.clone(), Path::to_path_buf)
}

/// Cargo's target directory, wherever the environment or a configuration puts it: it holds the program that runs now.
pub(crate) fn target_dir() -> PathBuf {
    let exe = env::current_exe().unwrap_or_default();
    let tagged = exe.ancestors().skip(1).find(|dir| dir.join("CACHEDIR.TAG").is_file());
    tagged.map_or_else(|| root().join("target"), Path::to_path_buf)
}

/// Whether this run is one of a CI: what is missing is then an error, not a note.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `cargo` in the root of the workspace, with the environment of a cargo that a person starts.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // `cargo run` describes xtask in these. Build scripts that watch them would run again, and their crates be built again.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let of_xtask = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if of_xtask.iter().any(|prefix| text.starts_with(prefix)) || text == "OUT_DIR" {
            command.env_remove(&name);
        }
    }
    command
}

/// The command as a person would type it, with the variables it sets.
pub(crate) fn display(command: &Command) -> String {
    let quote = |word: &std::ffi::OsStr| {
        let word = word.to_string_lossy();
        let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c));
        if plain { word.into_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    let variables = command.get_envs().filter_map(|(name, value)| Some(format!("{}={}", quote(name), quote(value?))));
    // Cargo gives itself to us as the path of its toolchain.
    let program = match Path::new(command.get_program()).file_name() {
        Some(name) if name == "cargo" => name,
        _ => command.get_program(),
    };
    let words = std::iter::once(program).chain(command.get_args()).map(quote);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// Shows the command, runs it with our own output, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", display(command));
    let status = command.status().map_err(|error| format!("{}: {error}", display(command)))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", display(command)).into()) }
}

/// Shows the command and runs it with its output in `log`; if it fails, the error has the end of that.
pub(crate) fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    println!("$ {}", display(command));
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let file = File::options().create(true).append(true).open(log)?;
    let from = file.metadata()?.len();
    let status = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).status();
    let status = status.map_err(|error| format!("{}: {error}", display(command)))?;
    if status.success() {
        return Ok(());
    }
    let tail = tail(log, from, 20);
    Err(format!("`{}` ended with {status}; the end of {}:\n{tail}", display(command), log.display()).into())
}

/// The output of a command that must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{}: {error}", display(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{}` ended with {}: {}", display(command), output.status, said.trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether the command can be run and succeeds; it says nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// The program of that name in the search path.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| {
        use std::os::unix::fs::PermissionsExt;
        file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    })
}

/// The last lines of a log file from byte `from` on, indented; at most the last 64 KiB are looked at.
pub(crate) fn tail(log: &Path, from: u64, lines: usize) -> String {
    use std::io::{Seek, SeekFrom};
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(end.saturating_sub(64 * 1024))))?;
        file.take(64 * 1024).read_to_end(&mut bytes)
    });
    if read.is_err() || bytes.is_empty() {
        return "    (empty)".into();
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let last = all.iter().skip(all.len().saturating_sub(lines));
    last.map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_shown_as_it_could_be_typed() {
        let mut command = Command::new("/usr/bin/env");
        command.args(["A=b", "two words", "it's"]).env("C", "d e").env_remove("F");
        assert_eq!(display(&command), r"C='d e' /usr/bin/env A=b 'two words' 'it'\''s'");
    }

    #[test]
    fn failed_command_shows_the_end_of_its_own_output_only() {
        let log = env::temp_dir().join(format!("xtask-shell-{}", std::process::id()));
        std::fs::write(&log, "older\n").unwrap();
        let error = run_logged(Command::new("sh").args(["-c", "echo mine; exit 3"]), &log).unwrap_err().to_string();
        std::fs::remove_file(&log).unwrap();
        assert!(error.contains("mine") && error.contains("exit status: 3") && !error.contains("older"), "{error}");
    }

    #[test]
    fn nested_cargo_does_not_see_the_variables_of_xtask() {
        let removed = |name: &str| cargo().get_envs().any(|(key, value)| key == name && value.is_none());
        assert!(removed("CARGO_PKG_NAME") && removed("CARGO_MANIFEST_DIR"));
    }
}
