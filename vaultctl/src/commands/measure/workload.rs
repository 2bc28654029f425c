//! `vaultctl measure workload`: what `vault-enclave run` will show of a command.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use attestation::{ProgramForm, Sha256Digest, arguments_digest, environment_digest, script_program};
use ring::digest::{Context, SHA256};
use serde::Serialize;

use crate::cli::MeasureWorkloadArgs;
use crate::failure::{Failure, Kind};
use crate::print::count_of;

/// At least as much as the kernel reads of a script's first line.
const BEGINNING_BYTES: usize = 256;
/// Where execvp(3) looks without PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The digests of a workload, as a rule pins them.
#[derive(Debug, Serialize)]
pub(crate) struct WorkloadReport {
    program: Sha256Digest,
    file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    interpreter: Option<PathBuf>,
    arguments: Sha256Digest,
    environment: Sha256Digest,
    variables: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Sha256Digest>,
    notes: Vec<String>,
    policy: String,
}

pub(crate) fn workload(args: &MeasureWorkloadArgs) -> Result<WorkloadReport, Failure> {
    let name = args.command.first().map(OsString::as_os_str).unwrap_or_default();
    // Of two with one name the last.
    let variables: BTreeMap<&OsStr, &OsStr> =
        args.env.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str())).collect();
    let path = variables.get(OsStr::new("PATH")).copied();
    let file = match &args.program {
        Some(file) => file.clone(),
        None => find(name, path).ok_or_else(|| {
            unfit(format_args!("there is no program {}", name.display()))
                .next("name it by its path, or say with --program which file it is")
        })?,
    };
    let (program, interpreter) = program(&file, args.interpreter.as_deref())?;
    let argv: Vec<&[u8]> = args.command.iter().map(|argument| argument.as_bytes()).collect();
    let joined = |(name, value): (&&OsStr, &&OsStr)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let variables: Vec<Vec<u8>> = variables.iter().map(joined).collect();
    let variables: Vec<&[u8]> = variables.iter().map(Vec::as_slice).collect();
    let (arguments, environment) = (arguments_digest(&argv), environment_digest(&variables));
    let image = args.image.map_or_else(|| "any".to_owned(), |image| image.to_string());
    let policy = format!(
        "workloads = [{{ program = \"{program}\", arguments = \"{arguments}\", environment = \"{environment}\", \
         image = \"{image}\" }}]\n"
    );
    let notes = notes(args, interpreter.as_deref());
    let (variables, image) = (variables.len(), args.image);
    Ok(WorkloadReport { program, file, interpreter, arguments, environment, variables, image, notes, policy })
}

/// What a reader of the policy may believe to be pinned, and is not.
fn notes(args: &MeasureWorkloadArgs, interpreter: Option<&Path>) -> Vec<String> {
    let mut notes = Vec::new();
    let file = |argument: &&OsString| Path::new(argument).is_file();
    if let Some(named) = args.command.iter().skip(1).find(file) {
        notes.push(format!(
            "{} is named by an argument: its content is in no digest. A script is, where it is CMD itself.",
            named.display()
        ));
    }
    if interpreter.is_some_and(|path| path.file_name() == Some(OsStr::new("env"))) {
        notes.push(
            "The script is started by env: the program that env finds is in no digest. Name it in #!.".to_owned(),
        );
    }
    notes.push(
        "Libraries and files that the program reads, and its standard input, are in no digest: the image has to be measured \
         for all of it, and these digests are said by the agent in it."
            .to_owned(),
    );
    notes
}

fn program(file: &Path, interpreter: Option<&Path>) -> Result<(Sha256Digest, Option<PathBuf>), Failure> {
    let Some(named) = interpreter_of(file)? else {
        return match interpreter {
            None => Ok((sha256(file)?, None)),
            Some(_) => Err(unfit(format_args!("{} is no script, and has no interpreter", file.display()))
                .next("leave --interpreter out")),
        };
    };
    let interpreter = interpreter.map_or(named, Path::to_owned);
    if interpreter_of(&interpreter)?.is_some() {
        return Err(unfit(format_args!("{} is a script, and so is its interpreter", file.display()))
            .next("name a program in its first line"));
    }
    Ok((script_program(&sha256(file)?, &sha256(&interpreter)?), Some(interpreter)))
}

fn interpreter_of(file: &Path) -> Result<Option<PathBuf>, Failure> {
    let mut beginning = Vec::new();
    open(file)?
        .take(BEGINNING_BYTES as u64)
        .read_to_end(&mut beginning)
        .map_err(|error| Failure::file("read", file, &error))?;
    match ProgramForm::of(&beginning) {
        Ok(ProgramForm::Elf) => Ok(None),
        Ok(ProgramForm::Script(interpreter)) => Ok(Some(PathBuf::from(OsString::from_vec(interpreter.to_vec())))),
        Err(error) => {
            Err(unfit(format_args!("{}: {error}", file.display())).next("give the file that the kernel executes"))
        }
    }
}

fn sha256(file: &Path) -> Result<Sha256Digest, Failure> {
    let (mut read, mut context, mut buffer) = (open(file)?, Context::new(&SHA256), vec![0; 1 << 16]);
    loop {
        match read.read(&mut buffer).map_err(|error| Failure::file("read", file, &error))? {
            0 => break,
            length => context.update(buffer.get(..length).unwrap_or_default()),
        }
    }
    Sha256Digest::try_from(context.finish().as_ref())
        .map_err(|error| Failure::new(Kind::Failed, "io", error.to_string()))
}

fn open(file: &Path) -> Result<File, Failure> {
    File::open(file).map_err(|error| Failure::file("read", file, &error))
}

/// Where `run` finds it: by the PATH that it gives to the program, else by its own.
fn find(name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(is_program);
    }
    if name.is_empty() {
        return None;
    }
    let own = || std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let path = path.map_or_else(own, OsStr::to_owned);
    // An empty one is the working directory; without a slash the file would be looked for again.
    let dir = |dir: PathBuf| if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir };
    std::env::split_paths(&path).map(|path| dir(path).join(name)).find(is_program)
}

fn unfit(why: impl fmt::Display) -> Failure {
    Failure::new(Kind::Usage, "workload-unfit", format!("what is started can't be measured: {why}"))
}

impl fmt::Display for WorkloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program     {} of {}", self.program, self.file.display())?;
        match &self.interpreter {
            Some(interpreter) => writeln!(f, " and its interpreter {}", interpreter.display())?,
            None => writeln!(f)?,
        }
        writeln!(f, "arguments   {}", self.arguments)?;
        writeln!(f, "environment {} of {}", self.environment, count_of(self.variables as u64, "variable"))?;
        if let Some(image) = self.image {
            writeln!(f, "image       {image}, which nothing measures: it is what `run --image` says")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))?;
        write!(f, "\nFor [release.NAME] of a policy, and `vault-enclave run --clean-env`:\n{}", self.policy)
    }
}
