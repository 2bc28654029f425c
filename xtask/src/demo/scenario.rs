//! The story that the demo tells: a vault is made, a model sealed, a guest attested and served, others refused.

use super::machine::{Machine, TCB, Tier};
use super::{Children, DemoArgs, DemoModel, Details, Place, Steps, binary, policy};
use crate::{Result, setup, shell, test};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A command of ours that does not end within this time hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// Sealing or loading a large model takes its time.
const LONG_LIMIT: Duration = Duration::from_secs(3600);
/// The PCRs that the policy names: firmware, boot loader, Secure Boot, kernel and command line, our program.
const PCRS: &str = "0,2,4,7,9,11";
const APPROVERS: [&str; 3] = ["alice", "bob", "carol"];

/// Everything that runs while the demo does.
pub(super) struct World {
    place: Place,
    children: Children,
    model: DemoModel,
    python: Option<PathBuf>,
    tier: Tier,
    keeper: Machine,
    guest: Machine,
    stranger: Machine,
}

/// What the summary says.
#[derive(Default)]
pub(super) struct Findings {
    lines: Vec<String>,
    refusals: Vec<String>,
}

/// Runs the story from beginning to end.
pub(super) fn play(args: &DemoArgs) -> Result<()> {
    let mut steps = Steps::new(11);
    let mut findings = Findings::default();
    steps.noisy_step("Install what is missing, build", |_| {
        setup::system_packages(args.offline)?;
        test::build()
    })?;
    let (model, python) = steps.step("Find the model", |details| {
        let model = args.find_model()?;
        details.line(format!("{}: {}", model.name, model.what));
        Ok((model, args.python()?))
    })?;
    let machines = match args.tier {
        Tier::Tpm => "Start three software TPMs: keeper, guest, stranger",
        Tier::Snp => "Start a soft SNP platform: keeper, guest; and a stranger with a TPM alone",
    };
    let mut world = steps.step(machines, |details| World::start(args.tier, model, python, details))?;
    steps.step("Make keys and write the first policy", |details| world.write_policy(details))?;
    steps.step("Start keeper and host", |details| world.start_services(details))?;
    steps.step("Genesis: each approver verifies the keeper himself, then signs", |details| world.genesis(details))?;
    steps.step("Seal the model and upload it", |details| world.seal(details, &mut findings))?;
    steps.step("Two of three approve the model", |details| world.approve(details, &mut findings))?;
    steps.step("Attest the guest, load, run a program on the weights", |details| world.load(details, &mut findings))?;
    steps.step("Others are refused", |details| world.refusals(details, &mut findings))?;
    steps.step("Verify the log", |details| world.verify_log(details, &mut findings))?;
    findings.print(args.tier);
    if args.keep {
        world.print_how_to_go_on();
        world.children.until_interrupted()?;
    }
    world.end()
}

impl World {
    pub(super) fn start(tier: Tier, model: DemoModel, python: Option<PathBuf>, details: &mut Details) -> Result<Self> {
        let place = Place::take()?;
        let mut children = Children::new(place.logs())?;
        // The guest's image differs from the keeper's: another program is measured.
        let (keeper_image, guest_image) = (binary("vault-enclave"), binary("vault-host"));
        let keeper = Machine::with_tpm(&place, "keeper", "ca", &keeper_image)?;
        let stranger = Machine::with_tpm(&place, "stranger", "stranger-ca", &guest_image)?;
        let (keeper, guest) = match tier {
            Tier::Tpm => (keeper, Machine::with_tpm(&place, "guest", "ca", &guest_image)?),
            Tier::Snp => (
                keeper.and_snp(&mut children, &place, "keeper", &keeper_image)?,
                Machine::snp(&mut children, &place, "guest", &guest_image, TCB)?,
            ),
        };
        for (name, machine) in [("keeper", &keeper), ("guest", &guest), ("stranger", &stranger)] {
            details.line(format!("{name:<9} {}", machine.describe()));
        }
        Ok(Self { place, children, model, python, tier, keeper, guest, stranger })
    }

