//! What an agent holds, and where each model of it stands.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledger::names::{Name, Version};
use tokio::sync::watch;
use vault_proto::convert::{AGENT_MODELS_MAX, AgentModel, AgentModelState, ModelName, Peers};

use super::access::{AllowList, Peer, Reader};
use super::error::ServeError;
use super::shared::Shared;
use crate::agent::term::{BootTime, Term};

/// Where a model stands.
#[derive(Clone)]
pub(super) enum State {
    /// On its way; what went wrong before, where it is tried again.
    Loading { problem: Option<String> },
    /// Handed out to whoever asks.
    Ready { shared: Arc<Shared>, terms: watch::Receiver<Term> },
    /// The lease is lost: wiped at `until`.
    Draining { shared: Arc<Shared>, why: Why, until: BootTime },
    /// Wiped, or never there.
    Gone { why: Why },
}

/// Why a model goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody who controls the agent said so.
    Unloaded,
    /// The agent ends.
    Stopped,
    /// Its lease was not renewed in time.
    LeaseLost,
    /// Its vault has revoked the lease; what the agent knows of it.
    Revoked(String),
    /// It could not be loaded, and trying again does not help.
    Failed(String),
}

impl Why {
    /// Stable name.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Unloaded => "unloaded",
            Self::Stopped => "agent-stopped",
            Self::LeaseLost => "lease-lost",
            Self::Revoked(_) => "lease-revoked",
            Self::Failed(_) => "not-loaded",
        }
    }

    /// Name and what is known.
    pub(super) fn problem(&self) -> String {
        match self {
            Self::Unloaded | Self::Stopped | Self::LeaseLost => self.code().to_owned(),
            Self::Revoked(why) | Self::Failed(why) => format!("{}: {why}", self.code()),
        }
    }
}

/// A model by what a reader calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) model: Name,
    /// Else the one that became ready last.
    pub(super) version: Option<Version>,
}

/// All models of an agent.
pub(super) struct Models {
    entries: Mutex<BTreeMap<ModelName, Arc<Entry>>>,
    /// Counts whatever changes.
    changed: watch::Sender<u64>,
    readied: AtomicU64,
}

/// One model.
pub(super) struct Entry {
    pub(super) name: ModelName,
    /// What is held of it, in words.
    part: String,
    /// Who may have it, where it is not whom the agent lets have models.
    allowed: Option<AllowList>,
    state: watch::Sender<State>,
    stop: watch::Sender<Option<Why>>,
    readers: AtomicU32,
    /// Its place in the order in which models became ready; 0 before.
    readied: AtomicU64,
}

/// Counts a reader as long as it lives.
pub(super) struct Reading<'a> {
    models: &'a Models,
    entry: &'a Entry,
}

