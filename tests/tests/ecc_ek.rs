//! ECC endorsement keys of real software TPMs: certificate, credential, and a model that reaches such a guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use attestation::{
    ActivationSecret, Anchor, CertificateError, Credential, EkKind, EkPublic, EndorsedTpm, TpmIdentity, Trust,
    TrustAnchors, UnixTime, VerifyError,
};
use rcgen::PKCS_ECDSA_P256_SHA256;
use ring::rand::SystemRandom;
use vault_enclave::tpm::{EkChoice, TctiConfig, Tpm, TpmError, TpmObject};
use vault_tests::forge::authority::Authority;
use vault_tests::forge::tpm::EkPublic as EkKey;
use vault_tests::raw_tpm::{self, P256_CERTIFICATE, P384_CERTIFICATE, RSA_2048_CERTIFICATE};
use vault_tests::world::APPROVERS;
use vault_tests::{Running, Swtpm, World, binary, run, run_ok};

fn connect(tcti: &str, ek: &str) -> Tpm {
    let config: TctiConfig = tcti.parse().expect("a TCTI");
    Tpm::open(config.with_ek(ek.parse().expect("a kind of EK"))).expect("swtpm answers")
}

/// Has `authority` endorse the P-256 EK of a TPM, and leaves the certificate where its maker would.
fn certify_p256(tcti: &str, authority: &Authority) -> Vec<u8> {
    let public = connect(tcti, "ecc-p256").ek_public().wait().expect("the TPM makes its EK");
    assert_eq!(EkPublic::parse(&public).expect("template L-2").kind(), EkKind::EccP256);
    // The last two fields are TPM2B of 32 bytes: x and y.
    let (x, y) = (&public[public.len() - 66..public.len() - 34], &public[public.len() - 32..]);
    let point = [&[4], x, y].concat();
    let certificate = authority.endorse(&EkKey::of(&point, &PKCS_ECDSA_P256_SHA256), |_| ());
    raw_tpm::define(tcti, P256_CERTIFICATE, &certificate);
    certificate
}

fn identity(tpm: &Tpm) -> (TpmIdentity, TpmObject) {
    let ak = tpm.create_ak().wait().expect("an AK under this EK");
    let ek_certificates = tpm.ek_certificates().wait().expect("it has a certificate");
    (TpmIdentity { ek_certificates, ek_public: Vec::new(), ak_public: ak.public.clone() }, ak)
}

fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs())
}

/// The TPM, its throwaway CA, and an authority of the forge for P-256, as anchors.
struct Bench {
    dir: tempfile::TempDir,
    tpm: Swtpm,
    forge: Authority,
    anchors: TrustAnchors,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("weightvault-").tempdir().expect("a directory");
        let tpm = Swtpm::start(&dir.path().join("tpm"), &dir.path().join("ca"), &binary("vault-host"));
        let pem = fs::read_to_string(&tpm.authorities[1]).expect("the CA's certificate");
        let forge = Authority::root("forge");
        let anchors = TrustAnchors::built_in()
            .with(Anchor::from_pem("ci", Trust::Emulated, &pem).expect("a PEM"))
            .and_then(|anchors| anchors.with(forge.anchor("forge", Trust::Emulated)))
            .expect("two anchors");
        Self { dir, tpm, forge, anchors }
    }

    fn endorsed(&self, identity: &TpmIdentity) -> Result<EndorsedTpm, VerifyError> {
        EndorsedTpm::verify(identity, &self.anchors, now())
    }

    fn credential(&self, identity: &TpmIdentity) -> Credential {
        let endorsed = self.endorsed(identity).expect("the chain holds");
        endorsed.make_credential(&ActivationSecret::from_bytes([5; 32]), &SystemRandom::new()).expect("randomness")
    }
}

