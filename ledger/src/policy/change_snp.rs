//! The difference between two `snp` sections in words.

use attestation::{CrlRule, TcbVersion};

use super::change::Changes;
use super::rules::GuestRule;
use super::snp::{Allowed, MinTcb, SnpRule};

/// A new section, in full: whoever signs sees nothing else of it.
pub(super) fn in_words(rule: &SnpRule) -> String {
    let products: Vec<String> = rule.min_tcb.iter().map(|(product, tcb)| format!("{product} from TCB {tcb}")).collect();
    let measurements: Vec<String> = rule.measurements.iter().map(hex::encode).collect();
    let clouds = if rule.csps.is_empty() { "none".to_owned() } else { quoted(&rule.csps).join(", ") };
    let is = |allowed: Allowed| allowed == Allowed::Yes;
    format!(
        "launch digests {}, chips {}, clouds' keys {clouds}, {}, VMPL {}, report version from {}, revocation list {}, \
         smt = {}, provisional_firmware = {}, {}",
        measurements.join(" or "),
        rule.chips,
        products.join(", "),
        rule.vmpl,
        rule.min_report_version,
        match rule.crl {
            CrlRule::Required => "required",
            CrlRule::IfPresent => "if present",
        },
        is(rule.smt),
        is(rule.provisional_firmware),
        narrowing_in_words(rule),
    )
}

/// The keys that may be left out. One that is left out is said too: a rule of another name may have had it.
fn narrowing_in_words(rule: &SnpRule) -> String {
    let any = || "any".to_owned();
    let listed = |list: Option<Vec<String>>| list.map_or_else(any, |list| list.join(" or "));
    let platform: Vec<String> = rule.platform.iter().map(ToString::to_string).collect();
    format!(
        "HOST_DATA {}, ID keys {}, author keys {}, guest SVN {}, firmware {}, platform {}",
        listed(hex_all(&rule.host_data)),
        listed(hex_all(&rule.id_keys)),
        listed(hex_all(&rule.author_keys)),
        rule.min_guest_svn.map_or_else(any, |min| format!("from {min}")),
        rule.min_firmware.map_or_else(any, |min| format!("from {min}")),
        if platform.is_empty() { any() } else { platform.join(" and ") },
    )
}

/// The text of a policy, in which nothing may pass for words of ours.
fn quoted(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| format!("{text:?}")).collect()
}

fn hex_all<const N: usize>(list: &Option<Vec<[u8; N]>>) -> Option<Vec<String>> {
    list.as_ref().map(|list| list.iter().map(hex::encode).collect())
}

impl Changes {
    pub(super) fn snp(&mut self, key: &str, old: Option<&SnpRule>, new: Option<&SnpRule>) {
        match (old, new) {
            (Some(old), Some(new)) => self.both_snp(key, old, new),
            (Some(_), None) => self.looser(format!("{key} is gone: no report is checked")),
            (None, Some(new)) => self.stricter(format!("{key} is new: {}", in_words(new))),
            (None, None) => {}
        }
    }

    /// What covers the code that runs after the firmware.
    pub(super) fn code_cover(&mut self, key: &str, old: &GuestRule, new: &GuestRule) {
        match (old, new) {
            (GuestRule::Snp(_), GuestRule::SnpParavisorVtpm { .. }) => {
                self.looser(format!("{key} is paravisor-vtpm: the launch digest need no longer cover what is booted"));
            }
            (GuestRule::SnpParavisorVtpm { .. }, GuestRule::Snp(_)) => {
                self.stricter(format!("{key} is launch: the launch digest covers what is booted"));
            }
            // A section that comes or goes was said to.
            (GuestRule::Tpm(_), GuestRule::Tpm(_) | GuestRule::Snp(_) | GuestRule::SnpParavisorVtpm { .. })
            | (GuestRule::Snp(_) | GuestRule::SnpParavisorVtpm { .. }, GuestRule::Tpm(_))
            | (GuestRule::Snp(_), GuestRule::Snp(_))
            | (GuestRule::SnpParavisorVtpm { .. }, GuestRule::SnpParavisorVtpm { .. }) => {}
        }
    }

