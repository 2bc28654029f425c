//! How many connections there are: of each user, and of all. Each takes a descriptor, and without descriptors nothing is
//! renewed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::access::Reader;
use super::error::ServeError;

/// After a connection that could not be accepted, such as where there are no descriptors left.
const ACCEPT_AFTER: Duration = Duration::from_millis(100);

/// Connections that there may be at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// That have models, or ask for them.
    pub(super) readers: u32,
    /// On the control socket, of those who may look.
    pub(super) lookers: u32,
    /// On the control socket, of those who may load and unload: a place of theirs nobody else takes.
    pub(super) controllers: u32,
}

impl Bounds {
    /// At most these; less than half of the descriptors that this process may have, so that models, renewals and loads get theirs.
    pub(super) fn of(descriptors: u64) -> Self {
        let share = |part: u64, most: u32| u32::try_from(descriptors / part).unwrap_or(most).min(most);
        Self { readers: share(4, 1024), lookers: share(16, 256), controllers: share(16, 64) }
    }
}

/// How many connections there are.
pub(super) struct Places {
    taken: Mutex<BTreeMap<u32, u32>>,
    most: u32,
}

/// One of them, given back when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    /// So many, a quarter of them for one user.
    pub(super) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), most })
    }

    /// # Errors
    /// [`ServeError::TooManyReaders`].
    pub(super) fn take(self: &Arc<Self>, reader: Reader) -> Result<Place, ServeError> {
        let uid = reader.uid();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: u32 = taken.values().sum();
        let own = taken.get(&uid).copied().unwrap_or(0);
        if all >= self.most || own >= self.most.div_ceil(4) {
            return Err(ServeError::TooManyReaders);
        }
        taken.insert(uid, own + 1);
        Ok(Place { places: Arc::clone(self), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

/// The next connection. Where there is no descriptor for it the listener stays ready, and to ask it again at once would be all
/// that this process still does.
pub(super) async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(ACCEPT_AFTER).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::{Access, AllowList, Peer};
    use super::*;

    #[test]
    fn a_user_has_so_many_places_and_leaves_some_to_others() {
        let groups: Vec<_> = [":7".parse().unwrap()].to_vec();
        let access = Access::new(0, AllowList::new(&groups).unwrap(), AllowList::default(), None).unwrap();
        let reader = |uid| access.reader(Peer { uid, gid: 7 }, |_| false).unwrap();
        let places = Places::new(64);
        let mut taken = Vec::new();
        for uid in 1..=4 {
            taken.extend((0..16).map(|_| places.take(reader(uid)).unwrap()));
            assert_eq!(places.take(reader(uid)).err(), Some(ServeError::TooManyReaders));
        }
        assert_eq!(places.take(reader(99)).err(), Some(ServeError::TooManyReaders), "none is left for anybody");
        taken.pop();
        assert!(places.take(reader(99)).is_ok());
        drop(taken);
        assert_eq!(places.taken.lock().unwrap().values().sum::<u32>(), 0);
    }

    #[test]
    fn connections_take_less_than_half_of_the_descriptors() {
        assert_eq!(Bounds::of(u64::MAX), Bounds { readers: 1024, lookers: 256, controllers: 64 });
        assert_eq!(Bounds::of(1 << 20), Bounds::of(u64::MAX));
        for descriptors in [64, 256, 1024, 4096] {
            let Bounds { readers, lookers, controllers } = Bounds::of(descriptors);
            assert!(u64::from(readers + lookers + controllers) * 2 < descriptors && controllers > 0, "{descriptors}");
        }
    }
}
