//! What passes over the control socket of an agent.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ledger::manifest::{Rank, Ranks, Selection};
use ledger::names::Name;

use super::vault::{model_name, selection, wire_selection};
use super::{Fault, ModelName, WireError, check_size, check_size_or_none, name};
use crate::agent::v1;

/// Models of one agent.
pub const AGENT_MODELS_MAX: usize = 64;
/// A path in an order.
const PATH_BYTES_MAX: usize = 1024;
/// A code and a sentence.
const PROBLEM_BYTES_MAX: usize = 4 << 10;
/// Options in words.
const PART_BYTES_MAX: usize = 4 << 10;
/// Ranks of one machine.
const RANKS_MAX: usize = 256;
/// Patterns, and bytes of one.
const TENSORS_MAX: usize = 64;
const PATTERN_BYTES_MAX: usize = 512;
/// Users, or groups.
const PEERS_MAX: usize = 256;

/// Which model to load, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOrder {
    /// The model.
    pub model: ModelName,
    /// The release rule, where it is not the one that is named like the model.
    pub rule: Option<Name>,
    /// Which part of it.
    pub part: OrderedPart,
    /// A directory with sealed units, where they do not come from the host.
    pub ciphertext: Option<PathBuf>,
    /// Who may have it, where it is not whom the agent lets have models.
    pub readers: Option<Peers>,
}

/// What is ordered of a model: all of it, or what is named. Made by [`OrderedPart::new`] alone, so that nothing named never
/// stands for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderedPart {
    selection: Option<Selection>,
    ranks: Option<Ranks>,
    rank_dirs: bool,
    tensors: Vec<String>,
}

/// Users, and primary groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Users.
    pub uids: BTreeSet<u32>,
    /// Groups.
    pub gids: BTreeSet<u32>,
}

/// What becomes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentModelState {
    /// It is not there yet.
    Loading,
    /// Readers can have it.
    Ready,
    /// Its lease is lost; readers that have it keep it for a while.
    Draining,
    /// It was wiped, or never came.
    Gone,
}

/// A model of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentModel {
    /// Its name.
    pub model: ModelName,
    /// Where it stands.
    pub state: AgentModelState,
    /// Files that are shared.
    pub files: u32,
    /// Bytes in them.
    pub bytes: u64,
    /// Readers that hold it.
    pub readers: u32,
    /// Until the lease, or the memory, ends.
    pub seconds: u64,
    /// What is wrong; empty where nothing is.
    pub problem: String,
    /// What is held of it, in words.
    pub part: String,
    /// Who may have it, where it has a list of its own.
    pub allowed: Option<Peers>,
}

impl OrderedPart {
    /// All of a model.
    #[must_use]
    pub fn all() -> Self {
        Self { selection: Some(Selection::All), ranks: None, rank_dirs: false, tensors: Vec::new() }
    }

    /// What a selection, ranks and patterns of tensors' names say together, perhaps with a directory for each rank.
    ///
    /// # Errors
    /// `malformed-units`: nothing is named, or all of it and something beside that; `malformed-ranks`; `malformed-tensors`.
    pub fn new(
        selection: Option<Selection>,
        ranks: Option<Ranks>,
        rank_dirs: bool,
        tensors: Vec<String>,
    ) -> Result<Self, WireError> {
        let beside = ranks.is_some() || !tensors.is_empty();
        match &selection {
            None if !beside => return Err(WireError::new("malformed-units", Fault::Missing)),
            Some(Selection::All) if beside => return Err(WireError::new("malformed-units", Fault::Unexpected)),
            Some(_) | None => {}
        }
        if ranks.is_none() && rank_dirs {
            return Err(WireError::new("malformed-ranks", Fault::Missing));
        }
        check_size_or_none("malformed-tensors", tensors.len(), TENSORS_MAX)?;
        tensors.iter().try_for_each(|tensor| check_size("malformed-tensors", tensor.len(), PATTERN_BYTES_MAX))?;
        Ok(Self { selection, ranks, rank_dirs, tensors })
    }

