//! Guests that a keeper must not believe, by its own protocol.

use attestation::{
    AzureEvidence, AzureQuote, Binding, Evidence, Load, LoadChallenge, Sha256Digest, SnpEvidence, TpmPart, lease_id,
};
use tonic::Status;
use vault_proto::convert::{Challenge, EvidenceSet, ReleaseRequest};
use vault_proto::v1;
use vault_tests::forge::amd::Tcb;
use vault_tests::forge::azure::{Quoted, SoftParavisor};
use vault_tests::forge::platform::{SoftGuest, SoftPlatform};
use vault_tests::{Guest, run_ok};

use crate::scene::{PARAVISOR, PARAVISOR_PCR, Scene};

/// What a guest of these shows for a challenge.
fn report(platform: &SoftPlatform, guest: &SoftGuest, report_data: [u8; 64]) -> Evidence {
    let report = platform.signed_report(guest, report_data).to_vec();
    Evidence::Snp(SnpEvidence { report, certificates: platform.chain().to_vec(), crls: Vec::new() })
}

fn ask(guest: &Guest) -> v1::GetChallengeRequest {
    let forms = vec![v1::EvidenceForm::Snp.into()];
    v1::GetChallengeRequest { rule: "guest".to_owned(), tpm: None, forms, ..guest.ask() }
}

fn binding(guest: &Guest, challenge: &Challenge) -> [u8; 64] {
    *bound(guest, challenge, "guest", TpmPart::Absent).digest()
}

fn bound(guest: &Guest, challenge: &Challenge, rule: &str, tpm: TpmPart) -> Binding<Load> {
    let challenge = LoadChallenge {
        rule: rule.to_owned(),
        model: "demo".to_owned(),
        version: "1".to_owned(),
        session: challenge.session,
        nonce: challenge.nonce,
        vault: challenge.vault_id,
        policy: challenge.policy,
        manifest: challenge.manifest,
        units: challenge.units.clone(),
        tpm,
    };
    challenge.bind(guest.hpke_key(), guest.lease_key())
}

fn redemption(guest: &Guest, challenge: &Challenge, evidence: Evidence) -> ReleaseRequest {
    ReleaseRequest {
        session: challenge.session,
        hpke_key: guest.hpke_key(),
        lease_key: guest.lease_key(),
        evidence: EvidenceSet { evidence, event_log: None },
        workload: None,
    }
}

/// A load by a guest of these.
async fn load(
    guest: &mut Guest,
    platform: &SoftPlatform,
    soft: &SoftGuest,
) -> Result<(v1::ReleaseKeysResponse, Sha256Digest), Status> {
    let challenge = guest.challenge(ask(guest)).await?;
    let evidence = report(platform, soft, binding(guest, &challenge));
    let grant = guest.redeem(redemption(guest, &challenge, evidence)).await?;
    Ok((grant, lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key())))
}

