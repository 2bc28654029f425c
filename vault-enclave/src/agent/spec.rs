//! Which models a command of `run` gets, and where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ledger::manifest::RankError;
use ledger::names::{Name, NameError};

use super::fixed::FixedDir;
use super::follow::followed;
use super::options::{ArgumentError, ModelArgs, ModelRef, Request};
use super::part::PartOptions;
use crate::failure::{Failure, Kind};

/// One model of `run`: `MODEL@VERSION[=PATH][,OPTION]…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    model: ModelRef,
    at: Option<PathBuf>,
    follow: Option<PathBuf>,
    rule: Option<Name>,
    part: PartOptions,
}

/// What is wrong with one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpecError {
    /// The model.
    Model(ArgumentError),
    /// A name of a rule or group that is none.
    Name(NameError),
    /// Units.
    Units(ArgumentError),
    /// A rank.
    Rank(RankError),
    /// No `KEY=VALUE` with a key that is known, or a key that comes twice.
    Key(String),
}

/// One model that the command is to have.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) request: Request,
    /// Where the command sees it.
    pub(super) at: FixedDir,
    /// A file that names the version to use.
    pub(super) follow: Option<PathBuf>,
}

impl ModelSpec {
    pub(super) fn new(model: ModelRef, at: Option<PathBuf>, follow: Option<PathBuf>) -> Self {
        Self { model, at, follow, rule: None, part: PartOptions::default() }
    }

    fn set(&mut self, part: &str) -> Result<(), SpecError> {
        if self.part.set(part)? {
            return Ok(());
        }
        let unknown = || SpecError::Key(part.to_owned());
        let (key, value) = part.split_once('=').ok_or_else(unknown)?;
        match key {
            "rule" if self.rule.is_none() => {
                self.rule = Some(Name::try_from(value.to_owned()).map_err(SpecError::Name)?);
            }
            "follow" if self.follow.is_none() && !value.is_empty() => self.follow = Some(value.into()),
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn wanted(&self, args: &ModelArgs) -> Result<Wanted, Failure> {
        let mut request = args.request(&self.model)?;
        if let Some(rule) = &self.rule {
            request.rule = rule.clone();
        }
        if !self.part.is_empty() {
            request.part = self.part.part()?;
        }
        if let Some(file) = &self.follow
            && file.exists()
        {
            request.model.version = followed(file, &request.model.model)?;
        }
        let at = self.at.clone().unwrap_or_else(|| PathBuf::from("/models").join(request.model.model.as_str()));
        Ok(Wanted { request, at: FixedDir::new(&at)?, follow: self.follow.clone() })
    }
}

/// Reads the files and makes the directories that are named.
///
/// # Errors
/// `paths-overlap`, `one-model-only`, or what is wrong with a file or directory.
pub(super) fn wanted(specs: &[ModelSpec], args: &ModelArgs) -> Result<Vec<Wanted>, Failure> {
    if let Some(option) = args.option_of_one_model()
        && (specs.len() > 1 || specs.iter().any(|spec| spec.follow.is_some()))
    {
        return Err(one_model_only(option));
    }
    let wanted = specs.iter().map(|spec| spec.wanted(args)).collect::<Result<Vec<_>, _>>()?;
    let paths: Vec<&Path> = wanted.iter().map(|wanted| wanted.at.path()).collect();
    if let Some((one, other)) = overlap(&paths) {
        let message = format!("{} and {} are not apart", one.display(), other.display());
        return Err(Failure::new(Kind::Usage, "paths-overlap", message)
            .next("give each model a place of its own: --model MODEL@VERSION=PATH"));
    }
    Ok(wanted)
}

fn one_model_only(option: &str) -> Failure {
    let next = match option {
        "--source" | "--ciphertext" => {
            "leave it out: the units come from the vault's host; --cache serves several models"
        }
        _ => "with several models say --model MODEL@VERSION,group=GROUP; leave it out where a version is followed",
    };
    Failure::new(Kind::Usage, "one-model-only", format!("{option} is of one model and one version of it")).next(next)
}

/// Two of these of which one is, or lies in, the other.
fn overlap<'a>(paths: &[&'a Path]) -> Option<(&'a Path, &'a Path)> {
    let pairs =
        paths.iter().enumerate().flat_map(|(index, one)| paths[index + 1..].iter().map(move |other| (one, other)));
    pairs.map(|(one, other)| (*one, *other)).find(|(one, other)| one.starts_with(other) || other.starts_with(one))
}

