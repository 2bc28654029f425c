//! The text of a drafted rule.

use std::collections::BTreeMap;

use attestation::{PlatformInfo, Report, TcbComponent, TcbVersion};
use ledger::names::Name;
use ledger::policy::PlatformFeature;

use super::{Source, SourceReport};
use crate::cli::EvidenceKind;

/// PCRs that any program can reset: they show nothing.
const RESETTABLE: [u32; 2] = [16, 23];

impl Source {
    pub(super) fn render(&self, rule: &Name) -> String {
        let mut lines = self.heading();
        let require = match self.kind {
            EvidenceKind::Snp => r#"["snp"]"#,
            EvidenceKind::AzureSnpVtpm => r#"["snp", "tpm"]"#,
            EvidenceKind::Tpm => r#"["tpm"]"#,
        };
        lines.push(format!("[release.{rule}]"));
        lines.push(format!("models = [\"{rule}\"]            # the models that this rule is for"));
        lines.push(
            "groups = \"any\"                # or labels, so that parts of a model are released alone".to_owned(),
        );
        lines.push(format!("require = {require}"));
        if let Some(ek) = self.ek {
            lines.push(format!("eks = [\"{ek}\"]"));
        }
        lines.push("lease = \"15m\"".to_owned());
        lines.push("on_lease_end = \"end\"".to_owned());
        lines.push("max_leases = 1                # one guest at a time".to_owned());
        lines.push("verify_units = true".to_owned());
        if let Some(report) = &self.report {
            lines.push(String::new());
            lines.extend(self.section(rule, report));
        }
        if self.kind != EvidenceKind::Snp {
            lines.push(String::new());
            lines.extend(pcrs(rule, &self.pcrs));
            if let Some(boot) = &self.boot {
                lines.push(String::new());
                lines.extend(boot.render(rule));
            }
        }
        lines.push(String::new());
        lines.extend(self.keeper_hints());
        lines.join("\n") + "\n"
    }

    fn heading(&self) -> Vec<String> {
        let verified = match &self.verified {
            Some(how) => format!("# The evidence verified at {how}."),
            None => {
                "# NOT VERIFIED: this is what the evidence claims. Give --chain (a TPM's: also --policy) to verify it."
                    .to_owned()
            }
        };
        vec![
            format!(
                "# Drafted from captured evidence ({}): each value is exactly the one that was seen.",
                self.kind.as_str()
            ),
            verified,
            "# Whether the machine was in a good state when it was captured is for you to know.".to_owned(),
        ]
    }

    fn section(&self, rule: &Name, source: &SourceReport) -> Vec<String> {
        let report = &source.report;
        let covered = match self.kind {
            EvidenceKind::AzureSnpVtpm => "code_covered_by = \"paravisor-vtpm\"",
            EvidenceKind::Snp | EvidenceKind::Tpm => {
                "code_covered_by = \"launch\"    # only if the measurement covers kernel, initrd and command line"
            }
        };
        let mut lines = vec![
            format!("[release.{rule}.snp]"),
            covered.to_owned(),
            format!("measurements = [\"{}\"]", hex::encode(report.measurement())),
        ];
        lines.extend(signer(source));
        lines.extend(min_tcb(report));
        lines.push(format!("vmpl = {}", report.vmpl()));
        lines.push(format!("min_report_version = {}", report.version()));
        lines.push(
            "crl = \"required\"              # evidence must carry a revocation list that is in force".to_owned(),
        );
        let smt = report.policy().smt() || report.platform_info().smt_en();
        lines.push(format!(
            "smt = {smt}{}",
            if smt { "                    # seen: allowed by the guest or on" } else { "" }
        ));
        let provisional = report.is_provisional();
        let why = if provisional { "     # seen: the host can still roll its firmware back" } else { "" };
        lines.push(format!("provisional_firmware = {provisional}{why}"));
        lines.push(format!("host_data = [\"{}\"]", hex::encode(report.host_data())));
        for (key, digest) in [("id_keys", report.id_key_digest()), ("author_keys", report.author_key_digest())] {
            if digest != &[0; 48] {
                lines.push(format!("{key} = [\"{}\"]", hex::encode(digest)));
            }
        }
        lines.push(format!("min_guest_svn = {}", report.guest_svn()));
        lines.push(format!("min_firmware = \"{}\"", report.current_version().min(report.committed_version())));
        lines.extend(platform(report.platform_info()));
        lines
    }

