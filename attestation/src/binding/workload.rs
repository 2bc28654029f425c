//! What an agent starts with the weights: the runtime claims of a load and a renewal (FORMAT.md §3).
//!
//! The agent computes these digests, and the hardware signs that this agent said so: they are worth what the measurement
//! of the image is worth that the agent is in. Pure: whoever starts the program has read it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::encoding::{Sha256Digest, lv};

const CLAIMS_LABEL: &[u8] = b"workload";
const SCRIPT_TAG: &[u8] = b"weightvault/v1 script\0";
const ARGUMENTS_TAG: &[u8] = b"weightvault/v1 arguments\0";
const ENVIRONMENT_TAG: &[u8] = b"weightvault/v1 environment\0";

/// As much of a script's first line as the kernel reads (`BINPRM_BUF_SIZE`).
const SCRIPT_LINE_BYTES: usize = 256;
const ELF: &[u8] = b"\x7fELF";

/// Digests of the program that gets the weights, and of what it is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// SHA-256 of the program's file; of a script that of [`script_program`].
    pub program: Sha256Digest,
    /// That of [`arguments_digest`].
    pub arguments: Sha256Digest,
    /// That of [`environment_digest`].
    pub environment: Sha256Digest,
    /// What whoever configured the agent calls its image. Nothing measures it; `None`: nobody named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Sha256Digest>,
}

impl Workload {
    /// The field "runtime claims" of a transcript: lv("workload", program, arguments, environment, image), the image
    /// empty where there is none; empty without a workload.
    #[must_use]
    pub fn runtime_claims(workload: Option<&Self>) -> Vec<u8> {
        let Some(Self { program, arguments, environment, image }) = workload else { return Vec::new() };
        let image: &[u8] = image.as_ref().map_or(&[], |image| image.as_bytes());
        lv(&[CLAIMS_LABEL, program.as_bytes(), arguments.as_bytes(), environment.as_bytes(), image])
    }
}

/// The `program` of a script: SHA-256(`"weightvault/v1 script\0"` ‖ lv(SHA-256(script), SHA-256(interpreter))). Another
/// interpreter makes another program of the same text.
#[must_use]
pub fn script_program(script: &Sha256Digest, interpreter: &Sha256Digest) -> Sha256Digest {
    tagged(SCRIPT_TAG, &[script.as_bytes(), interpreter.as_bytes()])
}

/// SHA-256(`"weightvault/v1 arguments\0"` ‖ lv(argv)), with the name that the program is called by as the first one: a
/// program of many names does by each another thing.
#[must_use]
pub fn arguments_digest(argv: &[&[u8]]) -> Sha256Digest {
    tagged(ARGUMENTS_TAG, argv)
}

/// SHA-256(`"weightvault/v1 environment\0"` ‖ lv of each `NAME=VALUE`, ascending by its bytes).
#[must_use]
pub fn environment_digest(variables: &[&[u8]]) -> Sha256Digest {
    let mut sorted = variables.to_vec();
    sorted.sort_unstable();
    tagged(ENVIRONMENT_TAG, &sorted)
}

/// What the kernel executes for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramForm<'a> {
    /// The file.
    Elf,
    /// The program at this absolute path, with the file as an argument.
    Script(&'a [u8]),
}

/// Why it is not known what the kernel executes for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramFormError {
    /// An interpreter that is looked for in the working directory.
    InterpreterRelative,
    /// Whoever starts it may give it to a shell, or the kernel to what is registered for such files (binfmt_misc).
    Unknown,
}

impl<'a> ProgramForm<'a> {
    /// The form of a file with this beginning; 256 bytes are enough, and no more are looked at.
    ///
    /// # Errors
    /// [`ProgramFormError`].
    pub fn of(beginning: &'a [u8]) -> Result<Self, ProgramFormError> {
        match script_interpreter(beginning) {
            Some(interpreter) if interpreter.starts_with(b"/") => Ok(Self::Script(interpreter)),
            Some(_) => Err(ProgramFormError::InterpreterRelative),
            None if beginning.starts_with(ELF) => Ok(Self::Elf),
            None => Err(ProgramFormError::Unknown),
        }
    }
}

impl fmt::Display for ProgramFormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InterpreterRelative => "its interpreter is not named from the root",
            Self::Unknown => "it is neither a program nor a script with #!",
        })
    }
}

impl std::error::Error for ProgramFormError {}

/// The path of the interpreter that the kernel starts for a file with this beginning (execve(2), "Interpreter scripts");
/// `None`: it is no script. Empty where the line names none.
fn script_interpreter(beginning: &[u8]) -> Option<&[u8]> {
    let read = beginning.get(..SCRIPT_LINE_BYTES).unwrap_or(beginning);
    let line = read.strip_prefix(b"#!")?;
    let line = line.split(|byte| matches!(byte, b'\n' | 0)).next().unwrap_or_default();
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    Some(line.split(is_blank).find(|word| !word.is_empty()).unwrap_or_default())
}

fn tagged(tag: &[u8], fields: &[&[u8]]) -> Sha256Digest {
    Sha256Digest::of(&super::tagged(tag, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_is_found_as_the_kernel_finds_it() {
        let found = |text: &'static str| script_interpreter(text.as_bytes());
        assert_eq!(found("#!/bin/sh\necho\n"), Some(b"/bin/sh".as_slice()));
        assert_eq!(found("#! \t/usr/bin/env  python3 -u\n"), Some(b"/usr/bin/env".as_slice()));
        assert_eq!(found("#!/bin/sh"), Some(b"/bin/sh".as_slice()));
        assert_eq!(found("#!\n/bin/sh"), Some(b"".as_slice()));
        assert_eq!((found("\u{7f}ELF"), found("#"), found(" #!/bin/sh")), (None, None, None));
        // Nobody reads behind what the kernel reads.
        let long = format!("#!{}/bin/sh", " ".repeat(SCRIPT_LINE_BYTES));
        assert_eq!(script_interpreter(long.as_bytes()), Some(b"".as_slice()));
    }

    #[test]
    fn what_is_executed_is_known_or_refused() {
        assert_eq!(ProgramForm::of(b"\x7fELF\x02"), Ok(ProgramForm::Elf));
        assert_eq!(ProgramForm::of(b"#!/bin/sh\n"), Ok(ProgramForm::Script(b"/bin/sh")));
        for relative in [b"#!sh\n".as_slice(), b"#!\n", b"#!./sh"] {
            assert_eq!(ProgramForm::of(relative), Err(ProgramFormError::InterpreterRelative));
        }
        for unknown in [b"".as_slice(), b"echo\n", b"MZ", b"\x7fEL"] {
            assert_eq!(ProgramForm::of(unknown), Err(ProgramFormError::Unknown));
        }
    }

    #[test]
    fn arguments_are_told_apart_and_variables_have_no_order() {
        assert_ne!(arguments_digest(&[b"sh", b"-c x"]), arguments_digest(&[b"sh", b"-c", b"x"]));
        assert_ne!(arguments_digest(&[b"sh"]), arguments_digest(&[b"wget"]));
        assert_eq!(environment_digest(&[b"A=1", b"B=2"]), environment_digest(&[b"B=2", b"A=1"]));
        assert_ne!(environment_digest(&[b"A=1"]), environment_digest(&[b"A=1", b"LD_PRELOAD=/tmp/x.so"]));
        assert_ne!(environment_digest(&[b"A=1"]), arguments_digest(&[b"A=1"]));
    }
}