    pub(super) fn write_policy(&mut self, details: &mut Details) -> Result<()> {
        let mut approvers = Vec::new();
        for name in APPROVERS {
            let key = self.place.path(name);
            shell::output(
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&key),
            )?;
            let public = fs::read_to_string(key.with_extension("pub"))?;
            let key: Vec<&str> = public.split_whitespace().take(2).collect();
            approvers.push(format!("{{ id = \"{name}\", key = \"{}\" }}", key.join(" ")));
        }
        let publisher = self.place.path("publisher.pem");
        let arguments = ["-q", "-t", "ecdsa", "-b", "384", "-m", "PKCS8", "-N", "", "-C", "publisher", "-f"];
        shell::output(Command::new("ssh-keygen").args(arguments).arg(&publisher))?;
        let public = self.place.path("publisher.pem.pub");
        let public = shell::output(Command::new("ssh-keygen").args(["-e", "-m", "PKCS8", "-f"]).arg(&public))?;
        let keeper_tcti = self.keeper.tcti().ok_or("the keeper has a TPM")?;
        let keeper_pcrs = self.pcrs("keeper-evidence", &keeper_tcti)?;
        let guest_pcrs = match self.guest.tcti() {
            Some(tcti) => Some(self.pcrs("guest-evidence", &tcti)?),
            None => None,
        };
        let policy = policy::write(&policy::Parts {
            approvers,
            publisher: public,
            keeper_pcrs,
            guest_pcrs,
            keeper: &self.keeper,
            guest: &self.guest,
            model: &self.model.name,
        })?;
        fs::write(self.place.path("policy.toml"), policy)?;
        details.line("3 approvers (ssh-keygen, ed25519), 1 publisher (ECDSA P-384), policy.toml");
        Ok(())
    }

    pub(super) fn start_services(&mut self, details: &mut Details) -> Result<()> {
        let socket = self.place.path("keeper.sock");
        let mut keeper = Command::new(binary("vault-enclave"));
        keeper.args(["keeper", "--dir"]).arg(self.place.path("keeper"));
        keeper.args(self.keeper.arguments()).arg("--listen").arg(format!("unix:{}", socket.display()));
        self.children.spawn("keeper", &keeper)?;
        self.children.wait_ready("keeper", LIMIT, || socket.exists().then_some(()))?;
        let port = free_port()?;
        let config = format!(
            "data_dir = \"{}\"\nkeeper = \"unix:{}\"\nlisten = \"127.0.0.1:{port}\"\n",
            self.place.path("host").display(),
            socket.display()
        );
        fs::write(self.place.path("host.toml"), config)?;
        fs::write(self.place.path("url"), format!("http://127.0.0.1:{port}"))?;
        let mut host = Command::new(binary("vault-host"));
        host.args(["serve", "--config"]).arg(self.place.path("host.toml"));
        self.children.spawn("host", &host)?;
        self.children.wait_for_line("host", LIMIT, "attached to the keeper")?;
        details.line(format!("keeper: empty; host: 127.0.0.1:{port}, attached to the keeper"));
        Ok(())
    }

    pub(super) fn genesis(&mut self, details: &mut Details) -> Result<()> {
        let mut start = Command::new(binary("vaultctl"));
        start.arg("--host").arg(fs::read_to_string(self.place.path("url"))?);
        start.args(["init", "start", "--anti-rollback", "counter", "--policy"]).arg(self.place.path("policy.toml"));
        start.arg("--out").arg(self.place.path("vault"));
        self.children.run_ok("init-start", &start, LIMIT)?;
        for name in APPROVERS {
            let mut sign = self.vaultctl(&["init", "sign", "--yes", "--key"]);
            sign.arg(self.place.path(name));
            self.children.run_ok(&format!("init-sign-{name}"), &sign, LIMIT)?;
            details.line(format!("{name} verified the keeper's evidence and signed"));
        }
        Ok(())
    }

    pub(super) fn seal(&mut self, details: &mut Details, findings: &mut Findings) -> Result<()> {
        let mut seal = Command::new(binary("vault-enclave"));
        seal.arg("seal").arg(&self.model.dir).args(["--model", &self.model.name, "--version", "1"]);
        seal.arg("--vault").arg(self.vault()).arg("--publisher-key").arg(self.place.path("publisher.pem"));
        let sealed = self.children.run_ok("seal", &seal, LONG_LIMIT)?;
        tell(details, &sealed.output);
        // Nobody has approved it yet.
        let refused = self.try_load("load-unapproved", &self.guest.arguments())?;
        details.line(format!("a load now is refused: {refused}"));
        findings.refusals.push(format!("{refused:<30} a model that nobody approved"));
        Ok(())
    }

    pub(super) fn approve(&mut self, details: &mut Details, findings: &mut Findings) -> Result<()> {
        for name in &APPROVERS[..2] {
            let mut approve = self.vaultctl(&["approve", "--latest", "--yes", "--key"]);
            approve.arg(self.place.path(name));
            self.children.run_ok(&format!("approve-{name}"), &approve, LIMIT)?;
            details.line(format!("{name} approved"));
            if *name == APPROVERS[0] {
                let refused = self.try_load("load-one-approval", &self.guest.arguments())?;
                findings.refusals.push(format!("{refused:<30} a model with one approval of two"));
            }
        }
        Ok(())
    }

    fn load(&mut self, details: &mut Details, findings: &mut Findings) -> Result<()> {
        let plain = self.place.path("reader.py");
        fs::write(&plain, READER)?;
        let go = self.place.path("go");
        let python = self.python.clone().unwrap_or_else(|| PathBuf::from("python3"));
        let agent = binary("vault-enclave");
        let name = format!("{}@1", self.model.name);
        let at = if shell::is_root() { self.place.path("weights") } else { private_place() };
        let mut command = Command::new(&agent);
        command.arg(if shell::is_root() { "run" } else { "load" }).arg(&name).arg("--vault").arg(self.vault());
        command.args(self.guest.arguments()).arg(if shell::is_root() { "--at" } else { "--into" }).arg(&at);
        if shell::is_root() {
            command.arg("--").arg(&python).arg(&plain).arg(&at).arg(&go);
            self.children.spawn("run", &command)?;
        } else {
            self.children.spawn("run", &command)?;
            self.children.wait_for_line("run", LONG_LIMIT, "ready")?;
            let mut reader = Command::new(&python);
            reader.arg(&plain).arg(&at).arg(&go);
            self.children.spawn("reader", &reader)?;
        }
        let reader = if shell::is_root() { "run" } else { "reader" };
        self.children.wait_for_line(reader, LONG_LIMIT, "reader: done")?;
        let output = fs::read_to_string(self.children.log("run"))?;
        tell(details, &output);
        for line in output.lines().filter(|line| line.contains("GB/s") || line.contains("MULATED")) {
            findings.lines.push(line.trim().to_owned());
        }
        let seen = fs::read_to_string(self.children.log(reader))?;
        self.compare(&seen, details, findings)?;
        self.show_isolation(&at, details, findings)?;
        fs::write(&go, "")?;
        self.children.wait_ready(reader, LIMIT, || None::<()>).err();
        self.children.end(reader)?;
        if !shell::is_root() {
            self.children.end("run")?;
        }
        if fs::read_dir(&at).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(format!("{}: plaintext is left", at.display()).into());
        }
        details.line("afterwards nothing is left there");
        Ok(())
    }

    /// Every file under `run` has the bytes of the source.
    fn compare(&self, seen: &str, details: &mut Details, findings: &mut Findings) -> Result<()> {
        let files: Vec<(&str, &str)> = seen
            .lines()
            .filter_map(|line| line.strip_prefix("reader: sha256 "))
            .filter_map(|line| line.split_once(' '))
            .collect();
        if files.is_empty() {
            return Err("the program saw no file".into());
        }
        for (digest, file) in &files {
            let source = shell::output(Command::new("sha256sum").arg(self.model.dir.join(file)))?;
            if !source.starts_with(digest) {
                return Err(format!("{file}: the program read other bytes than the source has").into());
            }
        }
        let text = format!("{} files as the program read them equal the source (sha256)", files.len());
        details.line(&text);
        findings.lines.push(text);
        for line in
            seen.lines().filter_map(|line| line.strip_prefix("reader: ")).filter(|line| line.contains("tensors"))
        {
            details.line(line);
            findings.lines.push(line.to_owned());
        }
        Ok(())
    }

    /// A process of another user, without privileges, must not reach the files.
    fn show_isolation(&self, at: &Path, details: &mut Details, findings: &mut Findings) -> Result<()> {
        if !shell::is_root() || shell::which("setpriv").is_none() {
            return Ok(());
        }
        let script = format!("find {} -type f 2>/dev/null | xargs -r cat 2>/dev/null | head -c 1", at.display());
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"];
        let seen = shell::output(Command::new("setpriv").args(nobody).arg(script))?;
        if !seen.is_empty() {
            return Err("an unprivileged process reads the weights".into());
        }
        details.line("meanwhile a process without privileges sees no file there");
        findings.lines.push("an unprivileged process could not see the files".to_owned());
        Ok(())
    }

    fn refusals(&mut self, details: &mut Details, findings: &mut Findings) -> Result<()> {
        let mut show = |code: String, what: &str| {
            details.line(format!("{code:<30} {what}"));
            findings.refusals.push(format!("{code:<30} {what}"));
        };
        let stranger = self.stranger.arguments();
        let program = binary("xtask");
        match self.tier {
            Tier::Tpm => {
                show(self.try_load("load-stranger", &stranger)?, "a TPM that no anchor endorses");
                let changed = Machine::with_tpm(&self.place, "guest-changed", "ca", &program)?;
                let what = "a genuine TPM under another program (PCR 11)";
                show(self.try_load("load-changed", &changed.arguments())?, what);
            }
            Tier::Snp => {
                show(self.try_load("load-stranger", &stranger)?, "a TPM, where the rule asks for an SNP report");
                let changed = Machine::snp(&mut self.children, &self.place, "guest-changed", &program, TCB)?;
                show(
                    self.try_load("load-changed", &changed.arguments())?,
                    "a guest that was launched with another image",
                );
                let [bootloader, tee, snp, microcode] = TCB;
                let (name, old) = ("guest-old", [bootloader, tee, snp - 1, microcode]);
                let old = Machine::snp(&mut self.children, &self.place, name, &binary("vault-host"), old)?;
                show(self.try_load("load-old", &old.arguments())?, "the right image on older firmware");
            }
        }
        let unit = self.place.path("host").join("models").join(&self.model.name).join("1/units/00001.cob");
        let bytes = fs::read(&unit)?;
        let mut flipped = bytes.clone();
        let middle = flipped.len() / 2;
        *flipped.get_mut(middle).ok_or("the unit is empty")? ^= 1;
        fs::write(&unit, flipped)?;
        let code = self.try_load("load-flipped", &self.guest.arguments());
        fs::write(&unit, bytes)?;
        show(code?, "one bit of one unit flipped on the host");
        Ok(())
    }

    fn verify_log(&mut self, details: &mut Details, findings: &mut Findings) -> Result<()> {
        let verify = self.vaultctl(&["log", "verify", "--fresh"]);
        let verified = self.children.run_ok("log-verify", &verify, LIMIT)?;
        tell(details, &verified.output);
        let entries = self.children.run_ok("log-show", &self.vaultctl(&["log", "show"]), LIMIT)?;
        let release = entries.output.lines().find(|line| line.contains(" release "));
        findings.lines.push(format!("log entry: {}", release.ok_or("the log has no release")?.trim()));
        findings.lines.extend(verified.output.lines().take(1).map(str::to_owned));
        let status = self.children.run_ok("status", &self.vaultctl(&["status"]), LIMIT)?;
        findings.lines.extend(status.output.lines().filter(|line| line.contains("NOT RECOVERABLE")).map(str::to_owned));
        Ok(())
    }

    /// Loads into memory, to its end: what the agent said when it was ready.
    pub(super) fn load_once(&mut self, log: &str) -> Result<String> {
        let into = private_place();
        let mut load = Command::new(binary("vault-enclave"));
        load.arg("load").arg(format!("{}@1", self.model.name)).arg("--vault").arg(self.vault());
        load.args(self.guest.arguments()).arg("--into").arg(&into);
        self.children.spawn(log, &load)?;
        self.children.wait_for_line(log, LONG_LIMIT, "ready ")?;
        let said = fs::read_to_string(self.children.log(log))?;
        self.children.end(log)?;
        let _ = fs::remove_dir(&into);
        Ok(said)
    }

    /// What a finished step wrote.
    pub(super) fn said(&self, log: &str) -> Result<String> {
        Ok(fs::read_to_string(self.children.log(log))?)
    }

    /// Tries a load that must be refused; the exact code.
    fn try_load(&mut self, log: &str, machine: &[String]) -> Result<String> {
        let into = private_place();
        let mut load = Command::new(binary("vault-enclave"));
        load.arg("load").arg(format!("{}@1", self.model.name)).arg("--vault").arg(self.vault());
        load.args(machine).arg("--into").arg(&into);
        let tried = self.children.run(log, &load, LIMIT)?;
        let left = fs::read_dir(&into).is_ok_and(|mut entries| entries.next().is_some());
        // An empty directory is no secret, but it is ours.
        let _ = fs::remove_dir(&into);
        if tried.status.success() || left {
            return Err(format!("{log}: a load that had to be refused was not:\n{}", tried.output).into());
        }
        // The agent learns a coarse code and a request id; the operator gets the exact one.
        match request_id(&tried.output) {
            Some(id) => {
                let explain = self.vaultctl(&["--json", "explain", &id]);
                let explained = self.children.run_ok(&format!("{log}-explain"), &explain, LIMIT)?;
                let value: serde_json::Value = serde_json::from_str(&explained.output)?;
                Ok(value["code"].as_str().ok_or("explain gave no code")?.to_owned())
            }
            None => local_code(&tried.output).ok_or_else(|| format!("{log}: no code in:\n{}", tried.output).into()),
        }
    }

    /// The line for a policy with the PCR values that this TPM has now.
    fn pcrs(&mut self, log: &str, tcti: &str) -> Result<String> {
        let mut evidence = Command::new(binary("vault-enclave"));
        evidence.args(["evidence", "--tpm", tcti, "--pcrs", PCRS]);
        let shown = self.children.run_ok(log, &evidence, LIMIT)?;
        let line = shown.output.lines().map(str::trim).find(|line| line.starts_with("pcrs = {"));
        Ok(line.ok_or("vault-enclave evidence printed no pcrs line")?.to_owned())
    }

    fn vaultctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("vaultctl"));
        command.arg("--vault").arg(self.vault()).args(arguments);
        command
    }

    pub(super) fn vault(&self) -> PathBuf {
        self.place.path("vault").join("vault.json")
    }

    fn print_how_to_go_on(&self) {
        let vault = self.vault();
        println!("\nThe vault stays up until Ctrl-C. In another terminal, for example:");
        println!("  {} --vault {} status", binary("vaultctl").display(), vault.display());
        println!("  {} --vault {} log show", binary("vaultctl").display(), vault.display());
        println!(
            "  {} load {}@1 --vault {} {} --into /dev/shm/weights",
            binary("vault-enclave").display(),
            self.model.name,
            vault.display(),
            self.guest.arguments().join(" ")
        );
    }

    /// Ends everything, then removes it.
    pub(super) fn end(self) -> Result<()> {
        let Self { place, children, keeper, guest, stranger, .. } = self;
        drop(children);
        drop((keeper, guest, stranger));
        place.remove()
    }
}