/// The TPM itself says whether ECDH, KDFe, KDFa and the sizes of each template are right.
#[test]
fn a_tpm_opens_the_credential_for_each_kind_of_its_eks_and_no_other() {
    let bench = Bench::new();
    certify_p256(&bench.tpm.tcti, &bench.forge);
    for (kind, other) in [("ecc-p256", "ecc-p384"), ("ecc-p384", "rsa-2048"), ("rsa-2048", "ecc-p256")] {
        let tpm = connect(&bench.tpm.tcti, kind);
        let (identity, ak) = identity(&tpm);
        // Often enough to meet coordinates with leading zeros.
        for _ in 0..8 {
            tpm.activate(&ak, &bench.credential(&identity)).wait().unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
        let refused = |credential: &Credential| tpm.activate(&ak, credential).wait().err();
        let good = bench.credential(&identity);
        for position in [0, 5, 40] {
            let mut damaged = good.clone();
            damaged.id_object[position] ^= 1;
            assert_eq!(refused(&damaged), Some(TpmError::CredentialRefused), "{kind}, id object {position}");
            let mut damaged = good.clone();
            damaged.encrypted_secret[position] ^= 1;
            // Of an ECC EK: a size, or a point that is on no curve.
            assert_eq!(refused(&damaged), Some(TpmError::CredentialRefused), "{kind}, secret {position}");
        }
        let another_ak = tpm.create_ak().wait().expect("another AK");
        assert_eq!(tpm.activate(&another_ak, &good).wait().err(), Some(TpmError::CredentialRefused));
        drop(tpm);
        let tpm = connect(&bench.tpm.tcti, other);
        let ak = tpm.create_ak().wait().expect("an AK under the other EK");
        assert_eq!(tpm.activate(&ak, &good).wait().err(), Some(TpmError::CredentialRefused), "{kind} at {other}");
    }
}

#[test]
fn auto_takes_the_first_ek_that_has_a_certificate() {
    let bench = Bench::new();
    let tcti = &bench.tpm.tcti;
    let p256 = certify_p256(tcti, &bench.forge);
    let found = || connect(tcti, "auto").ek_certificates().wait();
    let of = |kind: &str| connect(tcti, kind).ek_certificates().wait();
    assert_eq!(EkChoice::default(), EkChoice::Auto);
    assert_eq!(found(), of("rsa-2048"));
    raw_tpm::undefine(tcti, RSA_2048_CERTIFICATE);
    assert_eq!(found(), Ok(vec![p256]));
    raw_tpm::undefine(tcti, P256_CERTIFICATE);
    assert_eq!(found(), of("ecc-p384"));
    raw_tpm::undefine(tcti, P384_CERTIFICATE);
    assert_eq!(found(), Err(TpmError::EkCertificateMissing));
}

#[test]
fn a_certificate_of_another_key_curve_or_point_is_refused() {
    let bench = Bench::new();
    let tcti = &bench.tpm.tcti;
    let other = Swtpm::start(&bench.dir.path().join("other"), &bench.dir.path().join("ca"), &binary("vault-host"));
    let theirs = certify_p256(&other.tcti, &bench.forge);
    let p384 = connect(tcti, "ecc-p384").ek_certificates().wait().expect("swtpm_setup left one");
    raw_tpm::define(tcti, P256_CERTIFICATE, &theirs);
    let tpm = connect(tcti, "ecc-p256");
    let (mut identity, ak) = identity(&tpm);
    // Its chain holds: that it is another TPM's shows when the credential can't be opened.
    let credential = bench.credential(&identity);
    assert_eq!(tpm.activate(&ak, &credential).wait().err(), Some(TpmError::EkCertificateOtherKey));
    identity.ek_public = tpm.ek_public().wait().expect("the TPM makes its EK");
    assert_eq!(bench.endorsed(&identity).err(), Some(VerifyError::EkPublicOtherKey));

    // A P-384 key is not what this index is for: the TPM's P-256 EK can't open what is made for it.
    raw_tpm::undefine(tcti, P256_CERTIFICATE);
    raw_tpm::define(tcti, P256_CERTIFICATE, &p384[0]);
    identity = TpmIdentity { ek_certificates: p384, ek_public: Vec::new(), ..identity };
    let credential = bench.credential(&identity);
    assert_eq!(tpm.activate(&ak, &credential).wait().err(), Some(TpmError::EkCertificateOtherKey));

    let off_curve = [&[4], [7; 64].as_slice()].concat();
    let certificate = bench.forge.endorse(&EkKey::of(&off_curve, &PKCS_ECDSA_P256_SHA256), |_| ());
    identity.ek_certificates = vec![certificate];
    let refused = VerifyError::EkCertificate { index: 0, error: CertificateError::EkPoint };
    assert_eq!(bench.endorsed(&identity).err(), Some(refused));
}

/// `vault-enclave load demo@1 --ek KIND`.
fn load(world: &World, guest: &Swtpm, ek: &str, into: &Path) -> Command {
    let mut load = world.enclave("load");
    load.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--ek", ek, "--vault"]).arg(world.vault());
    load.arg("--into").arg(into);
    load
}

fn place(world: &World, name: &str) -> PathBuf {
    let dir = world.path("");
    let dir = dir.file_name().expect("the world has a directory").to_string_lossy().into_owned();
    PathBuf::from(format!("/dev/shm/{dir}-{name}"))
}

#[test]
fn model_reaches_guests_with_ecc_eks_from_a_keeper_with_one() {
    let mut guest = None;
    let world = World::before_ceremony_with_ek("ecc-p384", |world, policy| {
        let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &binary("vault-host"));
        policy.push_str(&vault_tests::world::guest_rule(&tpm));
        guest = Some(tpm);
    });
    let guest = guest.expect("the closure ran");
    world.sign_genesis();
    world.seal("1");
    world.approve(&APPROVERS[..2]);
    let (code, said) = run(&mut load(&world, &guest, "ecc-p256", &place(&world, "refused")));
    assert_ne!(code, Some(0), "nobody endorses its P-256 EK: {said}");
    certify_p256(&guest.tcti, &world.forge);
    for ek in ["ecc-p256", "ecc-p384"] {
        let into = place(&world, ek);
        let mut loading = Running::start(&mut load(&world, &guest, ek, &into), &world.path(&format!("{ek}.log")));
        loading.wait_for("ready");
        for file in fs::read_dir(world.source()).expect("the source") {
            let file = file.expect("the source");
            let opened = fs::read(into.join(file.file_name())).unwrap_or_else(|_| panic!("{ek}:\n{}", loading.log()));
            assert!(opened == fs::read(file.path()).expect("the source"), "{ek}: {:?} differs", file.file_name());
        }
        loading.terminate();
        let _ = fs::remove_dir(&into);
    }
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
    let shown = run_ok(world.enclave("evidence").args(["--tpm", &guest.tcti, "--ek", "ecc-p384", "--json"]));
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["ek"]["kind"], "ecc-p384");
    assert_eq!(shown["platform"], shown["ek_certificates"][0]["key"]);
}