impl Models {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::default(), changed: watch::Sender::new(0), readied: AtomicU64::new(0) }
    }

    /// A place for a model that is not there.
    ///
    /// # Errors
    /// [`ServeError::ModelThere`], [`ServeError::TooManyModels`].
    pub(super) fn add(
        &self,
        name: ModelName,
        part: String,
        allowed: Option<AllowList>,
    ) -> Result<Arc<Entry>, ServeError> {
        let mut entries = self.entries();
        match entries.get(&name) {
            Some(entry) if !entry.is_gone() => return Err(ServeError::ModelThere(name)),
            None if entries.len() >= AGENT_MODELS_MAX => return Err(ServeError::TooManyModels),
            Some(_) | None => {}
        }
        let entry = Arc::new(Entry {
            name: name.clone(),
            part,
            allowed,
            state: watch::Sender::new(State::Loading { problem: None }),
            stop: watch::Sender::new(None),
            readers: AtomicU32::new(0),
            readied: AtomicU64::new(0),
        });
        entries.insert(name, Arc::clone(&entry));
        drop(entries);
        self.say_changed();
        Ok(entry)
    }

    /// The model that a reader means, of those that are for him.
    ///
    /// # Errors
    /// [`ServeError::ModelUnknown`], [`ServeError::ModelNotAllowed`].
    pub(super) fn find(&self, wanted: &Wanted, reader: Reader) -> Result<Arc<Entry>, ServeError> {
        let entries = self.entries();
        let is_named = |entry: &&Arc<Entry>| {
            entry.name.model == wanted.model
                && wanted.version.as_ref().is_none_or(|version| *version == entry.name.version)
        };
        let named: Vec<&Arc<Entry>> = entries.values().filter(is_named).collect();
        let own = named.iter().filter(|entry| reader.may_have(entry.allowed.as_ref()));
        // Of those that are there the newest; else one that may come.
        let best = own.max_by_key(|entry| (entry.is_ready(), !entry.is_gone(), entry.readied.load(Ordering::Relaxed)));
        match best {
            Some(entry) => Ok(Arc::clone(entry)),
            None if named.is_empty() => Err(ServeError::ModelUnknown),
            None => Err(reader.not_allowed()),
        }
    }

    /// Whether some model is for this peer by a list of its own.
    pub(super) fn is_listed(&self, peer: Peer) -> bool {
        self.entries().values().any(|entry| entry.allowed.as_ref().is_some_and(|readers| readers.has(peer)))
    }

    /// Ends a model, waits until it is wiped, and forgets it.
    ///
    /// # Errors
    /// [`ServeError::ModelUnknown`].
    pub(super) async fn end(&self, name: &ModelName, why: Why) -> Result<(), ServeError> {
        let entry = self.entries().get(name).cloned().ok_or(ServeError::ModelUnknown)?;
        entry.stop.send_replace(Some(why));
        entry.gone().await;
        let mut entries = self.entries();
        // Somebody may have it loaded again meanwhile.
        if entries.get(name).is_some_and(|there| Arc::ptr_eq(there, &entry)) {
            entries.remove(name);
        }
        drop(entries);
        self.say_changed();
        Ok(())
    }

    /// Ends all of them at once.
    pub(super) async fn end_all(&self) {
        let entries: Vec<_> = self.entries().values().cloned().collect();
        for entry in &entries {
            entry.stop.send_replace(Some(Why::Stopped));
        }
        for entry in entries {
            entry.gone().await;
        }
    }

    /// What a reader is told: of the models that are for him.
    pub(super) fn list(&self, reader: Reader) -> Vec<AgentModel> {
        let entries = self.entries();
        let own = entries.values().filter(|entry| reader.may_have(entry.allowed.as_ref()));
        own.map(|entry| entry.summary()).collect()
    }

    /// Changes whenever [`Models::list`] does, but for the passing of time.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Says where a model stands now.
    pub(super) fn set(&self, entry: &Entry, state: State) {
        if matches!(state, State::Ready { .. }) {
            entry.readied.store(self.readied.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        entry.state.send_replace(state);
        self.say_changed();
    }

    /// Counts a reader of it.
    pub(super) fn reading<'a>(&'a self, entry: &'a Entry) -> Reading<'a> {
        entry.readers.fetch_add(1, Ordering::Relaxed);
        self.say_changed();
        Reading { models: self, entry }
    }

    fn say_changed(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Nothing that could panic runs under the lock.
    fn entries(&self) -> MutexGuard<'_, BTreeMap<ModelName, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Where it stands, now and later.
    pub(super) fn states(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Whether it is to end, now and later.
    pub(super) fn stops(&self) -> watch::Receiver<Option<Why>> {
        self.stop.subscribe()
    }

    /// Whether it is handed out as this, now.
    pub(super) fn is_handed_out(&self, shared: &Arc<Shared>) -> bool {
        is_ready_as(shared, &self.state.borrow())
    }

    /// Resolves when it is handed out as this no more.
    pub(super) async fn goes(&self, shared: &Arc<Shared>) {
        let mut states = self.states();
        // It fails where there is no sender, and `self` is one.
        let _ = states.wait_for(|state| !is_ready_as(shared, state)).await;
    }

    /// Whether anybody holds it now.
    pub(super) fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    fn is_gone(&self) -> bool {
        matches!(*self.state.borrow(), State::Gone { .. })
    }

    fn is_ready(&self) -> bool {
        matches!(*self.state.borrow(), State::Ready { .. })
    }

    async fn gone(&self) {
        let mut states = self.states();
        // It fails where there is no sender, and `self` is one.
        let _ = states.wait_for(|state| matches!(state, State::Gone { .. })).await;
    }

    fn summary(&self) -> AgentModel {
        let now = BootTime::now();
        let loading = |problem| (AgentModelState::Loading, None, 0, problem);
        let (state, shared, seconds, problem) = match &*self.state.borrow() {
            State::Loading { problem } => loading(problem.clone().unwrap_or_default()),
            State::Ready { shared, terms } => {
                let left = now.until(terms.borrow().deadline()).as_secs();
                (AgentModelState::Ready, Some(Arc::clone(shared)), left, String::new())
            }
            State::Draining { shared, why, until } => {
                (AgentModelState::Draining, Some(Arc::clone(shared)), now.until(*until).as_secs(), why.problem())
            }
            State::Gone { why } => (AgentModelState::Gone, None, 0, why.problem()),
        };
        AgentModel {
            model: self.name.clone(),
            state,
            // At most one a unit.
            files: shared.as_ref().map_or(0, |shared| u32::try_from(shared.files().len()).unwrap_or(u32::MAX)),
            bytes: shared.map_or(0, |shared| shared.bytes()),
            readers: self.readers.load(Ordering::Relaxed),
            seconds,
            problem,
            part: self.part.clone(),
            allowed: self.allowed.clone().map(Peers::from),
        }
    }
}

fn is_ready_as(shared: &Arc<Shared>, state: &State) -> bool {
    matches!(state, State::Ready { shared: now, .. } if Arc::ptr_eq(now, shared))
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.entry.readers.fetch_sub(1, Ordering::Relaxed);
        self.models.say_changed();
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::Access;
    use super::*;

    fn name(version: &str) -> ModelName {
        ModelName { model: "minilm".parse().unwrap(), version: version.parse().unwrap() }
    }

    fn wanted(version: Option<&str>) -> Wanted {
        Wanted { model: "minilm".parse().unwrap(), version: version.map(|version| version.parse().unwrap()) }
    }

    /// The agent's own user; one whom it lets have models; one who is on a model's list.
    const OWN: u32 = 0;
    const ALLOWED: u32 = 1001;
    const LISTED: u32 = 1002;

    fn reader(uid: u32) -> Reader {
        let allowed = AllowList::new(&[ALLOWED.to_string().parse().unwrap()]).unwrap();
        let access = Access::new(OWN, allowed, AllowList::default(), None).unwrap();
        access.reader(Peer { uid, gid: 9 }, |peer| peer.uid == LISTED).unwrap()
    }

    fn add(models: &Models, version: &str, readers: &[u32]) -> Result<Arc<Entry>, ServeError> {
        let readers: Vec<_> = readers.iter().map(|uid| uid.to_string().parse().unwrap()).collect();
        let readers = (!readers.is_empty()).then(|| AllowList::new(&readers).unwrap());
        models.add(name(version), "all".to_owned(), readers)
    }

    fn find(models: &Models, version: Option<&str>) -> Result<Arc<Entry>, ServeError> {
        models.find(&wanted(version), reader(OWN))
    }

    fn gone() -> State {
        State::Gone { why: Why::LeaseLost }
    }

    #[test]
    fn a_model_is_loaded_once_at_a_time() {
        let models = Models::new();
        let entry = add(&models, "1", &[]).unwrap();
        let refused = add(&models, "1", &[]).err().unwrap();
        assert_eq!((refused.code(), refused), ("model-there", ServeError::ModelThere(name("1"))));
        models.set(&entry, gone());
        add(&models, "1", &[]).unwrap();
    }

    #[test]
    fn there_are_so_many_models_and_no_more() {
        let models = Models::new();
        for version in 0..AGENT_MODELS_MAX {
            add(&models, &version.to_string(), &[]).unwrap();
        }
        assert_eq!(add(&models, "more", &[]).err(), Some(ServeError::TooManyModels));
        assert_eq!(models.list(reader(OWN)).len(), AGENT_MODELS_MAX);
    }

    #[test]
    fn a_name_without_a_version_is_one_that_is_there_or_may_come() {
        let models = Models::new();
        assert_eq!(find(&models, None).err(), Some(ServeError::ModelUnknown));
        let old = add(&models, "1", &[]).unwrap();
        models.set(&old, gone());
        assert_eq!(find(&models, None).unwrap().name, name("1"), "it says why it is gone");
        add(&models, "0", &[]).unwrap();
        assert_eq!(find(&models, None).unwrap().name, name("0"));
        assert_eq!(find(&models, Some("1")).unwrap().name, name("1"));
        assert_eq!(find(&models, Some("2")).err(), Some(ServeError::ModelUnknown));
    }

    #[test]
    fn a_reader_finds_and_is_told_of_the_models_that_are_for_him() {
        let models = Models::new();
        for (version, readers) in [("1", [].as_slice()), ("2", &[LISTED]), ("3", &[ALLOWED, LISTED])] {
            add(&models, version, readers).unwrap();
        }
        let told =
            |uid| models.list(reader(uid)).into_iter().map(|model| model.model.version.to_string()).collect::<Vec<_>>();
        assert_eq!(told(OWN), ["1", "2", "3"]);
        assert_eq!(told(ALLOWED), ["1", "3"]);
        assert_eq!(told(LISTED), ["2", "3"]);
        let found =
            |uid, version| models.find(&wanted(version), reader(uid)).map(|entry| entry.name.version.to_string());
        let not_allowed = |uid| Err(ServeError::ModelNotAllowed { uid, gid: 9 });
        assert_eq!(found(ALLOWED, Some("2")), not_allowed(ALLOWED));
        assert_eq!(found(LISTED, Some("1")), not_allowed(LISTED));
        assert_eq!(found(LISTED, Some("2")), Ok("2".to_owned()));
        // Without a version: of those that are for him.
        models.set(&models.find(&wanted(Some("1")), reader(OWN)).unwrap(), gone());
        assert!(found(LISTED, None).is_ok_and(|version| version != "1"));
        assert_eq!(found(ALLOWED, None), Ok("3".to_owned()));
        assert_eq!(found(LISTED, Some("4")), Err(ServeError::ModelUnknown));
        assert!(models.is_listed(Peer { uid: LISTED, gid: 9 }) && !models.is_listed(Peer { uid: OWN, gid: 9 }));
    }

    #[tokio::test]
    async fn a_model_that_ended_is_forgotten_and_its_readers_are_counted() {
        let models = Models::new();
        assert_eq!(models.end(&name("1"), Why::Unloaded).await, Err(ServeError::ModelUnknown));
        let entry = add(&models, "1", &[]).unwrap();
        let reading = models.reading(&entry);
        assert_eq!(models.list(reader(OWN))[0].readers, 1);
        drop(reading);
        assert_eq!(models.list(reader(OWN))[0].readers, 0);
        let mut stops = entry.stops();
        let worker = async {
            stops.wait_for(Option::is_some).await.unwrap();
            models.set(&entry, gone());
        };
        let one = name("1");
        let (ended, ()) = tokio::join!(models.end(&one, Why::Unloaded), worker);
        assert_eq!((ended, models.list(reader(OWN))), (Ok(()), Vec::new()));
    }

    #[test]
    fn each_end_has_its_name() {
        let ends = [Why::Unloaded, Why::Stopped, Why::LeaseLost, Why::Revoked("x".into()), Why::Failed("y".into())];
        let problems = ends.map(|why| why.problem());
        assert_eq!(problems, ["unloaded", "agent-stopped", "lease-lost", "lease-revoked: x", "not-loaded: y"]);
    }
}