impl Findings {
    fn print(&self, tier: Tier) {
        println!("\nWhat this showed");
        for line in &self.lines {
            println!("  {line}");
        }
        println!("  refused, each for its own reason:");
        for line in &self.refusals {
            println!("    {line}");
        }
        match tier {
            Tier::Tpm => println!(
                "\nTier: EMULATED. These are software TPMs: whoever runs them has their keys, so none of this proves anything\n\
                 about hardware. And with the proof `tpm` alone, root on the guest can read the weights in its memory."
            ),
            Tier::Snp => println!(
                "\nTier: EMULATED. This is a soft SNP platform: everybody has the keys of its root, and its guests are ordinary\n\
                 processes whose memory root can read, so none of this proves anything about hardware. On a genuine chip the\n\
                 host's root cannot read the guest; that its code is all inside the launch digest is for the image to make true."
            ),
        }
    }
}

/// Lines of a program's output, below its step.
fn tell(details: &mut Details, output: &str) {
    for line in output.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.contains(" INFO ")) {
        if !line.starts_with("reader: ") {
            details.line(line);
        }
    }
}

/// A directory in memory, of our own, that does not exist yet.
fn private_place() -> PathBuf {
    PathBuf::from(format!("/dev/shm/weightvault-demo-{}", std::process::id()))
}

