//! What `run` starts: found, measured and fixed once, before anything is asked for. What is shown of it to the keeper
//! ([`Workload`]) is what is executed: no file on the way to the program may be another's to change, and the program is
//! measured again before each start.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use attestation::{ProgramForm, Sha256Digest, Workload, arguments_digest, environment_digest, script_program};
use ring::digest::{Context, SHA256};

use super::command::TSS2_LOG;
use super::user::User;
use crate::failure::{Failure, Kind};

/// As many as the kernel follows on one path (path_resolution(7)).
const SYMLINKS_MAX: u32 = 40;
/// More than the kernel reads of a script's first line.
const BEGINNING_BYTES: usize = 512;
/// Where execvp(3) looks without PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// What the command has besides its arguments.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct EnvironmentArgs {
    /// Give CMD no environment variables but those of --env (and HOME, USER, LOGNAME of --user).
    #[arg(long)]
    clean_env: bool,
    /// Give CMD this environment variable. Can be given more than once.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(OsString, OsString)>,
    /// What the image of this machine is called, for rules that pin it. It is shown as it is said: nothing measures it.
    #[arg(long, value_name = "sha256:HEX")]
    image: Option<Sha256Digest>,
}

/// A command that was looked at.
pub(super) struct Started {
    line: Vec<OsString>,
    /// `None` where there is no such program: whoever executes it will say so.
    path: Option<PathBuf>,
    environment: BTreeMap<OsString, OsString>,
    /// Or why nothing can be said of it.
    workload: Result<Workload, Failure>,
}

impl Started {
    /// Looks at the command. Nothing fails here: most rules do not ask.
    pub(super) fn new(line: &[OsString], args: &EnvironmentArgs, user: &User) -> Self {
        let environment = environment(args, user);
        let path = line.first().and_then(|name| find(name, environment.get(OsStr::new("PATH"))));
        let workload = match &path {
            // By another directory it is another one, and what it finds beside it.
            Some(path) if path.is_relative() => {
                Err(unfit("it is found relative to a directory, which is in no digest"))
            }
            Some(path) => measure(path).map(|program| workload(program, line, &environment, args.image)),
            None => Err(unfit("there is no such program")),
        };
        Self { line: line.to_vec(), path, environment, workload }
    }

    /// The command line.
    pub(super) fn line(&self) -> &[OsString] {
        &self.line
    }

    /// The file to execute.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// All environment variables that it gets.
    pub(super) fn environment(&self) -> &BTreeMap<OsString, OsString> {
        &self.environment
    }

    /// What can be shown of it.
    pub(super) fn workload(&self) -> Option<Workload> {
        self.workload.as_ref().ok().copied()
    }

    /// After a refusal, whose reason the keeper tells approvers alone: why nothing was shown, should that be it.
    pub(super) fn explain(&self, failure: &Failure) {
        if let (Err(why), Kind::Refused) = (&self.workload, failure.kind()) {
            eprintln!("note: nothing was shown of CMD, which a rule with `workloads` asks for: {why}");
        }
    }

    /// The program is still the one that was shown.
    ///
    /// # Errors
    /// `program-changed`, or it is gone.
    pub(super) fn check_unchanged(&self) -> Result<(), Failure> {
        let (Ok(shown), Some(path)) = (&self.workload, &self.path) else { return Ok(()) };
        match digest_of(path)? == shown.program {
            true => Ok(()),
            false => Err(Failure::new(
                Kind::NotVerified,
                "program-changed",
                format!("{} is not the program any more that the keeper was shown", path.display()),
            )
            .next("start `vault-enclave run` again: the keeper is then asked for the program that is there now")),
        }
    }
}

fn workload(
    program: Sha256Digest,
    line: &[OsString],
    environment: &BTreeMap<OsString, OsString>,
    image: Option<Sha256Digest>,
) -> Workload {
    let argv: Vec<&[u8]> = line.iter().map(|argument| argument.as_bytes()).collect();
    let joined = |(name, value): (&OsString, &OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let variables: Vec<Vec<u8>> = environment.iter().map(joined).collect();
    let variables: Vec<&[u8]> = variables.iter().map(Vec::as_slice).collect();
    let (arguments, environment) = (arguments_digest(&argv), environment_digest(&variables));
    Workload { program, arguments, environment, image }
}

fn environment(args: &EnvironmentArgs, user: &User) -> BTreeMap<OsString, OsString> {
    let mut variables = BTreeMap::new();
    if !args.clean_env {
        variables.extend(std::env::vars_os().filter(|(name, _)| name != TSS2_LOG));
    }
    if let Some((name, home)) = &user.account {
        let account = [("HOME", home), ("USER", name), ("LOGNAME", name)];
        variables.extend(account.map(|(name, value)| (name.into(), value.into())));
    }
    variables.extend(args.env.iter().cloned());
    variables
}

fn variable(text: &str) -> Result<(OsString, OsString), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && name != TSS2_LOG => Ok((name.into(), value.into())),
        Some(_) | None => Err("want NAME=VALUE"),
    }
}