    fn both_snp(&mut self, key: &str, old: &SnpRule, new: &SnpRule) {
        let digests = |rule: &SnpRule| rule.measurements.iter().map(hex::encode).collect::<Vec<_>>();
        self.listed(&format!("{key}.measurements"), Some(&digests(old)), Some(&digests(new)));
        self.permitted(&format!("{key}.chips"), &old.chips, &new.chips);
        // An empty list is the strictest here: no cloud's key will do.
        self.listed(&format!("{key}.csps"), Some(&quoted(&old.csps)), Some(&quoted(&new.csps)));
        self.min_tcb(&format!("{key}.min_tcb"), old, new);
        if old.vmpl != new.vmpl {
            self.changed(format!("{key}.vmpl is {}, before {}", new.vmpl, old.vmpl));
        }
        self.minimum(&format!("{key}.min_report_version"), Some(old.min_report_version), Some(new.min_report_version));
        match (old.crl, new.crl) {
            (CrlRule::Required, CrlRule::IfPresent) => {
                self.looser(format!("{key}.crl no longer needs a revocation list"));
            }
            (CrlRule::IfPresent, CrlRule::Required) => self.stricter(format!("{key}.crl needs a revocation list")),
            (CrlRule::Required, CrlRule::Required) | (CrlRule::IfPresent, CrlRule::IfPresent) => {}
        }
        self.allowed(&format!("{key}.smt"), old.smt, new.smt);
        self.allowed(&format!("{key}.provisional_firmware"), old.provisional_firmware, new.provisional_firmware);
        self.narrowing(key, old, new);
    }

    /// Keys that may be left out, which is the loosest.
    fn narrowing(&mut self, key: &str, old: &SnpRule, new: &SnpRule) {
        for (name, old, new) in [
            ("host_data", hex_all(&old.host_data), hex_all(&new.host_data)),
            ("id_keys", hex_all(&old.id_keys), hex_all(&new.id_keys)),
            ("author_keys", hex_all(&old.author_keys), hex_all(&new.author_keys)),
        ] {
            self.listed(&format!("{key}.{name}"), old.as_deref(), new.as_deref());
        }
        self.minimum(&format!("{key}.min_guest_svn"), old.min_guest_svn, new.min_guest_svn);
        self.minimum(&format!("{key}.min_firmware"), old.min_firmware, new.min_firmware);
        for feature in old.platform.iter().filter(|feature| !new.platform.contains(feature)) {
            self.looser(format!("{key}.platform no longer needs {feature}"));
        }
        for feature in new.platform.iter().filter(|feature| !old.platform.contains(feature)) {
            self.stricter(format!("{key}.platform also needs {feature}"));
        }
    }

    /// Items that are allowed; no list allows everything.
    fn listed(&mut self, key: &str, old: Option<&[String]>, new: Option<&[String]>) {
        match (old, new) {
            (None, None) => {}
            (Some(_), None) => self.looser(format!("{key} is no longer looked at")),
            (None, Some(new)) => self.stricter(format!("{key} is looked at: {}", new.join(" or "))),
            (Some(old), Some(new)) => {
                for item in new.iter().filter(|item| !old.contains(item)) {
                    self.looser(format!("{key} also allows {item}"));
                }
                for item in old.iter().filter(|item| !new.contains(item)) {
                    self.stricter(format!("{key} no longer allows {item}"));
                }
            }
        }
    }

    fn minimum<T: PartialOrd + std::fmt::Display>(&mut self, key: &str, old: Option<T>, new: Option<T>) {
        match (old, new) {
            (Some(old), None) => self.looser(format!("{key} is gone, before {old}")),
            (None, Some(new)) => self.stricter(format!("{key} is {new}")),
            (Some(old), Some(new)) if old != new => self.either(new < old, format!("{key} is {new}, before {old}")),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    fn allowed(&mut self, key: &str, old: Allowed, new: Allowed) {
        match (old, new) {
            (Allowed::No, Allowed::Yes) => self.looser(format!("{key} is allowed")),
            (Allowed::Yes, Allowed::No) => self.stricter(format!("{key} is no longer allowed")),
            (Allowed::No, Allowed::No) | (Allowed::Yes, Allowed::Yes) => {}
        }
    }

    fn min_tcb(&mut self, key: &str, old: &SnpRule, new: &SnpRule) {
        for (product, tcb) in new.min_tcb.iter() {
            match old.min_tcb.of(product) {
                None => self.looser(format!("{key} also takes {product}, from {tcb} on")),
                Some(before) if before == tcb => {}
                // Lower in one part is looser, whatever the others are.
                Some(before) => {
                    let product = MinTcb::key_of(product);
                    self.either(is_looser(before, tcb), format!("{key}.{product} is {tcb}, before {before}"));
                }
            }
        }
        for (product, _) in old.min_tcb.iter().filter(|(product, _)| new.min_tcb.of(*product).is_none()) {
            self.stricter(format!("{key} no longer takes {product}"));
        }
    }
}

fn is_looser(before: &TcbVersion, after: &TcbVersion) -> bool {
    !after.meets(before)
}
