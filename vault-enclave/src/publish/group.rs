//! Which group a tensor belongs to.

use ledger::safetensors::layer_group;
use regex::Regex;

use crate::failure::{Failure, Kind};

/// Gives a tensor's group by its name.
pub(super) type Label = Box<dyn Fn(&str) -> String>;

/// By layer, or by the first capture of `--group`; a tensor that the expression does not match is in `other`.
pub(super) fn label(expression: Option<&str>) -> Result<Label, Failure> {
    let Some(expression) = expression else { return Ok(Box::new(layer_group)) };
    let refused = |why: String| {
        Failure::new(Kind::Usage, "group-regex", format!("--group {expression:?}: {why}"))
            .next("give a regular expression with a capture, such as --group '(experts\\.\\d+)'")
    };
    let regex = Regex::new(expression).map_err(|error| refused(error.to_string()))?;
    if regex.captures_len() < 2 {
        return Err(refused("it captures nothing, and the first capture is the group".to_owned()));
    }
    Ok(Box::new(move |tensor| {
        let capture =
            regex.captures(tensor).and_then(|captures| captures.get(1).map(|found| found.as_str().to_owned()));
        capture.filter(|group| !group.is_empty()).unwrap_or_else(|| "other".to_owned())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_expression_layers_are_groups() {
        assert_eq!(label(None).unwrap()("model.layers.3.w"), "layer.3");
    }

    #[test]
    fn the_first_capture_is_the_group_and_the_rest_is_other() {
        let label = label(Some(r"(experts\.\d+)|(router)")).unwrap();
        assert_eq!(label("layers.0.experts.12.w"), "experts.12");
        assert_eq!(label("layers.0.router"), "other");
        assert_eq!(label("embed"), "other");
    }

    #[test]
    fn an_expression_that_cannot_name_groups_is_refused() {
        for expression in ["(", "layers"] {
            assert_eq!(
                label(Some(expression)).err().map(|failure| failure.code().to_owned()).as_deref(),
                Some("group-regex")
            );
        }
    }
}
