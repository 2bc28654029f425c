//! Commands that a document tells people to run, for the tests of the programs that have to take them: included by path.

/// Those of `program` in the blocks of shell.
pub(crate) fn in_blocks(document: &str, program: &str) -> Vec<String> {
    let mut in_block = false;
    let mut commands = Vec::new();
    for line in document.lines() {
        if line.starts_with("```") {
            in_block = line == "```sh";
        } else if in_block && line.split(' ').next() == Some(program) {
            // What the shell takes away.
            let command = [" #", " > "].iter().fold(line, |line, cut| line.split(cut).next().unwrap_or_default());
            commands.push(command.to_owned());
        }
    }
    commands
}

/// Those of `program` in the text, between backticks, that have `option`: all others may leave something out.
pub(crate) fn in_text(document: &str, program: &str, option: &str) -> Vec<String> {
    let spans = document.split('`').skip(1).step_by(2);
    let whole = spans.filter(|span| span.split(' ').next() == Some(program) && span.contains(option));
    whole.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// That the program takes each of them.
pub(crate) fn assert_taken<P: clap::Parser>(commands: impl IntoIterator<Item = String>) {
    for command in commands {
        let parsed = P::try_parse_from(command.split_whitespace());
        assert!(parsed.is_ok(), "{command}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
    }
}