#[tokio::test(flavor = "multi_thread")]
async fn keeper_releases_keys_to_nobody_but_the_listed_guest_on_a_listed_chip() {
    let scene = Scene::open(&[]);
    let mut guest = Guest::new(&scene.world).await;
    load(&mut guest, &scene.platform, &scene.guest).await.expect("a grant");

    type Change = fn(&mut SoftPlatform, &mut SoftGuest);
    let cases: [(&str, Change); 8] = [
        ("snp-measurement-not-allowed", |_, guest| guest.measurement = [0x78; 48]),
        // The keeper's own image is no guest's.
        ("snp-measurement-not-allowed", |_, guest| guest.measurement = crate::scene::KEEPER),
        ("snp-chip-not-listed", |platform, _| platform.chip_id = [1; 64]),
        ("snp-current-tcb-below-minimum", |platform, _| {
            let low = Tcb { snp: platform.current.snp - 1, ..platform.current };
            (platform.current, platform.reported, platform.committed) = (low, low, low);
        }),
        ("snp-launch-tcb-below-minimum", |platform, guest| {
            guest.launch_tcb = Some(Tcb { microcode: platform.current.microcode - 1, ..platform.current });
        }),
        ("snp-vmpl-not-allowed", |_, guest| guest.vmpl = 1),
        ("snp-csp-not-listed", |platform, _| platform.vlek = Some("CN=cloud.invalid".to_owned())),
        ("snp-provisional-firmware", |platform, _| platform.firmware.build += 1),
    ];
    for (code, change) in cases {
        let (mut platform, mut soft) = (scene.platform.clone(), scene.guest.clone());
        change(&mut platform, &mut soft);
        let mut guest = Guest::new(&scene.world).await;
        let refused = load(&mut guest, &platform, &soft).await.map(drop).expect_err(code);
        assert_eq!(guest.code_of(refused).await, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relayed_reports_and_other_forms_are_refused() {
    let scene = Scene::open(&[]);
    let mut guest = Guest::new(&scene.world).await;
    let mut other = Guest::new(&scene.world).await;

    // A report that a good guest made for a challenge of its own, shown by somebody else for another.
    let (theirs, ours) = (other.challenge(ask(&other)).await.unwrap(), guest.challenge(ask(&guest)).await.unwrap());
    let evidence = report(&scene.platform, &scene.guest, binding(&other, &theirs));
    let refused = guest.redeem(redemption(&guest, &ours, evidence)).await.map(drop).unwrap_err();
    assert_eq!(guest.code_of(refused).await, "snp-report-data-mismatch");

    // For the same challenge, but for the keys of another guest: the one in the middle.
    let ours = guest.challenge(ask(&guest)).await.unwrap();
    let evidence = report(&scene.platform, &scene.guest, binding(&other, &ours));
    let refused = guest.redeem(redemption(&guest, &ours, evidence)).await.map(drop).unwrap_err();
    assert_eq!(guest.code_of(refused).await, "snp-report-data-mismatch");

    // A TPM's quote for a rule that asks for a report: neither offered nor sent is it taken.
    let only_tpm = v1::GetChallengeRequest { rule: "guest".to_owned(), ..guest.ask() };
    let refused = guest.challenge(only_tpm).await.map(drop).unwrap_err();
    assert_eq!(guest.code_of(refused).await, "evidence-form-unavailable");
    let ours = guest.challenge(ask(&guest)).await.unwrap();
    let quote = guest.tpm.quote(&guest.identity, &vault_tests::world::PCRS, &[0; 32]);
    let refused = guest.redeem(redemption(&guest, &ours, Evidence::Tpm(quote))).await.map(drop).unwrap_err();
    assert_eq!(guest.code_of(refused).await, "evidence-form-mismatch");
}

/// A load under rule `azure`, with something else in what the guest shows.
async fn azure_load(
    guest: &mut Guest,
    scene: &Scene,
    paravisor: &SoftParavisor,
    change: impl FnOnce(&mut AzureEvidence),
) -> Result<v1::ReleaseKeysResponse, Status> {
    let forms = vec![v1::EvidenceForm::AzureSnpVtpm.into()];
    let challenge = guest.challenge(v1::GetChallengeRequest { rule: "azure".to_owned(), forms, ..ask(guest) }).await?;
    assert!(challenge.asked.credential().is_none(), "no EK endorses this TPM");
    let soft = SoftGuest::new(PARAVISOR);
    let mut evidence = AzureEvidence {
        hcl_report: paravisor.hcl_report(&scene.platform, &soft),
        certificates: scene.platform.chain().to_vec(),
        crls: Vec::new(),
        ak_public: paravisor.tpm.ak_public.bytes(),
        quote: AzureQuote { attest: Vec::new(), signature: Vec::new(), pcrs: Vec::new() },
    };
    let part = TpmPart::Reported { ak_name: evidence.ak_name().unwrap() };
    let extra_data = bound(guest, &challenge, "azure", part).tpm_extra_data();
    let Quoted { attest, signature, pcrs } = paravisor.quote(&[11], &extra_data);
    evidence.quote = AzureQuote { attest, signature, pcrs };
    change(&mut evidence);
    guest.redeem(redemption(guest, &challenge, Evidence::AzureSnpVtpm(evidence))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn paravisors_guest_gets_keys_by_its_report_and_its_virtual_tpm() {
    let scene = Scene::open(&[]);
    let mut paravisor = SoftParavisor::new();
    paravisor.tpm.pcrs[11] = PARAVISOR_PCR;
    let mut guest = Guest::new(&scene.world).await;
    azure_load(&mut guest, &scene, &paravisor, |_| {}).await.expect("a grant");
    let log = run_ok(scene.world.vaultctl().args(["log", "show"]));
    let release = log.lines().find(|line| line.contains(" release ")).unwrap();
    let index = release.split_whitespace().next().unwrap();
    let said = run_ok(scene.world.vaultctl().args(["evidence", "verify", "--entry", index]));
    assert!(said.contains("azure-snp-vtpm") && !said.contains("UNBOUND"), "{said}");

    // Its virtual TPM measured something else.
    paravisor.tpm.pcrs[11] = [0; 32];
    let refused = azure_load(&mut guest, &scene, &paravisor, |_| {}).await.map(drop).unwrap_err();
    assert_eq!(guest.code_of(refused).await, "pcr-not-allowed");
    paravisor.tpm.pcrs[11] = PARAVISOR_PCR;
    // The AK of a TPM that no report endorses, such as one that the host runs.
    let other = vault_tests::forge::tpm::SoftTpm::ecc().ak_public.bytes();
    let refused = azure_load(&mut guest, &scene, &paravisor, |evidence| evidence.ak_public = other).await;
    assert_eq!(guest.code_of(refused.map(drop).unwrap_err()).await, "hcl-ak-mismatch");
    // A quote of before.
    let old = paravisor.quote(&[11], &[0; 32]);
    let refused = azure_load(&mut guest, &scene, &paravisor, |evidence| {
        evidence.quote = AzureQuote { attest: old.attest, signature: old.signature, pcrs: old.pcrs };
    });
    let refused = refused.await.map(drop).unwrap_err();
    assert_eq!(guest.code_of(refused).await, "binding-mismatch");
}
