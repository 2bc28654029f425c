//! Ubuntu confines swtpm with AppArmor: it may write below its user's home and `/tmp`, and nowhere else.

use crate::shell;
use std::fs;
use std::path::Path;

const PROFILE: &str = "/etc/apparmor.d/usr.bin.swtpm";
/// What an administrator allows besides; the profile includes it.
const LOCAL: &str = "/etc/apparmor.d/local/usr.bin.swtpm";

/// What to do, where the software TPMs of the demo would be refused their files.
pub(super) fn note() -> Option<String> {
    let is_on = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.starts_with('Y'));
    if !is_on || !Path::new(PROFILE).exists() {
        return None;
    }
    let home = std::env::var_os("HOME").unwrap_or_default();
    note_for(&shell::target_dir(), Path::new(&home), &fs::read_to_string(LOCAL).unwrap_or_default())
}

fn note_for(target: &Path, home: &Path, local: &str) -> Option<String> {
    let in_home = home.is_absolute() && target.starts_with(home);
    if in_home || target.starts_with("/tmp") || local.contains(&*target.to_string_lossy()) {
        return None;
    }
    let target = target.display();
    Some(format!(
        "AppArmor keeps swtpm out of {target}. Work below your home directory, or allow it:\n  \
         echo 'owner {target}/** rwk,' | sudo tee -a {LOCAL} && sudo apparmor_parser -r {PROFILE}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(target: &str, local: &str) -> Option<String> {
        note_for(Path::new(target), Path::new("/users/eve"), local)
    }

    #[test]
    fn build_directory_that_swtpm_may_not_write_to_is_named_with_the_fix() {
        let text = note("/srv/vault/target", "").unwrap();
        assert!(text.contains("owner /srv/vault/target/** rwk,") && text.contains("apparmor_parser"), "{text}");
        assert!(note("/users/eves/target", "").is_some());
    }

    #[test]
    fn places_that_are_allowed_need_no_note() {
        assert_eq!(note("/users/eve/vault/target", ""), None);
        assert_eq!(note("/tmp/vault/target", ""), None);
        assert_eq!(note("/srv/vault/target", "owner /srv/vault/target/** rwk,"), None);
    }
}
