//! `cargo xtask vm`: a guest that is measured from its firmware to its agent, in QEMU: its image is built twice and measured
//! before it boots, then it attests, loads a model and prints what it got. Changed guests are refused.
//!
//! Everything is emulated: QEMU interprets the processor (no KVM), and the TPM is swtpm. It shows that what
//! `vaultctl measure pcr` computes is what a real firmware and kernel measure, and says nothing about hardware.

mod guest;
mod image;
mod packages;
mod policy;

use crate::demo::{DemoModel, Details, Findings, Steps, Tier, World, binary};
use crate::{Result, model, setup, shell, test};
use guest::{Guest, Seen};
use packages::Packages;
use policy::{EVENTS, Measured, Reference, VALUES};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Arguments of `cargo xtask vm`.
#[derive(clap::Args)]
pub(crate) struct VmArgs {
    /// Install and fetch nothing; say what is missing.
    #[arg(long)]
    offline: bool,
    /// Take the programs as they were built last.
    #[arg(long)]
    no_build: bool,
}

/// Bytes of weights: enough for several units.
const MODEL_BYTES: u64 = 8 << 20;
/// Weakens the kernel a little, and changes nothing that the guest does.
const CHANGED_LINE: &str = " nokaslr";

/// The image, and what it is made of.
struct Images {
    packages: Packages,
    /// Where they are built.
    dir: PathBuf,
    agent: PathBuf,
    vault_file: PathBuf,
    model: String,
}

/// A guest with one thing changed, and the refusal that this must lead to.
struct Changed {
    name: &'static str,
    what: &'static str,
    initrd: PathBuf,
    line: String,
    code: &'static str,
    /// The key of the policy, within the rule.
    key: &'static str,
}

/// The step of `cargo xtask ci`: where QEMU is, or in a CI, which installs it. Elsewhere it says why not.
pub(crate) fn in_ci() -> Result<()> {
    if std::env::consts::ARCH != "x86_64" || !setup::is_debian() {
        println!("the guest is made of Debian's packages for x86-64, which this system has not: skipped");
        return Ok(());
    }
    if !shell::is_ci() && !setup::has_qemu() {
        println!("QEMU is not installed: skipped (`cargo xtask vm` installs it)");
        return Ok(());
    }
    shell::run(shell::cargo().args(["xtask", "vm"]))
}

/// Runs the subcommand.
pub(crate) fn run(args: &VmArgs) -> Result<()> {
    let mut steps = Steps::new(9);
    let packages = steps.noisy_step("Install what is missing, build", |details| {
        setup::system_packages(args.offline)?;
        setup::qemu(args.offline)?;
        let packages = Packages::find(&shell::target_dir().join("vm-packages"), args.offline)?;
        packages.names.iter().for_each(|name| details.line(name));
        if args.no_build { Ok(packages) } else { test::build().map(|()| packages) }
    })?;
    let mut world = steps.step("Start a vault with a model, outside the guest", start_vault)?;
    let images = Images::new(&world, packages)?;
    let guest = Guest::new(images.dir.clone(), &world.path("ca"), &images.packages)?;
    let line =
        format!("console=ttyS0 loglevel=1 panic=-1 vault_host={}", world.url()?.replace("127.0.0.1", "10.0.2.2"));
    let initrd = steps.step("Build the guest's image, twice", |details| images.build_twice(details))?;
    let reference = steps.step("Boot the same firmware without an agent, for its event log", |details| {
        images.reference(&guest, &mut world, details)
    })?;
    let measured =
        steps.step("Measure the image before it boots; two approvers put its rules into force", |details| {
            let measured = Measured::compute(&images.packages.kernel, &initrd, &line, &reference, &images.agent)?;
            ["4", "9", "11"].iter().for_each(|index| details.line(format!("PCR {index:>2} {}", measured.pcr(index))));
            details.line(format!("command line {line}"));
            world.adopt(&measured.rules(&images.model_name()), details)?;
            Ok(measured)
        })?;
    steps.step("Boot the guest: it attests, loads, and prints what it got", |details| {
        let seen = guest.boot(world.children(), "guest", &initrd, &line)?;
        check_loaded(&seen, &measured, &world, details)
    })?;
    steps.step("Boot changed guests: each is refused for its own reason", |details| {
        for changed in images.changed(&initrd, &line)? {
            let seen = guest.boot(world.children(), changed.name, &changed.initrd, &changed.line)?;
            refused(&changed, &seen, &mut world, details)?;
        }
        Ok(())
    })?;
    steps.step("Verify the log", |details| world.verify_log(details, &mut Findings::default()))?;
    steps.step("End everything", |_| world.end())?;
    println!(
        "\nThe guest was served by rules that were computed before it booted, and by nothing else. EMULATED: QEMU interprets the\n\
         processor and swtpm is the TPM; whoever runs them has their keys, so this proves nothing about hardware."
    );
    Ok(())
}