    /// Units or groups, or all of it.
    pub fn selection(&self) -> Option<&Selection> {
        self.selection.as_ref()
    }

    /// Ranks.
    pub fn ranks(&self) -> Option<&Ranks> {
        self.ranks.as_ref()
    }

    /// Whether each rank has a directory of its own.
    pub fn rank_dirs(&self) -> bool {
        self.rank_dirs
    }

    /// Patterns of names.
    pub fn tensors(&self) -> &[String] {
        &self.tensors
    }
}

fn ranks(texts: &[String]) -> Result<Option<Ranks>, WireError> {
    const CODE: &str = "malformed-ranks";
    if texts.is_empty() {
        return Ok(None);
    }
    check_size(CODE, texts.len(), RANKS_MAX)?;
    let ranks = texts.iter().map(|text| text.parse()).collect::<Result<Vec<Rank>, _>>();
    let ranks = ranks.and_then(Ranks::try_from).map_err(|_| WireError::new(CODE, Fault::Value))?;
    Ok(Some(ranks))
}

impl TryFrom<v1::Peers> for Peers {
    type Error = WireError;

    fn try_from(peers: v1::Peers) -> Result<Self, WireError> {
        const CODE: &str = "malformed-readers";
        if peers.uids.is_empty() && peers.gids.is_empty() {
            return Err(WireError::new(CODE, Fault::Missing));
        }
        let set = |ids: Vec<u32>| {
            check_size_or_none(CODE, ids.len(), PEERS_MAX)?;
            // What stands for nobody would be everybody whom the kernel has no number for.
            if ids.contains(&u32::MAX) { Err(WireError::new(CODE, Fault::Value)) } else { Ok(BTreeSet::from_iter(ids)) }
        };
        Ok(Self { uids: set(peers.uids)?, gids: set(peers.gids)? })
    }
}

impl From<Peers> for v1::Peers {
    fn from(peers: Peers) -> Self {
        Self { uids: peers.uids.into_iter().collect(), gids: peers.gids.into_iter().collect() }
    }
}

impl TryFrom<v1::LoadModelRequest> for LoadOrder {
    type Error = WireError;

    fn try_from(request: v1::LoadModelRequest) -> Result<Self, WireError> {
        const CODE: &str = "malformed-ciphertext";
        let model = model_name(request.model, request.version)?;
        let rule = match request.rule.is_empty() {
            true => None,
            false => Some(name("malformed-rule", request.rule)?),
        };
        let selection = request.units.map(selection).transpose()?;
        let part = OrderedPart::new(selection, ranks(&request.ranks)?, request.rank_dirs, request.tensors)?;
        check_size_or_none(CODE, request.ciphertext.len(), PATH_BYTES_MAX)?;
        let ciphertext = (!request.ciphertext.is_empty()).then(|| PathBuf::from(request.ciphertext));
        if ciphertext.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(WireError::new(CODE, Fault::Value));
        }
        let readers = request.readers.map(Peers::try_from).transpose()?;
        Ok(Self { model, rule, part, ciphertext, readers })
    }
}

