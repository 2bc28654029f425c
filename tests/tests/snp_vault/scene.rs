//! A vault on soft platforms.

use std::path::Path;

use attestation::{Sha256Digest, SnpProduct, chip_platform};
use tempfile::TempDir;
use vault_tests::forge::amd::Product;
use vault_tests::forge::platform::{SoftGuest, SoftPlatform};
use vault_tests::{SoftSnp, World};

/// Launch digest of the keeper's image, and of the guest's.
pub const KEEPER: [u8; 48] = [0x66; 48];
pub const GUEST: [u8; 48] = [0x77; 48];
/// Launch digest of the paravisor that rule `azure` names, and what its virtual TPM has in PCR 11.
pub const PARAVISOR: [u8; 48] = [0x99; 48];
pub const PARAVISOR_PCR: [u8; 32] = [0x9a; 32];

/// A running vault, the chip of its keeper, and a forged chip of a guest, whose every field a test can change.
pub struct Scene {
    pub world: World,
    /// `None` while the keeper's machine is off.
    pub keeper_chip: Option<SoftSnp>,
    pub platform: SoftPlatform,
    pub guest: SoftGuest,
    pub dirs: TempDir,
}

impl Scene {
    /// A vault before anybody signed. Its rule `guest` lets in guests with [`GUEST`] on these chips and on the forged one.
    pub fn before_ceremony(chips: &[Sha256Digest]) -> Self {
        Self::before_ceremony_of(KEEPER, chips)
    }

    /// The same with another image of the keeper than the policy names.
    pub fn before_ceremony_of(image: [u8; 48], chips: &[Sha256Digest]) -> Self {
        let dirs = tempfile::Builder::new().prefix("weightvault-snp-").tempdir().unwrap();
        let keeper_chip = SoftSnp::start(&dirs.path().join("keeper"), image, &[]);
        let platform = SoftPlatform::new(Product::Milan);
        let own = chip_platform(SnpProduct::Milan, &platform.chip_id);
        let chips: Vec<Sha256Digest> = chips.iter().copied().chain([own]).collect();
        let world = World::before_ceremony_with_snp(&keeper_chip.choice(), |_, policy| {
            *policy = snp_policy(policy, &keeper_chip, &chips);
        });
        Self { world, keeper_chip: Some(keeper_chip), platform, guest: SoftGuest::new(GUEST), dirs }
    }

    /// An open vault with `demo@1`.
    pub fn open(chips: &[Sha256Digest]) -> Self {
        let scene = Self::before_ceremony(chips);
        scene.world.sign_genesis();
        scene.world.publish("1");
        scene
    }

    /// A directory for a soft platform.
    pub fn dir(&self, name: &str) -> std::path::PathBuf {
        self.dirs.path().join(name)
    }
}

/// The policy of the world with SNP in the place of TPMs: the keeper's own stays for its PCRs.
fn snp_policy(text: &str, keeper: &SoftSnp, chips: &[Sha256Digest]) -> String {
    let (head, rest) = text.split_once("[release.demo]").unwrap();
    let audit = rest.split_once("[audit]").unwrap().1;
    let head = head.replace("[keeper]\nrequire = [\"tpm\"]", "[keeper]\nrequire = [\"snp\"]");
    let chips: Vec<String> = chips.iter().map(|chip| format!("\"{chip}\"")).collect();
    let lease = "lease = \"60s\"\non_lease_end = \"end\"\nmax_leases = 64\nverify_units = true\n";
    format!(
        "{head}[keeper.snp]\n{}chips = [\"{}\"]\n\
         [release.guest]\nmodels = [\"demo\"]\ngroups = \"any\"\nrequire = [\"snp\"]\n{lease}\
         [release.guest.snp]\n{}chips = [{}]\n\
         [release.azure]\nmodels = [\"demo\"]\ngroups = \"any\"\nrequire = [\"snp\", \"tpm\"]\n{lease}\
         pcrs = {{ 11 = [\"{}\"] }}\n[release.azure.snp]\n{}chips = \"any\"\n\
         [audit]{audit}\
         [[anchors]]\nname = \"soft-amd\"\ntrust = \"emulated\"\ncertificate = \"\"\"\n{}\"\"\"\n",
        section(KEEPER),
        keeper.platform(),
        section(GUEST),
        chips.join(", "),
        hex::encode(PARAVISOR_PCR),
        section(PARAVISOR).replace("\"launch\"", "\"paravisor-vtpm\""),
        keeper.root(),
    )
}

/// A soft platform has what this asks for; a host's certificate table has no revocation list.
fn section(measurement: [u8; 48]) -> String {
    format!(
        "code_covered_by = \"launch\"\nmeasurements = [\"{}\"]\nvmpl = 0\nmin_report_version = 3\n\
         crl = \"if-present\"\nsmt = true\nprovisional_firmware = false\n\
         min_tcb.milan = {{ bootloader = 4, tee = 0, snp = 24, microcode = 219 }}\n",
        hex::encode(measurement)
    )
}

/// Whether nothing is left in a directory of plaintext.
pub fn is_empty(dir: &Path) -> bool {
    !std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}
