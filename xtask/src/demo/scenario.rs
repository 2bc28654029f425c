//! The story that the demo tells: a vault is made, a model sealed, a guest attested and served, others refused.

mod benched;
mod measured;
mod refused;
mod served;

pub(in crate::demo) use benched::Loading;

use super::machine::{Machine, TCB, Tier};
use super::{Children, DemoArgs, DemoModel, Details, Place, Steps, binary, policy};
use crate::{Result, setup, shell, test};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A command of ours that does not end within this time hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// Sealing or loading a large model takes its time.
const LONG_LIMIT: Duration = Duration::from_secs(3600);
/// The PCRs that the policy names: firmware, boot loader, Secure Boot, kernel and command line, our program.
const PCRS: &str = "0,2,4,7,9,11";
/// Where the host listens beside its port.
const HOST_SOCKET: &str = "host.sock";
const APPROVERS: [&str; 3] = ["alice", "bob", "carol"];

/// Everything that runs while the demo does.
pub(crate) struct World {
    place: Place,
    children: Children,
    model: DemoModel,
    python: Option<PathBuf>,
    tier: Tier,
    keeper: Machine,
    guest: Machine,
    stranger: Machine,
    /// Guests like the first, for loads at once.
    more_guests: Vec<Machine>,
}

/// What the summary says.
#[derive(Default)]
pub(crate) struct Findings {
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
    steps.step("Make keys and write the first policy", |details| world.write_policy(true, details))?;
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
    pub(crate) fn start(tier: Tier, model: DemoModel, python: Option<PathBuf>, details: &mut Details) -> Result<Self> {
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
        Ok(Self { place, children, model, python, tier, keeper, guest, stranger, more_guests: Vec::new() })
    }

    pub(crate) fn write_policy(&mut self, verify_units: bool, details: &mut Details) -> Result<()> {
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
            verify_units,
            model: &self.model.name,
        })?;
        fs::write(self.place.path("policy.toml"), policy)?;
        details.line("3 approvers (ssh-keygen, ed25519), 1 publisher (ECDSA P-384), policy.toml");
        Ok(())
    }

    pub(crate) fn start_services(&mut self, details: &mut Details) -> Result<()> {
        let socket = self.place.path("keeper.sock");
        let mut keeper = Command::new(binary("vault-enclave"));
        keeper.args(["keeper", "--dir"]).arg(self.place.path("keeper"));
        keeper.args(self.keeper.arguments()).arg("--listen").arg(format!("unix:{}", socket.display()));
        self.children.spawn("keeper", &keeper)?;
        self.children.wait_ready("keeper", LIMIT, || socket.exists().then_some(()))?;
        let port = free_port()?;
        fs::write(self.place.path("url"), format!("http://127.0.0.1:{port}"))?;
        self.start_host(port, "")?;
        details.line(format!("keeper: empty; host: 127.0.0.1:{port}, attached to the keeper"));
        Ok(())
    }

    /// Starts the host, with more lines in its configuration; they come last.
    fn start_host(&mut self, port: u16, more: &str) -> Result<()> {
        let config = format!(
            "data_dir = \"{}\"\nkeeper = \"unix:{}\"\nlisten = \"127.0.0.1:{port}\"\nunix = \"{}\"\n{more}",
            self.place.path("host").display(),
            self.place.path("keeper.sock").display(),
            self.place.path(HOST_SOCKET).display()
        );
        fs::write(self.place.path("host.toml"), config)?;
        let mut host = Command::new(binary("vault-host"));
        host.args(["serve", "--config"]).arg(self.place.path("host.toml"));
        self.children.spawn("host", &host)?;
        self.children.wait_for_line("host", LIMIT, "attached to the keeper")?;
        Ok(())
    }

    pub(crate) fn genesis(&mut self, details: &mut Details) -> Result<()> {
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

    pub(crate) fn seal(&mut self, details: &mut Details, findings: &mut Findings) -> Result<()> {
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

    pub(crate) fn approve(&mut self, details: &mut Details, findings: &mut Findings) -> Result<()> {
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

    pub(crate) fn verify_log(&mut self, details: &mut Details, findings: &mut Findings) -> Result<()> {
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

    pub(crate) fn vault(&self) -> PathBuf {
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
    pub(crate) fn end(self) -> Result<()> {
        let Self { place, children, keeper, guest, stranger, more_guests, .. } = self;
        drop(children);
        drop((keeper, guest, stranger, more_guests));
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

pub(in crate::demo) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