impl FromStr for ModelSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let (model, at) = first.split_once('=').map_or((first, None), |(model, at)| (model, Some(at)));
        if at == Some("") {
            return Err(SpecError::Key(first.to_owned()));
        }
        let mut spec = Self::new(model.parse().map_err(SpecError::Model)?, at.map(PathBuf::from), None);
        parts.try_for_each(|part| spec.set(part))?;
        Ok(spec)
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(error) | Self::Units(error) => error.fmt(f),
            Self::Rank(error) => error.fmt(f),
            Self::Name(error) => error.fmt(f),
            Self::Key(part) => {
                write!(
                    f,
                    "{part:?}: want MODEL@VERSION, then options, each after a comma: group=GROUP, units=LIST, rank=R/N, \
                     rank-dirs, tensor=PATTERN; `--help` says which others there are"
                )
            }
        }
    }
}

impl std::error::Error for SpecError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_a_place_and_options_of_its_own() {
        let spec: ModelSpec = "llama@3=/srv/llama,rule=big,group=layer.0,group=layer.1,follow=/etc/v".parse().unwrap();
        let mut expected = ModelSpec::new("llama@3".parse().unwrap(), Some("/srv/llama".into()), Some("/etc/v".into()));
        expected.rule = Some(Name::try_from("big".to_owned()).unwrap());
        for option in ["group=layer.0", "group=layer.1"] {
            assert_eq!(expected.part.set(option), Ok(true));
        }
        assert_eq!(spec, expected);
        assert_eq!("lora@1".parse(), Ok(ModelSpec::new("lora@1".parse().unwrap(), None, None)));
    }

    #[test]
    fn what_is_no_option_is_refused() {
        assert_eq!("llama".parse::<ModelSpec>(), Err(SpecError::Model(ArgumentError::NoVersion)));
        assert!(matches!("llama@3,rule=../x".parse::<ModelSpec>(), Err(SpecError::Name(_))));
        assert_eq!("llama@3,rank=4/4".parse::<ModelSpec>(), Err(SpecError::Rank(RankError::Malformed)));
        assert_eq!("llama@3,units=4,units=3".parse::<ModelSpec>(), Err(SpecError::Units(ArgumentError::Order)));
        for bad in [
            "a@1=",
            "a@1,x=1",
            "a@1,rule",
            "a@1,",
            "a@1,rule=b,rule=c",
            "a@1,follow=",
            "a@1=/x,y",
            "a@1,rank-dirs=1",
            "a@1,tensor=",
        ] {
            assert!(matches!(bad.parse::<ModelSpec>(), Err(SpecError::Key(_))), "{bad}");
        }
    }

    #[test]
    fn an_option_of_one_model_is_refused_with_what_there_is_for_several() {
        let next = |option: &str| one_model_only(option).next_step().unwrap().to_owned();
        for place in ["--source", "--ciphertext"] {
            assert!(next(place).contains("--cache serves several models"), "{place}");
        }
        assert!(next("--group").contains("--model MODEL@VERSION,group=GROUP"));
    }

    #[test]
    fn places_are_apart() {
        let paths =
            |paths: &[&'static str]| overlap(&paths.iter().map(|path| Path::new(*path)).collect::<Vec<_>>()).is_some();
        assert!(!paths(&["/models/a", "/models/ab", "/models/b"]));
        assert!(paths(&["/models/a", "/b", "/models/a"]));
        assert!(paths(&["/models/a", "/models"]));
    }
}