fn start_vault(details: &mut Details) -> Result<World> {
    let dir = shell::target_dir().join("vm-model");
    model::make(MODEL_BYTES, &dir)?;
    let what = "a synthetic model, made here".to_owned();
    let model = DemoModel { dir, name: "synthetic".into(), what };
    let mut findings = Findings::default();
    let mut quiet = Details::default();
    let mut world = World::start(Tier::Tpm, model, None, &mut quiet)?;
    world.write_policy(true, &mut quiet)?;
    world.start_services(details)?;
    world.genesis(&mut quiet)?;
    world.seal(&mut quiet, &mut findings)?;
    world.approve(&mut quiet, &mut findings)?;
    details.line("model synthetic@1: sealed, approved by two of three");
    Ok(world)
}

impl Images {
    fn new(world: &World, packages: Packages) -> Result<Self> {
        let dir = world.path("vm");
        fs::create_dir_all(&dir)?;
        let agent = dir.join("vault-enclave");
        image::strip(&binary("vault-enclave"), &agent)?;
        Ok(Self { packages, dir, agent, vault_file: world.vault(), model: format!("{}@1", world.model_name()) })
    }

    fn model_name(&self) -> String {
        self.model.split('@').next().unwrap_or_default().to_owned()
    }

    fn build(&self, name: &str, agent: Option<&Path>, stray: bool) -> Result<PathBuf> {
        let out = self.dir.join(format!("{name}.img"));
        let rules = [VALUES, EVENTS];
        let agent = agent.map(|program| image::Agent {
            program,
            vault_file: &self.vault_file,
            model: &self.model,
            rules: &rules,
        });
        let inputs = image::Inputs { busybox: &self.packages.busybox, modules: &self.packages.modules, agent, stray };
        image::build(&inputs, &out)?;
        Ok(out)
    }

    /// The image. The second one is made of nothing that the first left.
    fn build_twice(&self, details: &mut Details) -> Result<PathBuf> {
        let (first, again) = (self.build("guest", Some(&self.agent), false)?, self.dir.join("again"));
        image::strip(&binary("vault-enclave"), &again)?;
        let second = self.build("guest-again", Some(&again), false)?;
        if fs::read(&first)? != fs::read(&second)? {
            return Err(format!("{} and {} differ", first.display(), second.display()).into());
        }
        details.line("both are the same, bit for bit");
        for (what, file) in [("kernel", &self.packages.kernel), ("initrd", &first), ("agent", &self.agent)] {
            let digest = shell::output(Command::new("sha256sum").arg("--").arg(file))?;
            let digest = digest.split_whitespace().next().unwrap_or_default();
            details.line(format!("{what:<7} sha256:{digest} {:>9} bytes", fs::metadata(file)?.len()));
        }
        Ok(first)
    }