/// As execvp(3) does: a name with a slash is a path, another is looked for.
fn find(name: &OsStr, path: Option<&OsString>) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(is_program);
    }
    if name.is_empty() {
        return None;
    }
    let path = path.cloned().or_else(|| std::env::var_os("PATH")).unwrap_or_else(|| DEFAULT_PATH.into());
    // An empty one is the working directory; without a slash the file would be looked for again.
    let dir = |dir: PathBuf| if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir };
    std::env::split_paths(&path).map(|path| dir(path).join(name)).find(is_program)
}

/// The digest of a program that nobody else can change.
fn measure(path: &Path) -> Result<Sha256Digest, Failure> {
    check_fixed(path)?;
    if let Some(interpreter) = interpreter_of(path)? {
        check_fixed(&interpreter)?;
    }
    digest_of(path)
}

fn digest_of(path: &Path) -> Result<Sha256Digest, Failure> {
    let Some(interpreter) = interpreter_of(path)? else { return sha256(path) };
    if interpreter_of(&interpreter)?.is_some() {
        return Err(unfit(format_args!("{} is a script, and so is its interpreter", path.display())));
    }
    Ok(script_program(&sha256(path)?, &sha256(&interpreter)?))
}

/// `None`: it is a program itself. What is neither would be given to something that nobody has looked at (a shell,
/// binfmt_misc).
fn interpreter_of(path: &Path) -> Result<Option<PathBuf>, Failure> {
    let mut beginning = Vec::new();
    open(path)?
        .take(BEGINNING_BYTES as u64)
        .read_to_end(&mut beginning)
        .map_err(|error| Failure::file("read", path, &error))?;
    match ProgramForm::of(&beginning) {
        Ok(ProgramForm::Elf) => Ok(None),
        Ok(ProgramForm::Script(interpreter)) => Ok(Some(PathBuf::from(OsString::from_vec(interpreter.to_vec())))),
        Err(error) => Err(unfit(format_args!("{}: {error}", path.display()))),
    }
}

fn sha256(path: &Path) -> Result<Sha256Digest, Failure> {
    let failed = |error| Failure::file("read", path, &error);
    let (mut file, mut context, mut buffer) = (open(path)?, Context::new(&SHA256), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            read => context.update(buffer.get(..read).unwrap_or_default()),
        }
    }
    Sha256Digest::try_from(context.finish().as_ref()).map_err(|error| Failure::new(Kind::Failed, "io", error))
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::file("open", path, &error))
}

/// Nobody but root and this user can make another file of what is at this path: not by the file, nor by a directory or a
/// symbolic link on the way.
fn check_fixed(path: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::io(path.display(), &error);
    let absolute = std::path::absolute(path).map_err(failed)?;
    let mut left: Vec<OsString> = names(&absolute);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    check_ours(&at, &std::fs::symlink_metadata(&at).map_err(failed)?)?;
    while let Some(name) = left.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        // Links in there lead elsewhere than they say.
        if next == Path::new("/proc") {
            return Err(unfit(format_args!("{} leads through /proc", path.display())));
        }
        let meta = std::fs::symlink_metadata(&next).map_err(failed)?;
        if !meta.is_symlink() {
            check_ours(&next, &meta)?;
            at = next;
            continue;
        }
        links += 1;
        if links > SYMLINKS_MAX {
            return Err(unfit(format_args!("{} has too many symbolic links", path.display())));
        }
        let target = std::fs::read_link(&next).map_err(failed)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        left.extend(names(&target));
    }
    Ok(())
}

/// The last one first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.rev().collect()
}

fn check_ours(path: &Path, meta: &Metadata) -> Result<(), Failure> {
    let owners = [0, rustix::process::geteuid().as_raw()];
    let (mode, group) = (meta.mode(), meta.gid());
    // Of any group: where there is an access list, the group's bits are what its users may do at most (acl(5)).
    if owners.contains(&meta.uid()) && mode & 0o022 == 0 {
        return Ok(());
    }
    let what = if meta.is_dir() { "directory" } else { "file" };
    Err(unfit(format_args!(
        "others than root and this user can change the {what} {} (user {}, group {group}, mode {:o})",
        path.display(),
        meta.uid(),
        mode & 0o7777
    )))
}

