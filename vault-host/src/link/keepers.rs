//! The keepers of a vault that share its log: which of them is asked what.
//!
//! A challenge lives in the keeper that issued it, so what redeems it goes there. Guests are spread; whatever takes two
//! calls without a challenge goes to the first keeper that serves. A watch is begun at all of them, since each tells of what
//! it logged.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Call, Link, LinkError, Notices, Reply};

/// Challenges whose keeper is remembered: as many as are issued while one can be redeemed.
const SESSIONS_MAX: usize = 1 << 16;
/// What a keeper says that does not serve the vault, now or any more: nothing was done, and another one may serve it.
const ELSEWHERE: [&str; 4] = ["keeper-empty", "keeper-stopped", "keeper-retired", "vault-closed"];
/// What a keeper says of a challenge that is not its own.
const OTHERS_CHALLENGE: &str = "challenge-unknown";

/// A handle on them all. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Keepers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    links: Vec<Link>,
    notices: Notices,
    next: AtomicUsize,
    sessions: Mutex<Sessions>,
}

/// Which keeper issued which challenge.
#[derive(Debug, Default)]
struct Sessions {
    by_id: HashMap<Vec<u8>, usize>,
    oldest_first: VecDeque<Vec<u8>>,
}

impl Sessions {
    fn add(&mut self, session: Vec<u8>, keeper: usize) {
        if self.by_id.insert(session.clone(), keeper).is_none() {
            self.oldest_first.push_back(session);
        }
        if self.oldest_first.len() > SESSIONS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }
}

impl Keepers {
    /// One at least, in the order of the configuration; `notices` hears what all of them tell.
    pub(crate) fn new(links: Vec<Link>, notices: Notices) -> Self {
        Self(Arc::new(Inner { links, notices, next: AtomicUsize::new(0), sessions: Mutex::default() }))
    }

    /// Who listens for revocations.
    pub(crate) fn notices(&self) -> &Notices {
        &self.0.notices
    }

    /// Why there is no stream to any of them; `None` while there is one.
    pub(crate) fn down(&self) -> Option<String> {
        let reasons: Option<Vec<String>> = self.0.links.iter().map(Link::down).collect();
        reasons.map(|reasons| reasons.join("; "))
    }

    /// Calls `changed` whenever [`Keepers::down`] may have another answer, until all links are shut down.
    pub(crate) async fn watch_links(&self, changed: Arc<Notify>) {
        let mut watching = JoinSet::new();
        for mut link in self.0.links.clone() {
            let changed = changed.clone();
            watching.spawn(async move {
                while link.changed().await {
                    changed.notify_one();
                }
            });
        }
        while watching.join_next().await.is_some() {}
    }

    /// Asks the keeper that the request is for.
    ///
    /// # Errors
    /// [`LinkError`]: of the last keeper that was asked.
    pub(crate) async fn call(&self, request: Call) -> Result<Reply, LinkError> {
        if let [only] = self.0.links.as_slice() {
            return only.call(request).await;
        }
        match &request {
            Call::WatchLease(_) => self.everywhere(request).await,
            Call::ReleaseKeys(_) | Call::RenewLease(_) | Call::JoinKeeper(_) => {
                match session_of(&request).and_then(|session| self.sessions().by_id.get(session).copied()) {
                    Some(keeper) => self.0.links[keeper].call(request).await,
                    // This host was started anew since: whoever issued it knows it.
                    None => self.in_turn(request, 0).await,
                }
            }
            Call::GetChallenge(_) => {
                let first = self.0.next.fetch_add(1, Ordering::Relaxed);
                self.in_turn(request, first).await
            }
            _ => self.in_turn(request, 0).await,
        }
    }

    /// Asks one after another until one serves.
    async fn in_turn(&self, request: Call, first: usize) -> Result<Reply, LinkError> {
        let links = &self.0.links;
        let mut not_open = None;
        let mut last = LinkError::Unreachable { reason: "there is no keeper".to_owned() };
        for offset in 0..links.len() {
            let keeper = (first % links.len() + offset) % links.len();
            match links[keeper].call(request.clone()).await {
                // Where another one serves, that is what there is to know.
                Ok(Reply::Status(status)) if status.state != "open" => {
                    not_open.get_or_insert(Reply::Status(status));
                }
                Ok(reply) => {
                    if let Reply::GetChallenge(issued) = &reply {
                        self.sessions().add(issued.session.clone(), keeper);
                    } else if let Reply::GetJoinChallenge(issued) = &reply {
                        self.sessions().add(issued.session.clone(), keeper);
                    }
                    return Ok(reply);
                }
                Err(error) if !may_serve_elsewhere(&error) => return Err(error),
                // What a keeper says is worth more than that another one can't be reached.
                Err(error) if offset == 0 || matches!(error, LinkError::Refused(_)) => last = error,
                Err(_) => {}
            }
        }
        not_open.ok_or(last)
    }

    /// Asks all of them, so that each tells of what concerns the answer.
    async fn everywhere(&self, request: Call) -> Result<Reply, LinkError> {
        let mut answers = JoinSet::new();
        for link in self.0.links.iter().filter(|link| link.down().is_none()) {
            let (link, request) = (link.clone(), request.clone());
            answers.spawn(async move { link.call(request).await });
        }
        let mut best = Err(LinkError::Unreachable { reason: self.down().unwrap_or_default() });
        while let Some(answer) = answers.join_next().await {
            let answer = answer.unwrap_or(Err(LinkError::WrongReply));
            let revoked = matches!(&answer, Ok(Reply::WatchLease(watched)) if watched.notice.is_some());
            if revoked || best.is_err() {
                best = answer;
            }
        }
        best
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn may_serve_elsewhere(error: &LinkError) -> bool {
    match error {
        LinkError::Unreachable { .. } => true,
        LinkError::Refused(refusal) => ELSEWHERE.contains(&refusal.code.as_str()) || refusal.code == OTHERS_CHALLENGE,
        // It may have done what was asked.
        LinkError::Lost | LinkError::Late | LinkError::WrongReply => false,
    }
}

fn session_of(request: &Call) -> Option<&Vec<u8>> {
    match request {
        Call::ReleaseKeys(request) => Some(&request.session),
        Call::RenewLease(request) => Some(&request.session),
        Call::JoinKeeper(request) => Some(&request.session),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_challenge_is_forgotten_first() {
        let mut sessions = Sessions::default();
        for n in 0..=SESSIONS_MAX {
            sessions.add(n.to_be_bytes().to_vec(), n % 3);
        }
        assert_eq!(sessions.by_id.len(), SESSIONS_MAX);
        assert_eq!(sessions.by_id.get(0_usize.to_be_bytes().as_slice()), None);
        assert_eq!(sessions.by_id.get(1_usize.to_be_bytes().as_slice()), Some(&1));
    }
}
