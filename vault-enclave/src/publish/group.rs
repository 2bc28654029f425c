//! Which group a tensor, or a whole file, belongs to.

use ledger::safetensors::layer_group;
use regex::Regex;

use crate::failure::{Failure, Kind};

/// Gives a tensor's group by its name.
pub(super) type Label = Box<dyn Fn(&str) -> String>;
/// Gives the group of a file that is one group as a whole, by its path.
pub(super) type FileLabel = Box<dyn Fn(&str) -> Option<String>>;

/// `[NAME=]REGEX`: what it matches is in the group NAME, in which `$1` is the first capture; without a NAME the first
/// capture is the group.
struct Pattern {
    name: String,
    regex: Regex,
}

/// By layer, or by the first of these expressions that matches a tensor's name; what none of them matches is in `other`.
pub(super) fn label(expressions: &[String]) -> Result<Label, Failure> {
    if expressions.is_empty() {
        return Ok(Box::new(layer_group));
    }
    let patterns = patterns("--group", expressions)?;
    Ok(Box::new(move |tensor| group_of(&patterns, tensor).unwrap_or_else(|| "other".to_owned())))
}

/// By the first of these expressions that matches a file's path. What it matches is not looked into.
pub(super) fn file_label(expressions: &[String]) -> Result<FileLabel, Failure> {
    let patterns = patterns("--file-group", expressions)?;
    Ok(Box::new(move |path| group_of(&patterns, path)))
}

fn patterns(option: &str, expressions: &[String]) -> Result<Vec<Pattern>, Failure> {
    expressions.iter().map(|expression| Pattern::parse(option, expression)).collect()
}

/// A capture that is empty, or did not take part, names no group.
fn group_of(patterns: &[Pattern], text: &str) -> Option<String> {
    patterns.iter().find_map(|pattern| {
        let captures = pattern.regex.captures(text)?;
        let mut group = String::new();
        captures.expand(&pattern.name, &mut group);
        (!group.is_empty()).then_some(group)
    })
}

impl Pattern {
    fn parse(option: &str, expression: &str) -> Result<Self, Failure> {
        let refused = |why: String| {
            Failure::new(Kind::Usage, "group-regex", format!("{option} {expression:?}: {why}")).next(format!(
                "give a regular expression with a capture, such as {option} '(experts\\.\\d+)', or a name before it: \
                 {option} 'stage.0=layers\\.[0-7]\\.'"
            ))
        };
        let is_name = |text: &&str| {
            !text.is_empty() && text.chars().all(|char| char.is_ascii_alphanumeric() || "._-${}".contains(char))
        };
        let named = expression.split_once('=').filter(|(name, _)| is_name(name));
        let (name, regex) = named.unwrap_or(("$1", expression));
        let regex = Regex::new(regex).map_err(|error| refused(error.to_string()))?;
        if name.contains('$') && regex.captures_len() < 2 {
            return Err(refused("it captures nothing, and the first capture names the group".to_owned()));
        }
        Ok(Self { name: name.to_owned(), regex })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(expressions: &[&str]) -> Label {
        label(&expressions.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn without_an_expression_layers_are_groups() {
        assert_eq!(by(&[])("model.layers.3.w"), "layer.3");
    }

    #[test]
    fn the_first_capture_is_the_group_and_the_rest_is_other() {
        let label = by(&[r"(experts\.\d+)|(router)"]);
        assert_eq!(label("layers.0.experts.12.w"), "experts.12");
        assert_eq!(label("layers.0.router"), "other");
        assert_eq!(label("embed"), "other");
    }

    #[test]
    fn a_name_gathers_what_its_expression_matches_and_the_first_of_several_counts() {
        let label = by(&[r"stage.0=layers\.[0-7]\.|embed", r"stage.1=layers\.\d+\.", r"tail.$1=^(norm|lm_head)"]);
        let groups = ["m.layers.7.q", "m.layers.8.q", "embed", "lm_head.weight", "rest"].map(label);
        assert_eq!(groups, ["stage.0", "stage.1", "stage.0", "tail.lm_head", "other"]);
    }

    #[test]
    fn files_are_groups_only_where_an_expression_says_so() {
        let label = |expressions: &[&str]| {
            file_label(&expressions.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(label(&[])("config.json"), None);
        let label = label(&["lora.$1=^adapters/([a-z]+)/", r"model-(rank-\d+)-part-"]);
        assert_eq!(label("adapters/acme/adapter_config.json").as_deref(), Some("lora.acme"));
        assert_eq!(label("model-rank-3-part-0.safetensors").as_deref(), Some("rank-3"));
        assert_eq!(label("config.json"), None);
    }

    #[test]
    fn an_expression_that_cannot_name_groups_is_refused() {
        for expression in ["(", "layers", "stage.$1=layers", "stage.0=("] {
            for refused in [label(&[expression.to_owned()]).err(), file_label(&[expression.to_owned()]).err()] {
                assert_eq!(refused.map(|failure| failure.code().to_owned()).as_deref(), Some("group-regex"));
            }
        }
    }
}
