//! Who may do what, by what the kernel says of the other end of a socket (unix(7), SO_PEERCRED).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use tokio::net::UnixStream;
use vault_proto::convert::Peers;

use super::error::ServeError;
use crate::agent::user::{UserArg, UserError};
use crate::failure::{Failure, Kind};
use crate::user_namespace::Unknown;

/// `--allow`, `--control`: a user, or everybody whose group is that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AllowArg {
    /// A name of /etc/passwd, or a number.
    User(UserArg),
    /// The primary group of a process.
    Group(u32),
}

/// Neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AllowError;

/// Users and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AllowList {
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
}

/// The process at the other end when it connected: the kernel keeps its numbers, and it can't choose them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Who may use an agent.
#[derive(Clone, Debug)]
pub(super) struct Access {
    readers: AllowList,
    controllers: AllowList,
}

/// A peer that may have some model. Made by [`Access::reader`] alone; which models those are is for
/// [`Reader::may_have`] to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    peer: Peer,
    listed: Listed,
}

/// On which list a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    /// Of those that control the agent.
    Controls,
    /// Of the agent's readers.
    Allowed,
    /// Of some model's own readers.
    ByModel,
}

/// A peer that may load and unload. Made by [`Access::controller`] alone.
#[derive(Debug)]
pub(super) struct Controller(());

impl AllowList {
    pub(super) fn new(allowed: &[AllowArg]) -> Result<Self, Failure> {
        let mut list = Self::default();
        for allowed in allowed {
            match allowed {
                AllowArg::Group(gid) => list.gids.insert(*gid),
                AllowArg::User(UserArg::Ids { uid, .. }) => list.uids.insert(*uid),
                AllowArg::User(name) => list.uids.insert(name.resolve()?.owner.uid),
            };
        }
        Ok(list)
    }

    /// This list, where it has nobody in it as whom the kernel shows everybody whom this user namespace does not know.
    ///
    /// # Errors
    /// [`ServeError::AllowUnknown`].
    pub(super) fn known(self, unknown: Option<Unknown>) -> Result<Self, ServeError> {
        let Some(Unknown { uid, gid }) = unknown else { return Ok(self) };
        if self.uids.contains(&uid) {
            return Err(ServeError::AllowUnknown { what: "user", id: uid });
        }
        if self.gids.contains(&gid) {
            return Err(ServeError::AllowUnknown { what: "group", id: gid });
        }
        Ok(self)
    }

    pub(super) fn has(&self, peer: Peer) -> bool {
        self.uids.contains(&peer.uid) || self.gids.contains(&peer.gid)
    }

    fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }
}

impl Access {
    /// The user `this` of the agent itself may do everything; whoever controls may also read. As `unknown` the kernel shows
    /// everybody whom this user namespace does not know, in the first one nobody: such a user or group can't be let in without
    /// all of them.
    ///
    /// # Errors
    /// `allow-unknown`.
    pub(super) fn new(
        this: u32,
        readers: AllowList,
        mut controllers: AllowList,
        unknown: Option<Unknown>,
    ) -> Result<Self, Failure> {
        controllers.uids.insert(this);
        let known = |list: AllowList| list.known(unknown).map_err(stands_for_all);
        let (readers, controllers) = (known(readers)?, known(controllers)?);
        Ok(Self { readers, controllers })
    }

    /// Whether anybody but the agent's own user is let in: then the file of a socket must let others connect.
    pub(super) fn has_others(&self) -> bool {
        !self.readers.is_empty() || self.controllers.uids.len() > 1 || !self.controllers.gids.is_empty()
    }

    /// `by_model` says whether a model has the peer on a list of its own.
    ///
    /// # Errors
    /// [`ServeError::PeerNotAllowed`].
    pub(super) fn reader(&self, peer: Peer, by_model: impl FnOnce(Peer) -> bool) -> Result<Reader, ServeError> {
        let listed = if self.controllers.has(peer) {
            Listed::Controls
        } else if self.readers.has(peer) {
            Listed::Allowed
        } else if by_model(peer) {
            Listed::ByModel
        } else {
            return Err(ServeError::PeerNotAllowed { uid: peer.uid, gid: peer.gid });
        };
        Ok(Reader { peer, listed })
    }

    /// # Errors
    /// [`ServeError::PeerNotController`].
    pub(super) fn controller(&self, peer: Peer) -> Result<Controller, ServeError> {
        if self.controllers.has(peer) {
            Ok(Controller(()))
        } else {
            Err(ServeError::PeerNotController { uid: peer.uid, gid: peer.gid })
        }
    }
}

fn stands_for_all(error: ServeError) -> Failure {
    Failure::new(Kind::Usage, error.code(), error)
        .next("give whoever is meant another user or group, or run the agent outside of the namespace")
}

impl Reader {
    /// Whose places it takes.
    pub(super) fn uid(self) -> u32 {
        self.peer.uid
    }

    /// What he is told of a model that is for others.
    pub(super) fn not_allowed(self) -> ServeError {
        ServeError::ModelNotAllowed { uid: self.peer.uid, gid: self.peer.gid }
    }

    /// Whether a model is for this reader: by the model's own list, or where it has none by the agent's.
    pub(super) fn may_have(self, readers: Option<&AllowList>) -> bool {
        match (self.listed, readers) {
            (Listed::Controls, _) | (Listed::Allowed, None) => true,
            (Listed::Allowed | Listed::ByModel, Some(readers)) => readers.has(self.peer),
            (Listed::ByModel, None) => false,
        }
    }
}

impl From<Peers> for AllowList {
    fn from(Peers { uids, gids }: Peers) -> Self {
        Self { uids, gids }
    }
}

impl From<AllowList> for Peers {
    fn from(AllowList { uids, gids }: AllowList) -> Self {
        Self { uids, gids }
    }
}