fn request_id(output: &str) -> Option<String> {
    let words = output.split(|c: char| !c.is_ascii_alphanumeric());
    words.into_iter().find(|word| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit())).map(str::to_owned)
}

/// The code at the end of an error line: `(code)` or `[code]`.
fn local_code(output: &str) -> Option<String> {
    let line = output.lines().find(|line| line.starts_with("error:"))?.trim_end();
    let line = line.strip_suffix([')', ']'])?;
    Some(line.rsplit_once(['(', '['])?.1.to_owned())
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// An ordinary program on ordinary files: it knows nothing of the vault.
const READER: &str = r#"
import hashlib, os, sys, time
root, go = sys.argv[1:3]
for where, _, names in sorted(os.walk(root)):
    for name in sorted(names):
        path = os.path.join(where, name)
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        print("reader: sha256", digest.hexdigest(), os.path.relpath(path, root), flush=True)
try:
    from safetensors import safe_open
    for where, _, names in sorted(os.walk(root)):
        for name in sorted(n for n in names if n.endswith(".safetensors")):
            with safe_open(os.path.join(where, name), framework="np") as model:
                keys = list(model.keys())
                shape = model.get_slice(keys[0]).get_shape()
            print(f"reader: Python's safetensors opens {name}: {len(keys)} tensors, {keys[0]} is {shape}", flush=True)
except ImportError:
    print("reader: no Python safetensors here: the tensors were compared by their bytes", flush=True)
print("reader: done", flush=True)
for _ in range(300):
    if os.path.exists(go):
        break
    time.sleep(0.1)
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_id_is_found_in_an_error() {
        let id = "096e05448cf394801f4c8fa29f918e86";
        assert_eq!(request_id(&format!("error: refused\n  request {id}: see")), Some(id.to_owned()));
        assert_eq!(request_id(&format!("sha256:{id}{id}")), None);
    }

    #[test]
    fn code_of_a_local_error_is_found() {
        assert_eq!(local_code("x\nerror: a unit is not what was sealed [chunk-tag]\n"), Some("chunk-tag".into()));
        assert_eq!(local_code("error: sealed unit 1 (chunk-refused)\n"), Some("chunk-refused".into()));
        assert_eq!(local_code("error: no code\n"), None);
    }
}
