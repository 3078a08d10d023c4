//! Names against patterns in which `*` matches anything.

/// True when `name` matches one of the patterns that `|` separates.
pub(crate) fn matches_any(patterns: &str, name: &str) -> bool {
    patterns.split('|').any(|pattern| matches(pattern.trim(), name))
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(tail) = name.strip_prefix(head) else { return false };
    tail.char_indices().map(|(at, _)| at).chain([tail.len()]).any(|at| matches(rest, &tail[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_anything_and_bars_separate() {
        assert!(matches_any("lm_head*|*embed_tokens*", "model.embed_tokens.weight"));
        assert!(matches_any("lm_head*|*embed_tokens*", "lm_head.weight"));
        assert!(!matches_any("lm_head*", "model.lm_head"));
        assert!(!matches_any("", "x"));
        assert!(matches_any("*", ""));
    }
}