impl Peer {
    /// What no process is.
    pub(super) const NONE: Self = Self { uid: u32::MAX, gid: u32::MAX };

    /// Whoever connected. The kernel knows, always.
    pub(super) fn of(stream: &UnixStream) -> Self {
        stream.peer_cred().map_or(Self::NONE, Self::from)
    }
}

impl From<tokio::net::unix::UCred> for Peer {
    fn from(credentials: tokio::net::unix::UCred) -> Self {
        Self { uid: credentials.uid(), gid: credentials.gid() }
    }
}

impl FromStr for AllowArg {
    type Err = AllowError;

    fn from_str(text: &str) -> Result<Self, AllowError> {
        if let Some(group) = text.strip_prefix(':') {
            // A sign would be read, too.
            let digits = group.bytes().all(|byte| byte.is_ascii_digit());
            let gid = group.parse().ok().filter(|gid| digits && *gid != u32::MAX);
            return gid.map(Self::Group).ok_or(AllowError);
        }
        match text.parse().map_err(|_: UserError| AllowError)? {
            // A group beside a user would look as if both had to be right.
            UserArg::Ids { gid: Some(_), .. } => Err(AllowError),
            user => Ok(Self::User(user)),
        }
    }
}

impl fmt::Display for AllowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("want NAME, UID or :GID")
    }
}

impl std::error::Error for AllowError {}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: u32 = 0;

    fn list(allowed: &[&str]) -> AllowList {
        let allowed: Vec<AllowArg> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        AllowList::new(&allowed).unwrap()
    }

    #[test]
    fn a_peer_is_let_in_by_its_user_or_its_group_and_by_nothing_else() {
        let access = Access::new(AGENT, list(&["1001", ":2002"]), list(&["1003"]), None).unwrap();
        let peer = |uid, gid| Peer { uid, gid };
        let reader = |peer| access.reader(peer, |_| false);
        for good in [peer(1001, 9), peer(9, 2002), peer(1003, 9), peer(AGENT, 9)] {
            assert_eq!(reader(good).map(|reader| reader.peer), Ok(good));
        }
        for bad in [peer(2002, 1001), peer(9, 9)] {
            assert_eq!(reader(bad), Err(ServeError::PeerNotAllowed { uid: bad.uid, gid: bad.gid }));
        }
        assert!(access.controller(peer(1003, 9)).is_ok() && access.controller(peer(AGENT, 9)).is_ok());
        let refused = access.controller(peer(1001, 2002)).unwrap_err();
        assert_eq!(refused, ServeError::PeerNotController { uid: 1001, gid: 2002 });
    }

    #[test]
    fn without_a_list_it_is_the_agents_own_user_alone() {
        let access = |readers, controllers| Access::new(AGENT, readers, controllers, None).unwrap();
        let own = access(AllowList::default(), AllowList::default());
        let is_in = |peer| own.reader(peer, |_| false).is_ok();
        assert!(!own.has_others() && is_in(Peer { uid: AGENT, gid: 5 }));
        assert!(!is_in(Peer { uid: 5, gid: AGENT }));
        assert!(access(list(&[":5"]), AllowList::default()).has_others());
        assert!(access(AllowList::default(), list(&["5"])).has_others());
    }

    #[test]
    fn whoever_stands_for_all_that_a_namespace_does_not_know_is_let_in_by_nobody() {
        let unknown = Some(Unknown { uid: 65_534, gid: 65_533 });
        let none: &[&str] = &[];
        let refused = |this, readers: &[&str], controllers: &[&str]| {
            let access = Access::new(this, list(readers), list(controllers), unknown);
            access.map(drop).map_err(|failure| failure.code().to_owned())
        };
        let code = || Err("allow-unknown".to_owned());
        for bad in ["65534", ":65533"] {
            for (readers, controllers) in [(&[bad][..], none), (none, &[bad][..])] {
                assert_eq!(refused(AGENT, readers, controllers), code(), "{readers:?} {controllers:?}");
                assert!(Access::new(AGENT, list(readers), list(controllers), None).is_ok(), "the first one knows all");
            }
            let of_a_model = list(&["1001", bad]).known(unknown).map_err(|all| all.code());
            assert_eq!(of_a_model, Err("allow-unknown"), "{bad}");
        }
        assert_eq!(refused(65_534, none, none), code(), "nor is the agent one of them");
        let others: &[&str] = &["65533", ":65534"];
        assert_eq!(refused(AGENT, others, none), Ok(()));
        assert_eq!(list(others).known(unknown), Ok(list(others)));
    }

    #[test]
    fn a_model_with_a_list_is_for_those_on_it_and_who_controls_and_for_nobody_else() {
        let access = Access::new(AGENT, list(&["1001"]), list(&["1003"]), None).unwrap();
        let own = list(&["1002", ":2002"]);
        let reader = |uid, gid| access.reader(Peer { uid, gid }, |peer| own.has(peer)).unwrap();
        let (allowed, listed, by_group, controls) =
            (reader(1001, 9), reader(1002, 9), reader(9, 2002), reader(1003, 9));
        let has =
            |readers: Option<&AllowList>| [allowed, listed, by_group, controls].map(|reader| reader.may_have(readers));
        assert_eq!(has(None), [true, false, false, true]);
        assert_eq!(has(Some(&own)), [false, true, true, true]);
        assert_eq!(has(Some(&list(&["1001"]))), [true, false, false, true]);
        let back = AllowList::from(Peers::from(own.clone()));
        assert_eq!(back, own);
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", ":", ":x", ":-1", ":+1", "1:2", "4294967295", ":4294967295", "a:b"] {
            assert_eq!(bad.parse::<AllowArg>(), Err(AllowError), "{bad:?}");
        }
    }
}
