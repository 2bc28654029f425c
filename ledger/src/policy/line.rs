//! Where a policy says something.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The line of a policy's text, from 1 up, that has this key, such as `release.llama.pcrs.11`: that of the nearest section
/// or key around it where it is not spelled out. `None` where the text has none of it, or is no TOML.
pub fn line_of(text: &str, key: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let offset = deepest(table.get_ref(), key)?;
    Some(text.get(..offset)?.matches('\n').count() + 1)
}

/// Names have dots of their own, so the longest name that fits comes first.
fn deepest(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let mut fitting: Vec<(usize, &str, &Spanned<DeValue<'_>>)> = table
        .iter()
        .filter_map(|(name, value)| {
            let rest = key.strip_prefix(name.get_ref().as_ref())?;
            let rest = if rest.is_empty() { rest } else { rest.strip_prefix('.')? };
            Some((name.span().start, rest, value))
        })
        .collect();
    fitting.sort_by_key(|(_, rest, _)| rest.len());
    let (start, rest, value) = fitting.into_iter().next()?;
    match value.get_ref() {
        DeValue::Table(inner) if !rest.is_empty() => Some(deepest(inner, rest).unwrap_or(start)),
        _ => Some(start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "format = 1\n\n[release.a]\nlease = \"15m\"\npcrs = { 0 = [\"00\"],\n  11 = [\"11\"] }\n\n\
                        [release.\"a.b\"]\neks = \"any\"\n[release.\"a.b\".pcrs]\n0 = [\"22\"]\n";

    #[test]
    fn a_key_is_found_where_it_stands_or_where_it_would() {
        let line = |key| line_of(TEXT, key);
        assert_eq!(line("format"), Some(1));
        assert_eq!(line("release.a.lease"), Some(4));
        assert_eq!(line("release.a.pcrs.11"), Some(6));
        // Not there: the section that would have it.
        assert_eq!((line("release.a.pcrs.7"), line("release.a.max_leases")), (Some(5), Some(3)));
        assert_eq!((line("release.a.b.eks"), line("release.a.b.pcrs.0")), (Some(9), Some(11)));
        assert_eq!((line("keeper.pcrs.0"), line("rel")), (None, None));
        assert_eq!(line_of("= no TOML", "format"), None);
    }
}