fn unfit(why: impl std::fmt::Display) -> Failure {
    Failure::new(Kind::Failed, "workload-unfit", format!("what is started can't be shown: {why}"))
        .next("install the program where only root can write, and name it by its path")
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    /// A directory below one that nobody else may write to.
    fn place() -> tempfile::TempDir {
        tempfile::Builder::new().prefix("started-").tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
    }

    fn set(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_that_others_can_replace_is_not_fixed() {
        let dir = place();
        let (inner, file, link) = (dir.path().join("a"), dir.path().join("a/file"), dir.path().join("link"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink("a/../a/file", &link).unwrap();
        let code = |path: &Path| check_fixed(path).map_err(|failure| failure.code().to_owned());
        let unfit = || Err("workload-unfit".to_owned());
        set(&inner, 0o755);
        set(&file, 0o644);
        if code(&file).is_err() {
            println!("skipped: others can change where this is built");
            return;
        }
        assert_eq!(code(&link), Ok(()));
        let modes = [(0o644, 0o646), (0o644, 0o664)].map(|(good, bad)| (&file, good, bad));
        let of_directory = [(0o755, 0o757), (0o755, 0o1777), (0o755, 0o775)].map(|(good, bad)| (&inner, good, bad));
        for (path, good, bad) in modes.into_iter().chain(of_directory) {
            set(path, bad);
            assert_eq!((code(&file), code(&link)), (unfit(), unfit()), "{bad:o}");
            set(path, good);
            assert_eq!(code(&file), Ok(()));
        }
        assert_eq!(code(Path::new("/proc/self/exe")), unfit());
        let circle = dir.path().join("circle");
        std::os::unix::fs::symlink("circle", &circle).unwrap();
        assert_eq!(code(&circle), unfit());
    }

    #[test]
    fn a_script_is_measured_with_its_interpreter_and_what_is_neither_is_not_measured() {
        let dir = place();
        let script = dir.path().join("script");
        let measured = |text: &str| {
            std::fs::write(&script, text).unwrap();
            digest_of(&script).map_err(|failure| failure.code().to_owned())
        };
        let shell = Sha256Digest::of(&std::fs::read("/bin/sh").unwrap());
        let text = "#!/bin/sh\necho\n";
        assert_eq!(measured(text), Ok(script_program(&Sha256Digest::of(text.as_bytes()), &shell)));
        let nested = dir.path().join("nested");
        std::fs::write(&nested, text).unwrap();
        for bad in ["echo\n", "#!sh\n", "", &format!("#!{}\n", nested.display())] {
            assert_eq!(measured(bad), Err("workload-unfit".to_owned()), "{bad:?}");
        }
    }

    #[test]
    fn a_program_that_is_found_by_the_working_directory_is_not_shown() {
        let (owner, args) = (super::super::job::Owner { uid: 0, gid: 0 }, EnvironmentArgs::default());
        let user = User { owner, account: None };
        let code = |name: &str, path: &str| {
            let args = EnvironmentArgs { env: vec![("PATH".into(), path.into())], ..args.clone() };
            let started = Started::new(&[name.into()], &args, &user);
            started.workload.map(drop).map_err(|failure| failure.to_string())
        };
        let up = "../".repeat(std::env::current_dir().unwrap().components().count());
        assert_eq!(code("/bin/true", ""), Ok(()));
        assert_eq!(code("true", "/bin"), Ok(()));
        for (name, path) in [(format!("{up}bin/true"), String::new()), ("true".to_owned(), format!("{up}bin"))] {
            assert!(code(&name, &path).unwrap_err().contains("relative to a directory"), "{name} in {path:?}");
        }
    }

    #[test]
    fn environment_is_what_is_said_and_nothing_else() {
        let args = EnvironmentArgs { clean_env: true, env: vec![variable("A=b=c").unwrap()], image: None };
        let owner = super::super::job::Owner { uid: 0, gid: 0 };
        let user = User { owner, account: Some(("server".to_owned(), "/srv".to_owned())) };
        let found: Vec<_> = environment(&args, &user).into_iter().collect();
        let expected = [("A", "b=c"), ("HOME", "/srv"), ("LOGNAME", "server"), ("USER", "server")];
        assert_eq!(found, expected.map(|(name, value)| (name.into(), value.into())));
        for bad in ["A", "=b", "", "TSS2_LOG=all+trace"] {
            assert!(variable(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn program_that_changed_is_not_started() {
        let dir = place();
        let script = dir.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        set(&script, 0o755);
        let user = User { owner: super::super::job::Owner { uid: 0, gid: 0 }, account: None };
        let started = Started::new(&[script.clone().into()], &EnvironmentArgs::default(), &user);
        if started.workload().is_none() {
            println!("skipped: others can change where this is built");
            return;
        }
        started.check_unchanged().unwrap();
        std::fs::write(&script, "#!/bin/sh\nevil\n").unwrap();
        assert_eq!(started.check_unchanged().unwrap_err().code(), "program-changed");
        std::fs::remove_file(&script).unwrap();
        std::os::unix::fs::symlink("/bin/true", &script).unwrap();
        assert_eq!(started.check_unchanged().unwrap_err().code(), "program-changed");
        std::fs::remove_file(&script).unwrap();
        assert!(started.check_unchanged().is_err());
    }

    #[test]
    fn arguments_and_variables_are_shown_as_bytes() {
        let line = [b"serve".as_slice(), b"", b"--name=\xff\n a"].map(|bytes| OsString::from_vec(bytes.to_vec()));
        let variables = BTreeMap::from([("B".into(), OsString::from_vec(vec![0xfe])), ("A".into(), "=".into())]);
        let shown = workload(Sha256Digest::from_bytes([1; 32]), &line, &variables, None);
        assert_eq!(shown.arguments, arguments_digest(&[b"serve", b"", b"--name=\xff\n a"]));
        assert_eq!(shown.environment, environment_digest(&[b"A==", b"B=\xfe"]));
    }
}
