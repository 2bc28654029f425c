//! A vault that went through its ceremony.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ledger::checkpoint::LogVerifier;
use ledger::vault_file::VaultFile;
use tempfile::TempDir;

use crate::forge::authority::Authority;
use crate::process::{Boot, Running, Swtpm, binary, run, run_ok};
use crate::witnesses::Witnesses;

/// The PCRs that every rule of the world names.
pub const PCRS: [u32; 6] = [0, 2, 4, 7, 9, 11];
/// Who must sign the genesis; two of them anything else.
pub const APPROVERS: [&str; 3] = ["alice", "bob", "carol"];

/// A running vault.
pub struct World {
    dir: TempDir,
    /// The keeper's TPM; `None` while the machine is switched off.
    pub keeper_tpm: Option<Swtpm>,
    /// The keeper; `None` while it is stopped.
    pub keeper: Option<Running>,
    /// The host; `None` while it is stopped.
    pub host: Option<Running>,
    /// How the keeper reaches its TPM, where something stands between.
    pub keeper_tcti: Option<String>,
    /// What the keeper is told about its SNP device (`--snp`), if anything.
    pub keeper_snp: Option<String>,
    /// The endorsement key that the keeper is told to use (`--ek`), where it is not to choose.
    pub keeper_ek: Option<String>,
    /// The keeper's program, where it is another than the one that was built.
    pub keeper_program: Option<PathBuf>,
    /// Where the host dials the keeper, where something stands between.
    pub keeper_link: Option<PathBuf>,
    /// The keeper's options in the place of `--listen unix:…`, where it listens elsewhere.
    pub keeper_listen: Option<Vec<String>>,
    /// The host's configuration in the place of `keeper = "unix:…"`.
    pub host_keeper: Option<String>,
    /// The vault's witnesses, where it has any.
    pub witnesses: Option<Witnesses>,
    /// What its genesis says of older copies, where it has none.
    anti_rollback: &'static str,
    /// The authority of forged TPMs; the policy anchors it as `emulated`.
    pub forge: Authority,
}

impl World {
    /// Keys, policy, keeper, host, genesis with all signatures.
    pub fn open() -> Self {
        let world = Self::before_ceremony(|_, _| {});
        world.sign_genesis();
        world
    }

