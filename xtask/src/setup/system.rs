//! Which operating system this is.

/// Systems that share package names and a package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Debian, Ubuntu and what is made from them.
    Debian,
    /// Fedora and Red Hat's.
    Fedora,
    /// Arch Linux and what is made from it.
    Arch,
    /// openSUSE and SUSE's.
    Suse,
    /// None of these.
    Unknown,
}

impl Family {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Debian => "Debian, Ubuntu",
            Self::Fedora => "Fedora",
            Self::Arch => "Arch",
            Self::Suse => "openSUSE",
            Self::Unknown => "unknown",
        }
    }
}

/// What `/etc/os-release` says.
pub(super) struct System {
    pub(super) name: String,
    pub(super) family: Family,
    pub(super) id: String,
    pub(super) version: String,
}

impl System {
    pub(super) fn detect() -> Self {
        let text =
            std::fs::read_to_string("/etc/os-release").or_else(|_| std::fs::read_to_string("/usr/lib/os-release"));
        Self::parse(&text.unwrap_or_default())
    }

    /// Whether set-up is tested on this very system.
    pub(super) fn is_tested(&self) -> bool {
        [("debian", "12"), ("debian", "13"), ("ubuntu", "24.04")].contains(&(self.id.as_str(), self.version.as_str()))
    }

    fn parse(os_release: &str) -> Self {
        let field = |name: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_string()
        };
        let id = field("ID");
        let like = field("ID_LIKE");
        let family = std::iter::once(id.as_str()).chain(like.split_whitespace()).find_map(|word| match word {
            "debian" | "ubuntu" => Some(Family::Debian),
            "fedora" | "rhel" | "centos" => Some(Family::Fedora),
            "arch" => Some(Family::Arch),
            "suse" | "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" => Some(Family::Suse),
            _ => None,
        });
        let name = match field("PRETTY_NAME") {
            name if name.is_empty() => "this system".to_string(),
            name => name,
        };
        Self { name, family: family.unwrap_or(Family::Unknown), id, version: field("VERSION_ID") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tested_systems_are_recognised() {
        for (text, tested) in [
            ("ID=debian\nVERSION_ID=\"12\"\n", true),
            ("ID=debian\nVERSION_ID=\"13\"\n", true),
            ("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n", true),
            ("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"22.04\"\n", false),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=\"22\"\n", false),
        ] {
            let system = System::parse(text);
            assert_eq!((system.family, system.is_tested()), (Family::Debian, tested), "{text}");
        }
    }

    #[test]
    fn other_systems_get_their_family() {
        assert_eq!(System::parse("ID=fedora\n").family, Family::Fedora);
        assert_eq!(System::parse("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n").family, Family::Fedora);
        assert_eq!(System::parse("ID=arch\n").family, Family::Arch);
        assert_eq!(System::parse("ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n").family, Family::Suse);
        assert_eq!(System::parse("ID=nixos\n").family, Family::Unknown);
        assert_eq!(System::parse("").name, "this system");
    }
}
