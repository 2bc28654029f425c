//! What passes over the control socket of an agent.

use std::path::PathBuf;

use ledger::manifest::Selection;
use ledger::names::Name;

use super::vault::{model_name, selection, wire_selection};
use super::{Fault, ModelName, WireError, check_size, check_size_or_none, name, present};
use crate::agent::v1;

/// Models of one agent.
pub const AGENT_MODELS_MAX: usize = 64;
/// A path in an order.
const PATH_BYTES_MAX: usize = 1024;
/// A code and a sentence.
const PROBLEM_BYTES_MAX: usize = 4 << 10;

/// Which model to load, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOrder {
    /// The model.
    pub model: ModelName,
    /// The release rule, where it is not the one that is named like the model.
    pub rule: Option<Name>,
    /// Which units.
    pub selection: Selection,
    /// A directory with sealed units, where they do not come from the host.
    pub ciphertext: Option<PathBuf>,
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
        let selection = selection(present("malformed-units", request.units)?)?;
        check_size_or_none(CODE, request.ciphertext.len(), PATH_BYTES_MAX)?;
        let ciphertext = (!request.ciphertext.is_empty()).then(|| PathBuf::from(request.ciphertext));
        if ciphertext.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(WireError::new(CODE, Fault::Value));
        }
        Ok(Self { model, rule, selection, ciphertext })
    }
}

impl From<LoadOrder> for v1::LoadModelRequest {
    fn from(order: LoadOrder) -> Self {
        Self {
            model: order.model.model.to_string(),
            version: order.model.version.to_string(),
            rule: order.rule.map(|rule| rule.to_string()).unwrap_or_default(),
            units: Some(wire_selection(order.selection)),
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
        Ok(Self {
            model: model_name(model.model, model.version)?,
            state,
            files: model.files,
            bytes: model.bytes,
            readers: model.readers,
            seconds: model.seconds,
            problem: model.problem,
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
        Self {
            model: model.model.model.to_string(),
            version: model.model.version.to_string(),
            state: state.into(),
            files: model.files,
            bytes: model.bytes,
            readers: model.readers,
            seconds: model.seconds,
            problem,
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
            selection: Selection::Units(vec![0, 3]),
            ciphertext: Some("/srv/sealed".into()),
        }
    }

    fn refused(change: impl FnOnce(&mut v1::LoadModelRequest)) -> &'static str {
        let mut request = v1::LoadModelRequest::from(order());
        change(&mut request);
        LoadOrder::try_from(request).unwrap_err().code()
    }

    #[test]
    fn an_order_comes_back_as_it_went_and_is_held_to_its_bounds() {
        assert_eq!(LoadOrder::try_from(v1::LoadModelRequest::from(order())), Ok(order()));
        let least = LoadOrder { rule: None, selection: Selection::All, ciphertext: None, ..order() };
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
            assert_eq!(refused(|order| order.units = units), "malformed-units");
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
            };
            assert_eq!(AgentModel::all(vec![model.clone().into()]), Ok(vec![model.clone()]));
            let unspecified = v1::Model { state: 0, ..model.clone().into() };
            assert_eq!(AgentModel::try_from(unspecified).unwrap_err().code(), "malformed-state");
            let long = v1::Model { problem: "x".repeat(PROBLEM_BYTES_MAX + 1), ..model.clone().into() };
            assert_eq!(AgentModel::try_from(long).unwrap_err().code(), "malformed-problem");
            let many = vec![v1::Model::from(model); AGENT_MODELS_MAX + 1];
            assert_eq!(AgentModel::all(many).unwrap_err().code(), "malformed-models");
        }
        assert_eq!(AgentModel::all(Vec::new()), Ok(Vec::new()));
    }
}
