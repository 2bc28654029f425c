//! Rules on real reports, of every line and of Azure: the rule that says exactly what a report shows takes it, and one that
//! asks for one thing more does not.

use std::path::Path;

use attestation::{
    CrlRule, EndorsedReport, FirmwareVersion, SigningKey, SnpClaims, SnpEvidence, SnpProduct, TrustAnchors, UnixTime,
};
use ledger::policy::{Allowed, MinTcb, Permitted, SnpRule};

use crate::files::{certificates, files};

/// 2026-07-01; the one VLEK was valid a year before.
const NOW: UnixTime = UnixTime(1_782_864_000);
const NOW_OF_VLEK: UnixTime = UnixTime(1_751_328_000);

/// The claims of every real report of a production guest.
fn claims() -> Vec<(String, SnpClaims)> {
    let reports = ["snp", "azure-snp-vtpm"].into_iter().flat_map(|folder| files(folder, "report.bin"));
    let claims = reports.filter_map(|(path, report)| {
        let folder = Path::new(&path);
        let expected = std::fs::read(folder.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        let is_vlek = expected["vek"] == "vlek";
        let line = expected["generation"].as_str().unwrap().to_lowercase();
        let roots = folder.parent().unwrap().parent().unwrap().join("snp/amd-roots");
        let chain = certificates(&std::fs::read(roots.join(format!("{line}_ask_ark_asvk.pem"))).unwrap());
        let [ask, ark, asvk] = <[Vec<u8>; 3]>::try_from(chain).unwrap();
        let leaf = std::fs::read(folder.join(if is_vlek { "vlek.der" } else { "vcek.der" })).unwrap();
        let certificates = vec![leaf, if is_vlek { asvk } else { ask }, ark];
        let evidence = SnpEvidence { report, certificates, crls: Vec::new() };
        let now = if is_vlek { NOW_OF_VLEK } else { NOW };
        let verified = EndorsedReport::verify(&evidence, &TrustAnchors::built_in(), CrlRule::IfPresent, now);
        // One of them lets its host debug: no rule gets to see it.
        (expected["fields"]["policy_bits"]["debug"] != 1).then(|| (path, verified.unwrap().into_claims()))
    });
    claims.collect()
}

/// What the report shows, and not a bit more.
fn exactly(report: &SnpClaims) -> SnpRule {
    let tcbs = [report.current_tcb(), report.reported_tcb(), report.committed_tcb(), report.launch_tcb()];
    let lowest = tcbs.into_iter().find(|tcb| tcbs.iter().all(|other| other.meets(tcb)));
    let lowest = lowest.expect("one of the four is the lowest in every real report");
    let of = |product| (report.product() == product).then_some(lowest);
    let is_vcek = report.signing_key() == SigningKey::Vcek;
    SnpRule {
        measurements: vec![*report.measurement()],
        chips: if is_vcek { Permitted::Only(vec![report.platform()]) } else { Permitted::Only(Vec::new()) },
        csps: report.csp_id().map(str::to_owned).into_iter().collect(),
        min_tcb: MinTcb { milan: of(SnpProduct::Milan), genoa: of(SnpProduct::Genoa), turin: of(SnpProduct::Turin) },
        vmpl: report.vmpl(),
        min_report_version: report.version(),
        crl: CrlRule::IfPresent,
        smt: if report.policy().smt() || report.platform_info().smt_en() { Allowed::Yes } else { Allowed::No },
        provisional_firmware: if report.is_provisional() { Allowed::Yes } else { Allowed::No },
        host_data: Some(vec![*report.host_data()]),
        id_keys: Some(vec![*report.id_key_digest()]),
        author_keys: Some(vec![*report.author_key_digest()]),
        min_guest_svn: Some(report.guest_svn()),
        min_firmware: Some(report.current_version().min(report.committed_version())),
        platform: Vec::new(),
    }
}

#[test]
fn rule_that_says_what_a_real_report_shows_takes_it_and_no_other_does() {
    type Change = fn(&mut SnpRule, &SnpClaims);
    let changes: [(&str, Change); 11] = [
        ("snp-measurement-not-allowed", |rule, _| rule.measurements[0][47] ^= 1),
        ("snp-product-not-listed", |rule, _| rule.min_tcb = MinTcb::default()),
        ("snp-vmpl-not-allowed", |rule, _| rule.vmpl += 1),
        ("snp-report-version-below-minimum", |rule, _| rule.min_report_version += 1),
        ("snp-host-data-not-allowed", |rule, _| rule.host_data = Some(vec![[0xa5; 32]])),
        ("snp-id-key-not-allowed", |rule, _| rule.id_keys = Some(vec![[0xa5; 48]])),
        ("snp-author-key-not-allowed", |rule, _| rule.author_keys = Some(vec![[0xa5; 48]])),
        ("snp-guest-svn-below-minimum", |rule, report| rule.min_guest_svn = Some(report.guest_svn() + 1)),
        ("snp-firmware-below-minimum", |rule, _| {
            rule.min_firmware = Some(FirmwareVersion { major: 255, minor: 0, build: 0 });
        }),
        ("snp-current-tcb-below-minimum", |rule, report| {
            let mut above = report.current_tcb();
            above.snp += 1;
            for tcb in [&mut rule.min_tcb.milan, &mut rule.min_tcb.genoa, &mut rule.min_tcb.turin] {
                *tcb = tcb.map(|_| above);
            }
        }),
        ("", |rule, _| {
            rule.chips = Permitted::Only(Vec::new());
            rule.csps = Vec::new();
        }),
    ];
    let claims = claims();
    assert!(claims.is_empty() || claims.len() == 13, "14 reports, one of them of a debug guest: {}", claims.len());
    for (path, report) in claims {
        assert_eq!(exactly(&report).check(&report), Ok(()), "{path}");
        for (code, change) in changes {
            let mut rule = exactly(&report);
            change(&mut rule, &report);
            let code = match (code, report.signing_key()) {
                ("", SigningKey::Vcek) => "snp-chip-not-listed",
                ("", SigningKey::Vlek) => "snp-csp-not-listed",
                (code, _) => code,
            };
            assert_eq!(rule.check(&report).map_err(|mismatch| mismatch.code()), Err(code), "{path}");
        }
        if exactly(&report).smt == Allowed::Yes {
            let rule = SnpRule { smt: Allowed::No, ..exactly(&report) };
            assert_eq!(rule.check(&report).map_err(|mismatch| mismatch.code()), Err("snp-smt-not-allowed"), "{path}");
        }
    }
}