    /// As [`World::open`], with a software TPM of a guest and a rule `guest` for it.
    pub fn open_with_guest() -> (Self, Swtpm) {
        let mut guest = None;
        let world = Self::before_ceremony(|world, policy| {
            let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &binary("vault-host"));
            policy.push_str(&guest_rule(&tpm));
            guest = Some(tpm);
        });
        world.sign_genesis();
        (world, guest.expect("the closure ran"))
    }

    /// As [`World::open`], of a vault in which nothing shows an older copy.
    pub fn open_uncounted() -> Self {
        let boot = Boot { firmware: None, image: binary("vault-enclave") };
        let world = Self::ceremony(&boot, |world| world.anti_rollback = "none", |_, _| {});
        world.sign_genesis();
        world
    }

    /// As [`World::open`], with three witnesses that run, two of which must cosign.
    pub fn open_witnessed() -> Self {
        let boot = Boot { firmware: None, image: binary("vault-enclave") };
        let keygen = |world: &mut Self| world.witnesses = Some(Witnesses::keygen(&world.path("witnesses"), 3));
        let world = Self::ceremony(&boot, keygen, |world, policy| {
            policy.push_str(&world.witnesses.as_ref().expect("they have keys").policy(2));
        });
        world.sign_genesis();
        world
    }

    /// As [`World::open_witnessed`], with a software TPM of a guest and a rule `guest` for it.
    pub fn open_witnessed_with_guest() -> (Self, Swtpm) {
        let boot = Boot { firmware: None, image: binary("vault-enclave") };
        let keygen = |world: &mut Self| world.witnesses = Some(Witnesses::keygen(&world.path("witnesses"), 3));
        let mut guest = None;
        let world = Self::ceremony(&boot, keygen, |world, policy| {
            let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &binary("vault-host"));
            policy.push_str(&guest_rule(&tpm));
            policy.push_str(&world.witnesses.as_ref().expect("they have keys").policy(2));
            guest = Some(tpm);
        });
        world.sign_genesis();
        (world, guest.expect("the closure ran"))
    }

    /// As [`World::open`], before anybody signed; `edit` may change the policy's text.
    pub fn before_ceremony(edit: impl FnOnce(&Self, &mut String)) -> Self {
        Self::before_ceremony_on(&Boot { firmware: None, image: binary("vault-enclave") }, edit)
    }

    /// As [`World::before_ceremony`], with a keeper that is told of an SNP device, such as `soft:DIR`. Its root is sealed to
    /// it where the policy makes the keeper prove it.
    pub fn before_ceremony_with_snp(snp: &str, edit: impl FnOnce(&Self, &mut String)) -> Self {
        let boot = Boot { firmware: None, image: binary("vault-enclave") };
        Self::ceremony(&boot, |world| world.keeper_snp = Some(snp.to_owned()), edit)
    }

    /// As [`World::before_ceremony`], with these lines at the end of the host's configuration.
    pub fn before_ceremony_with_host(lines: &str, edit: impl FnOnce(&Self, &mut String)) -> Self {
        let boot = Boot { firmware: None, image: binary("vault-enclave") };
        let prepare = |world: &mut Self| {
            world.host_keeper = Some(format!("keeper = \"unix:{}\"\n{lines}\n", world.path("keeper.sock").display()));
        };
        Self::ceremony(&boot, prepare, edit)
    }

    /// As [`World::before_ceremony`], with a keeper that uses this endorsement key.
    pub fn before_ceremony_with_ek(ek: &str, edit: impl FnOnce(&Self, &mut String)) -> Self {
        let boot = Boot { firmware: None, image: binary("vault-enclave") };
        Self::ceremony(&boot, |world| world.keeper_ek = Some(ek.to_owned()), edit)
    }

    /// As [`World::before_ceremony`], on a machine of the keeper that booted so.
    pub fn before_ceremony_on(boot: &Boot, edit: impl FnOnce(&Self, &mut String)) -> Self {
        Self::ceremony(boot, |_| {}, edit)
    }

    fn ceremony(boot: &Boot, prepare: impl FnOnce(&mut Self), edit: impl FnOnce(&Self, &mut String)) -> Self {
        let dir = tempfile::Builder::new().prefix("weightvault-").tempdir().expect("a temporary directory");
        let keeper_tpm = Swtpm::booted(&dir.path().join("tpm"), &dir.path().join("ca"), boot);
        let mut world = Self::on(dir, keeper_tpm);
        prepare(&mut world);
        world.make_keys();
        let mut policy = world.policy_text();
        edit(&world, &mut policy);
        fs::write(world.path("policy.toml"), policy).expect("the policy can be written");
        world.start_keeper();
        world.start_host();
        if world.witnesses.is_some() {
            world.introduce_witnesses();
        } else {
            run_ok(&mut world.init_start(world.anti_rollback));
        }
        world
    }

    fn init_start(&self, anti_rollback: &str) -> Command {
        let mut start = Command::new(binary("vaultctl"));
        start.args(["--host", &self.url(), "init", "start", "--anti-rollback", anti_rollback, "--policy"]);
        start.arg(self.path("policy.toml")).arg("--out").arg(self.path("vault"));
        start
    }

    /// Witnesses learn of the log by its vkey, which there is once the genesis was made: the first run of `init start` is
    /// refused and says it, a later one goes on.
    fn introduce_witnesses(&mut self) {
        let (code, said) = run(&mut self.init_start("witnesses"));
        assert!(code != Some(0) && said.contains("witness-quorum-missing"), "{said}");
        assert!(said.contains(&self.log_vkey()), "{said}");
        let vkey = self.log_vkey();
        self.witnesses.as_mut().expect("they have keys").start_all(&vkey);
        self.keeper.as_mut().expect("it runs").wait_for("the vault is open");
        run_ok(&mut self.init_start("witnesses"));
    }

    /// The vault file, read.
    pub fn vault_file(&self) -> VaultFile {
        VaultFile::parse(&fs::read(self.vault()).expect("the vault file")).expect("the vault file")
    }

    /// What others know its log by.
    pub fn log_vkey(&self) -> String {
        LogVerifier::of(self.vault_file().genesis()).key().to_string()
    }

    /// A vault of which somebody put `keeper`, `host` and `vault/vault.json` into this directory: its keeper opens it on
    /// this TPM.
    pub fn reopen(dir: TempDir, keeper_tpm: Swtpm) -> Self {
        let mut world = Self::on(dir, keeper_tpm);
        world.start_keeper();
        world.start_host();
        world.keeper.as_mut().expect("it was started").wait_for("the vault is open");
        world
    }

    /// Every approver verifies the keeper's evidence himself and signs.
    pub fn sign_genesis(&self) {
        for name in APPROVERS {
            run_ok(self.vaultctl().args(["init", "sign", "--yes", "--key"]).arg(self.path(name)));
        }
    }

    /// A file of the world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The vault file.
    pub fn vault(&self) -> PathBuf {
        self.path("vault").join("vault.json")
    }

    /// Where the host listens.
    pub fn url(&self) -> String {
        format!("unix:{}", self.path("host.sock").display())
    }

    /// `vaultctl --vault FILE --host URL`: the vault file may name a host of another place.
    pub fn vaultctl(&self) -> Command {
        let mut command = Command::new(binary("vaultctl"));
        command.arg("--vault").arg(self.vault()).args(["--host", &self.url()]);
        command
    }

    /// `vault-enclave NAME`.
    pub fn enclave(&self, name: &str) -> Command {
        let mut command = Command::new(binary("vault-enclave"));
        command.arg(name);
        command
    }

    /// Starts the keeper on its TPM and waits until it listens.
    pub fn start_keeper(&mut self) {
        let socket = self.path("keeper.sock");
        let _ = fs::remove_file(&socket);
        let mut keeper = self.start_keeper_process();
        if self.keeper_listen.is_some() {
            keeper.wait_for("keeper started");
        }
        let start = std::time::Instant::now();
        while self.keeper_listen.is_none() && !socket.exists() {
            assert!(start.elapsed().as_secs() < 60, "the keeper does not listen:\n{}", keeper.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        if self.path("vault").exists() && self.host.is_some() {
            keeper.wait_for("the vault is open");
        }
        self.keeper = Some(keeper);
    }

    /// Starts the keeper and waits for nothing: it may refuse.
    pub fn start_keeper_process(&self) -> Running {
        let tpm = self.keeper_tpm.as_ref().expect("the keeper's machine is on");
        let _ = fs::remove_file(self.path("keeper.log"));
        let program = self.keeper_program.clone().unwrap_or_else(|| binary("vault-enclave"));
        let mut command = Command::new(program);
        command.arg("keeper");
        let tcti = self.keeper_tcti.as_ref().unwrap_or(&tpm.tcti);
        command.arg("--dir").arg(self.path("keeper")).args(["--tpm", tcti]);
        match &self.keeper_listen {
            Some(options) => command.args(options),
            None => command.arg("--listen").arg(format!("unix:{}", self.path("keeper.sock").display())),
        };
        if let Some(ek) = &self.keeper_ek {
            command.args(["--ek", ek]);
        }
        if let Some(snp) = &self.keeper_snp {
            command.args(["--snp", snp]);
        }
        Running::start(&mut command, &self.path("keeper.log"))
    }

    /// Starts the host and waits until it is attached to the keeper.
    pub fn start_host(&mut self) {
        let mut host = self.start_host_process();
        host.wait_for("attached to the keeper");
        self.host = Some(host);
    }

    /// Starts the host and waits for nothing: the keeper may not let it in.
    pub fn start_host_process(&self) -> Running {
        let keeper = self.host_keeper.clone().unwrap_or_else(|| {
            let socket = self.keeper_link.clone().unwrap_or_else(|| self.path("keeper.sock"));
            format!("keeper = \"unix:{}\"\n", socket.display())
        });
        let witnesses = self.witnesses.as_ref().map(Witnesses::host_config).unwrap_or_default();
        let config = format!(
            "data_dir = \"{}\"\nunix = \"{}\"\n{keeper}{witnesses}",
            self.path("host").display(),
            self.path("host.sock").display()
        );
        fs::write(self.path("host.toml"), config).expect("the configuration can be written");
        let _ = fs::remove_file(self.path("host.log"));
        let mut command = Command::new(binary("vault-host"));
        command.args(["serve", "--config"]).arg(self.path("host.toml"));
        Running::start(&mut command, &self.path("host.log"))
    }

    /// A small model: a safetensors file of four layers, and two other files.
    pub fn source(&self) -> PathBuf {
        let dir = self.path("source");
        if !dir.exists() {
            run_ok(Command::new(binary("xtask")).args(["model", "--size", "4M", "--out"]).arg(&dir));
        }
        dir
    }

    /// Seals [`World::source`] as `demo@VERSION` and has two approvers sign it.
    pub fn publish(&self, version: &str) {
        self.seal(version);
        self.approve(&APPROVERS[..2]);
    }

    /// Seals and proposes, no more.
    pub fn seal(&self, version: &str) -> String {
        let mut seal = self.enclave("seal");
        seal.arg(self.source()).args(["--model", "demo", "--version", version, "--vault"]).arg(self.vault());
        run_ok(seal.arg("--publisher-key").arg(self.path("publisher.pem")))
    }

    /// These approvers sign the newest proposal.
    pub fn approve(&self, names: &[&str]) {
        for name in names {
            run_ok(self.vaultctl().args(["approve", "--latest", "--yes", "--key"]).arg(self.path(name)));
        }
    }

    /// Writes the policy that follows on the first one, with what `edit` changes; its file.
    pub fn next_policy(&self, edit: impl FnOnce(&mut String)) -> PathBuf {
        let first = read(&self.path("policy.toml"));
        let vault = fs::read(self.vault()).expect("the vault file");
        let vault = ledger::vault_file::VaultFile::parse(&vault).expect("the vault file");
        let prev = attestation::Sha256Digest::of(first.as_bytes());
        let later = format!("vault = \"{}\"\nserial = 2\nprev = \"{prev}\"", vault.id());
        let mut next = first.replacen("vault = \"genesis\"\nserial = 1\nprev = \"none\"", &later, 1);
        edit(&mut next);
        let path = self.path("policy-2.toml");
        fs::write(&path, next).expect("the policy can be written");
        path
    }

    /// `vaultctl propose policy FILE` in the name of an approver.
    pub fn propose(&self, policy: &Path, name: &str) -> Command {
        let mut propose = self.vaultctl();
        propose.args(["propose", "policy"]).arg(policy).args(["--yes", "--key"]).arg(self.path(name));
        propose
    }

    fn on(dir: TempDir, keeper_tpm: Swtpm) -> Self {
        let (keeper_tpm, forge) = (Some(keeper_tpm), Authority::root("forge"));
        Self {
            dir,
            keeper_tpm,
            keeper: None,
            host: None,
            keeper_tcti: None,
            keeper_snp: None,
            keeper_ek: None,
            keeper_program: None,
            keeper_link: None,
            keeper_listen: None,
            host_keeper: None,
            witnesses: None,
            anti_rollback: "counter",
            forge,
        }
    }

    fn make_keys(&self) {
        for name in APPROVERS {
            let key = self.path(name);
            run_ok(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(key));
        }
        let arguments = ["-q", "-t", "ecdsa", "-b", "384", "-m", "PKCS8", "-N", "", "-f"];
        run_ok(Command::new("ssh-keygen").args(arguments).arg(self.path("publisher.pem")));
    }

    fn policy_text(&self) -> String {
        let approver = |name: &&str| {
            let public = fs::read_to_string(self.path(name).with_extension("pub")).expect("ssh-keygen wrote it");
            let key: Vec<&str> = public.split_whitespace().take(2).collect();
            format!("  {{ id = \"{name}\", key = \"{}\" }},\n", key.join(" "))
        };
        let approvers: String = APPROVERS.iter().map(approver).collect();
        let tpm = self.keeper_tpm.as_ref().expect("the keeper's machine is on");
        let [root, issuer] = &tpm.authorities;
        let publisher = self.path("publisher.pem.pub");
        let publisher = run_ok(Command::new("ssh-keygen").args(["-e", "-m", "PKCS8", "-f"]).arg(publisher));
        format!(
            "format = 1\nvault = \"genesis\"\nserial = 1\nprev = \"none\"\nnot_after = \"2100-01-01T00:00:00Z\"\n\
             [approval]\nthreshold = 2\nproposer_may_approve = false\napprovers = [\n{approvers}]\n\
             {root}{issuer}{forge}\
             [keeper]\nrequire = [\"tpm\"]\n{keeper}\neks = \"any\"\n\
             [publish.demo]\nmodels = [\"demo\"]\nkeys = [\"\"\"\n{publisher}\"\"\"]\napprovals = 2\n\
             [release.demo]\nmodels = [\"demo\"]\ngroups = \"any\"\nrequire = [\"tpm\"]\npcrs = {{ {guest} }}\neks = \"any\"\n\
             lease = \"60s\"\non_lease_end = \"end\"\nmax_leases = 256\nverify_units = true\n\
             [release.first-layer]\nmodels = [\"demo\"]\ngroups = [\"layer.0\"]\nrequire = [\"tpm\"]\npcrs = {{ {guest} }}\n\
             eks = \"any\"\nlease = \"60s\"\non_lease_end = \"end\"\nmax_leases = 1\nverify_units = true\n\
             [audit]\nreaders = \"any\"\n",
            root = anchor("swtpm-root", &read(root)),
            issuer = anchor("swtpm-issuer", &read(issuer)),
            forge = anchor("forge", &self.forge.pem()),
            keeper = pcrs_line(&tpm.tcti),
            guest = crate::world::guest_pcrs(),
        )
    }
}

/// What a forged guest quotes: every PCR has its own value.
pub fn guest_pcr(index: u32) -> [u8; 32] {
    let mut value = [0x5a; 32];
    value[31] = u8::try_from(index).expect("a PCR index is small");
    value
}

/// The values of a forged guest's PCRs, as a rule lists them.
pub fn guest_pcrs() -> String {
    let lines: Vec<String> =
        PCRS.iter().map(|index| format!("{index} = [\"{}\"]", hex::encode(guest_pcr(*index)))).collect();
    lines.join(", ")
}

/// A release rule `guest` for the machine of this TPM.
pub fn guest_rule(tpm: &Swtpm) -> String {
    format!(
        "[release.guest]\nmodels = [\"demo\"]\ngroups = \"any\"\nrequire = [\"tpm\"]\n{}\neks = \"any\"\n\
         lease = \"60s\"\non_lease_end = \"end\"\nmax_leases = 8\nverify_units = true\n",
        pcrs_line(&tpm.tcti)
    )
}

/// The `pcrs = {…}` line for a policy, as `vault-enclave evidence` prints it.
pub fn pcrs_line(tcti: &str) -> String {
    let indices: Vec<String> = PCRS.iter().map(ToString::to_string).collect();
    let mut evidence = Command::new(binary("vault-enclave"));
    let shown = run_ok(evidence.args(["evidence", "--tpm", tcti, "--pcrs", &indices.join(",")]));
    let line = shown.lines().map(str::trim).find(|line| line.starts_with("pcrs = {"));
    line.unwrap_or_else(|| panic!("no pcrs line in:\n{shown}")).to_owned()
}

fn anchor(name: &str, pem: &str) -> String {
    format!("[[anchors]]\nname = \"{name}\"\ntrust = \"emulated\"\ncertificate = \"\"\"\n{}\n\"\"\"\n", pem.trim())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