    /// What the firmware measures, as a guest without an agent shows it.
    fn reference(&self, guest: &Guest, world: &mut World, details: &mut Details) -> Result<Reference> {
        let (initrd, line) = (self.build("reference", None, false)?, "console=ttyS0 loglevel=1 panic=-1");
        let seen = guest.boot(world.children(), "reference", &initrd, line)?;
        let (log, file) = (seen.event_log()?, self.dir.join("reference.log"));
        fs::write(&file, &log)?;
        let reference = Reference::find(&self.packages.kernel, &initrd, line, file, &seen.pcr("4")?)?;
        details.line(format!("{} bytes of events; of these the firmware's PCRs are taken", log.len()));
        details.line(format!("PCR 4 shows how the kernel comes to the firmware: --loader {}", reference.loader));
        Ok(reference)
    }

    /// The same guest with one thing changed, three times.
    fn changed(&self, initrd: &Path, line: &str) -> Result<[Changed; 3]> {
        // It does the same, and is not what was measured.
        let agent = self.dir.join("changed-agent");
        let mut program = fs::read(&self.agent)?;
        program.push(0);
        fs::write(&agent, program)?;
        Ok([
            Changed {
                name: "changed-line",
                what: "another kernel command line",
                initrd: initrd.to_owned(),
                line: format!("{line}{CHANGED_LINE}"),
                code: "kernel-command-line-mismatch",
                key: "boot.command_lines",
            },
            Changed {
                name: "changed-initrd",
                what: "one more file in the initrd",
                initrd: self.build("changed-initrd", Some(&self.agent), true)?,
                line: line.to_owned(),
                code: "initrd-unlisted",
                key: "boot.command_lines",
            },
            Changed {
                name: "changed-agent",
                what: "another agent",
                initrd: self.build("changed-agent", Some(&agent), false)?,
                line: line.to_owned(),
                code: "pcr-not-allowed",
                key: "pcrs.11",
            },
        ])
    }
}

/// Under both rules the guest has the files as they are outside, and its PCRs are those that were computed.
fn check_loaded(seen: &Seen, measured: &Measured, world: &World, details: &mut Details) -> Result<()> {
    for index in ["4", "9", "11"] {
        if seen.pcr(index)? != measured.pcr(index) {
            return Err(format!("PCR {index} is {}, and {} was computed", seen.pcr(index)?, measured.pcr(index)).into());
        }
    }
    details.line("PCRs 4, 9 and 11 are those that were computed");
    for rule in [VALUES, EVENTS] {
        let loaded = seen.loaded(rule);
        if loaded.is_empty() {
            return Err(format!("the guest loaded nothing under the rule {rule}:\n{}", seen.agent(rule)).into());
        }
        for (digest, file) in &loaded {
            let source = shell::output(Command::new("sha256sum").arg("--").arg(world.model_dir().join(file)))?;
            if !source.starts_with(digest) {
                return Err(format!("{file}: the guest got other bytes than the source has").into());
            }
            if file.ends_with(".safetensors") {
                details.line(format!("{rule}: sha256:{digest} {file}"));
            }
        }
        details.line(format!("{rule}: {} files in the guest equal the source", loaded.len()));
    }
    Ok(())
}

/// Neither rule serves it: a value is another one, and the rule on events says which thing was changed.
fn refused(changed: &Changed, seen: &Seen, world: &mut World, details: &mut Details) -> Result<()> {
    let what = changed.what;
    for (rule, expected) in [(VALUES, ("pcr-not-allowed", "pcrs.")), (EVENTS, (changed.code, changed.key))] {
        if !seen.loaded(rule).is_empty() {
            return Err(format!("{what}: a guest that had to be refused was served under {rule}").into());
        }
        let (code, message) = world.explained(&format!("{}-{rule}", changed.name), &seen.agent(rule))?;
        let asked = format!("policy key release.{rule}.{}", expected.1);
        if code != expected.0 || !message.contains(&asked) {
            return Err(format!("{what}: refused under {rule} by {code}: {message}; and not by {expected:?}").into());
        }
        if rule == EVENTS {
            details.line(format!("{code:<30} {what}; {asked}"));
        }
    }
    Ok(())
}