    /// A keeper must prove what it asks of others, and be told apart from every guest.
    fn keeper_hints(&self) -> Vec<String> {
        let hints: &[&str] = match self.kind {
            EvidenceKind::Tpm => &[
                "# For [keeper]: require = [\"tpm\"], and another value for at least one PCR that is listed here, one that",
                "# programs cannot reset.",
            ],
            EvidenceKind::Snp | EvidenceKind::AzureSnpVtpm => &[
                "# For [keeper]: require = [\"snp\"] with its own pcrs and eks, and a section [keeper.snp] of the same keys as",
                "# [release.NAME.snp], with code_covered_by = \"launch\" and the measurement of the keeper's image: no",
                "# measurement may stand in both.",
            ],
        };
        hints.iter().map(|hint| (*hint).to_owned()).collect()
    }
}

fn signer(source: &SourceReport) -> Vec<String> {
    let chips = format!("chips = [\"{}\"]", source.chips());
    match &source.csp {
        None => vec![chips],
        Some(csp) => vec![
            format!("{chips}   # of the cloud: so no chip's own key may sign"),
            // What JSON escapes, TOML escapes alike.
            format!("csps = [{}]", serde_json::Value::from(csp.as_str())),
        ],
    }
}

/// The committed TCB: what the host can no longer go back behind.
fn min_tcb(report: &Report) -> Vec<String> {
    let committed = report.committed_tcb();
    let parts: Vec<String> = TcbComponent::ALL
        .into_iter()
        .filter_map(|part| committed.component(part).map(|level| format!("{part} = {level}")))
        .collect();
    let product = report.product().as_str().to_lowercase();
    let mut lines = vec![format!("min_tcb = {{ {product} = {{ {} }} }}   # committed", parts.join(", "))];
    for (field, tcb) in [("reported", report.reported_tcb()), ("launch", report.launch_tcb())] {
        if !tcb.meets(&committed) {
            lines.push(below(field, &tcb));
        }
    }
    lines
}

fn below(field: &str, tcb: &TcbVersion) -> String {
    format!(
        "# This very evidence would be refused: its {field} TCB is below the committed one ({tcb}).\n# Lower those parts only if \
         your host has a reason to."
    )
}

fn platform(info: PlatformInfo) -> Option<String> {
    let has = |feature| match feature {
        PlatformFeature::Ecc => info.ecc_en(),
        PlatformFeature::Tsme => info.tsme_en(),
        PlatformFeature::RaplDisabled => info.rapl_dis(),
        PlatformFeature::CiphertextHiding => info.ciphertext_hiding_dram_en(),
        PlatformFeature::AliasCheck => info.alias_check_complete(),
    };
    let seen: Vec<String> = PlatformFeature::ALL
        .into_iter()
        .filter(|(feature, _)| has(*feature))
        .map(|(_, name)| format!("\"{name}\""))
        .collect();
    (!seen.is_empty()).then(|| format!("platform = [{}]", seen.join(", ")))
}

/// Every PCR that was quoted and that programs can't reset.
fn pcrs(rule: &Name, quoted: &BTreeMap<u32, [u8; 32]>) -> Vec<String> {
    let mut lines = vec![
        "# Exactly these PCRs will be quoted. Take out those that change without a reason of yours.".to_owned(),
        format!("[release.{rule}.pcrs]"),
    ];
    let listed = quoted.iter().filter(|(index, _)| !RESETTABLE.contains(index));
    lines.extend(listed.map(|(index, value)| format!("{index} = [\"{}\"]", hex::encode(value))));
    lines
}
