//! Who a command runs as.

use std::fmt;
use std::str::FromStr;

use super::job::Owner;
use crate::failure::{Failure, Kind};

const PASSWD: &str = "/etc/passwd";

/// `--user`: a name of /etc/passwd, or numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserArg {
    /// A name.
    Name(String),
    /// A user id, and perhaps a group id.
    Ids {
        /// User.
        uid: u32,
        /// Group; else that of the user in /etc/passwd.
        gid: Option<u32>,
    },
}

/// Neither a name nor numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserError;

/// A user, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) owner: Owner,
    /// Name and home directory, where /etc/passwd has the user.
    pub(super) account: Option<(String, String)>,
}

impl UserArg {
    /// Looks the user up in /etc/passwd.
    pub(super) fn resolve(&self) -> Result<User, Failure> {
        let passwd = std::fs::read_to_string(PASSWD).unwrap_or_default();
        self.resolve_in(&passwd).ok_or_else(|| {
            Failure::new(Kind::Usage, "user-unknown", format!("{PASSWD} has no user {self}"))
                .next("give --user UID:GID where users are kept elsewhere")
        })
    }

    fn resolve_in(&self, passwd: &str) -> Option<User> {
        let found = passwd.lines().filter_map(Line::parse).find(|line| match self {
            Self::Name(name) => line.name == name,
            Self::Ids { uid, .. } => line.uid == *uid,
        });
        let account = found.as_ref().map(|line| (line.name.to_owned(), line.home.to_owned()));
        let owner = match (self, &found) {
            (Self::Ids { uid, gid: Some(gid) }, _) => Owner { uid: *uid, gid: *gid },
            (_, Some(line)) => Owner { uid: line.uid, gid: line.gid },
            (_, None) => return None,
        };
        Some(User { owner, account })
    }
}

/// What is needed of a line of passwd(5).
struct Line<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, _] = *fields.as_slice() else { return None };
        Some(Self { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    }
}

impl FromStr for UserArg {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX).ok_or(UserError);
        if !text.starts_with(|first: char| first.is_ascii_digit()) {
            let is_name = !text.is_empty() && !text.contains([':', '\n', '/']) && !text.starts_with(['-', '+']);
            return if is_name { Ok(Self::Name(text.to_owned())) } else { Err(UserError) };
        }
        match text.split_once(':') {
            Some((uid, gid)) => Ok(Self::Ids { uid: number(uid)?, gid: Some(number(gid)?) }),
            None => Ok(Self::Ids { uid: number(text)?, gid: None }),
        }
    }
}

impl fmt::Display for UserArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ids { uid, gid: Some(gid) } => write!(f, "{uid}:{gid}"),
            Self::Ids { uid, gid: None } => write!(f, "{uid}"),
        }
    }
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("want NAME, UID or UID:GID")
    }
}

impl std::error::Error for UserError {}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nserver:x:1001:1002::/srv:/bin/sh\nbroken:x:y:0:::\n";

    fn resolve(text: &str) -> Option<User> {
        text.parse::<UserArg>().unwrap().resolve_in(PASSWD)
    }

    #[test]
    fn a_name_has_its_own_group_and_home() {
        let user = resolve("server").unwrap();
        assert_eq!(user.owner, Owner { uid: 1001, gid: 1002 });
        assert_eq!(user.account, Some(("server".to_owned(), "/srv".to_owned())));
        assert_eq!(resolve("1001").unwrap(), user);
    }

    #[test]
    fn numbers_need_no_account_but_then_a_group() {
        assert_eq!(resolve("7:8").unwrap(), User { owner: Owner { uid: 7, gid: 8 }, account: None });
        assert_eq!(resolve("1001:8").unwrap().owner, Owner { uid: 1001, gid: 8 });
        assert_eq!(resolve("7"), None);
        for unknown in ["nobody", "broken"] {
            assert_eq!(resolve(unknown), None);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "-1", ":", ":5", "5:", "5:x", "5x", "4294967295", "4294967296", "a:b", "a/b", "+root"] {
            assert_eq!(bad.parse::<UserArg>(), Err(UserError), "{bad:?}");
        }
    }
}