impl From<LoadOrder> for v1::LoadModelRequest {
    fn from(order: LoadOrder) -> Self {
        let OrderedPart { selection, ranks, rank_dirs, tensors } = order.part;
        Self {
            model: order.model.model.to_string(),
            version: order.model.version.to_string(),
            rule: order.rule.map(|rule| rule.to_string()).unwrap_or_default(),
            units: selection.map(wire_selection),
            ranks: ranks.iter().flat_map(Ranks::iter).map(|rank| rank.to_string()).collect(),
            rank_dirs,
            tensors,
            readers: order.readers.map(v1::Peers::from),
            ciphertext: order.ciphertext.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::UnloadModelRequest> for ModelName {
    type Error = WireError;

    fn try_from(request: v1::UnloadModelRequest) -> Result<Self, WireError> {
        model_name(request.model, request.version)
    }
}

impl From<ModelName> for v1::UnloadModelRequest {
    fn from(name: ModelName) -> Self {
        Self { model: name.model.to_string(), version: name.version.to_string() }
    }
}

impl AgentModel {
    /// The models of an answer.
    ///
    /// # Errors
    /// `malformed-models` where there are too many, and what is wrong with one.
    pub fn all(models: Vec<v1::Model>) -> Result<Vec<Self>, WireError> {
        if !models.is_empty() {
            check_size("malformed-models", models.len(), AGENT_MODELS_MAX)?;
        }
        models.into_iter().map(Self::try_from).collect()
    }
}

impl TryFrom<v1::Model> for AgentModel {
    type Error = WireError;

    fn try_from(model: v1::Model) -> Result<Self, WireError> {
        let state = match model.state() {
            v1::ModelState::Loading => AgentModelState::Loading,
            v1::ModelState::Ready => AgentModelState::Ready,
            v1::ModelState::Draining => AgentModelState::Draining,
            v1::ModelState::Gone => AgentModelState::Gone,
            v1::ModelState::Unspecified => return Err(WireError::new("malformed-state", Fault::Value)),
        };
        check_size_or_none("malformed-problem", model.problem.len(), PROBLEM_BYTES_MAX)?;
        check_size_or_none("malformed-part", model.part.len(), PART_BYTES_MAX)?;
        Ok(Self {
            model: model_name(model.model, model.version)?,
            state,
            files: model.files,
            bytes: model.bytes,
            readers: model.readers,
            seconds: model.seconds,
            problem: model.problem,
            part: model.part,
            allowed: model.allowed.map(Peers::try_from).transpose()?,
        })
    }
}

impl From<AgentModel> for v1::Model {
    fn from(model: AgentModel) -> Self {
        let state = match model.state {
            AgentModelState::Loading => v1::ModelState::Loading,
            AgentModelState::Ready => v1::ModelState::Ready,
            AgentModelState::Draining => v1::ModelState::Draining,
            AgentModelState::Gone => v1::ModelState::Gone,
        };
        let mut problem = model.problem;
        problem.truncate(problem.floor_char_boundary(PROBLEM_BYTES_MAX));
        let mut part = model.part;
        part.truncate(part.floor_char_boundary(PART_BYTES_MAX));
        Self {
            model: model.model.model.to_string(),
            version: model.model.version.to_string(),
            state: state.into(),
            files: model.files,
            bytes: model.bytes,
            readers: model.readers,
            seconds: model.seconds,
            problem,
            part,
            allowed: model.allowed.map(v1::Peers::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::unit_selection::Selection as Selected;

    fn order() -> LoadOrder {
        LoadOrder {
            model: ModelName { model: "minilm".parse().unwrap(), version: "1".parse().unwrap() },
            rule: Some("serve".parse().unwrap()),
            part: OrderedPart::new(
                Some(Selection::Units(vec![0, 3])),
                ranks(&texts(&["0/4", "1/4"])).unwrap(),
                true,
                texts(&["*.q"]),
            )
            .unwrap(),
            ciphertext: Some("/srv/sealed".into()),
            readers: Some(peers()),
        }
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    fn peers() -> Peers {
        Peers { uids: BTreeSet::from([1001, 1003]), gids: BTreeSet::from([2002]) }
    }

    fn refused(change: impl FnOnce(&mut v1::LoadModelRequest)) -> &'static str {
        let mut request = v1::LoadModelRequest::from(order());
        change(&mut request);
        LoadOrder::try_from(request).unwrap_err().code()
    }

    #[test]
    fn an_order_comes_back_as_it_went_and_is_held_to_its_bounds() {
        assert_eq!(LoadOrder::try_from(v1::LoadModelRequest::from(order())), Ok(order()));
        let least = LoadOrder { rule: None, part: OrderedPart::all(), ciphertext: None, readers: None, ..order() };
        assert_eq!(LoadOrder::try_from(v1::LoadModelRequest::from(least.clone())), Ok(least));
        assert_eq!(refused(|order| order.model = "../x".to_owned()), "malformed-model");
        assert_eq!(refused(|order| order.version.clear()), "malformed-version");
        assert_eq!(refused(|order| order.rule = "A".to_owned()), "malformed-rule");
        // Nothing that is empty stands for everything.
        let of = |selection| Some(crate::v1::UnitSelection { selection });
        let (groups, units) = (crate::v1::GroupList::default(), crate::v1::UnitList::default());
        let empty = [
            None,
            of(None),
            of(Some(Selected::All(false))),
            of(Some(Selected::Groups(groups))),
            of(Some(Selected::Units(units))),
        ];
        for units in empty {
            let alone = |order: &mut v1::LoadModelRequest| {
                order.units = units;
                (order.ranks, order.rank_dirs, order.tensors) = (Vec::new(), false, Vec::new());
            };
            assert_eq!(refused(alone), "malformed-units");
        }
        // All of it and something beside that, which would look as if it were less.
        assert_eq!(refused(|order| order.units = of(Some(Selected::All(true)))), "malformed-units");
        for bad in [["0/4", "0/4"], ["0/4", "1/5"], ["0/4", "4/4"]] {
            assert_eq!(refused(|order| order.ranks = texts(&bad)), "malformed-ranks", "{bad:?}");
        }
        assert_eq!(refused(|order| order.ranks = vec!["0/4".to_owned(); RANKS_MAX + 1]), "malformed-ranks");
        assert_eq!(refused(|order| order.ranks.clear()), "malformed-ranks", "directories of no rank");
        assert_eq!(refused(|order| order.tensors = vec!["*".to_owned(); TENSORS_MAX + 1]), "malformed-tensors");
        for bad in [String::new(), "x".repeat(PATTERN_BYTES_MAX + 1)] {
            assert_eq!(refused(|order| order.tensors = vec![bad]), "malformed-tensors");
        }
        for bad in [Vec::new(), vec![u32::MAX], vec![1; PEERS_MAX + 1]] {
            let readers = v1::Peers { uids: bad, gids: Vec::new() };
            assert_eq!(refused(|order| order.readers = Some(readers)), "malformed-readers");
        }
        assert_eq!(refused(|order| order.ciphertext = "relative".to_owned()), "malformed-ciphertext");
        assert_eq!(refused(|order| order.ciphertext = format!("/{}", "x".repeat(1024))), "malformed-ciphertext");
    }

    #[test]
    fn a_status_comes_back_as_it_went_and_is_held_to_its_bounds() {
        let states =
            [AgentModelState::Loading, AgentModelState::Ready, AgentModelState::Draining, AgentModelState::Gone];
        for state in states {
            let model = AgentModel {
                model: order().model,
                state,
                files: 3,
                bytes: u64::MAX,
                readers: 2,
                seconds: 60,
                problem: "x".repeat(PROBLEM_BYTES_MAX),
                part: "y".repeat(PART_BYTES_MAX),
                allowed: Some(peers()),
            };
            assert_eq!(AgentModel::all(vec![model.clone().into()]), Ok(vec![model.clone()]));
            let unspecified = v1::Model { state: 0, ..model.clone().into() };
            assert_eq!(AgentModel::try_from(unspecified).unwrap_err().code(), "malformed-state");
            let long = v1::Model { problem: "x".repeat(PROBLEM_BYTES_MAX + 1), ..model.clone().into() };
            assert_eq!(AgentModel::try_from(long).unwrap_err().code(), "malformed-problem");
            let long = v1::Model { part: "x".repeat(PART_BYTES_MAX + 1), ..model.clone().into() };
            assert_eq!(AgentModel::try_from(long).unwrap_err().code(), "malformed-part");
            let many = vec![v1::Model::from(model); AGENT_MODELS_MAX + 1];
            assert_eq!(AgentModel::all(many).unwrap_err().code(), "malformed-models");
        }
        assert_eq!(AgentModel::all(Vec::new()), Ok(Vec::new()));
    }
}
