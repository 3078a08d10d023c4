//! Names against patterns in which `*` matches anything.

/// True when one of the patterns, which `|` separates, matches `name`, and the first that does has no `!` before it.
pub(crate) fn matches_any(patterns: &str, name: &str) -> bool {
    let verdict = |pattern: &str| {
        let (pattern, verdict) = pattern.strip_prefix('!').map_or((pattern, true), |not| (not, false));
        matches(pattern.trim(), name).then_some(verdict)
    };
    patterns.split('|').map(str::trim).find_map(verdict).unwrap_or(false)
}

/// What lies between stars is found in order, each as early as it occurs: if that fails, nothing else matches.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut tail) = name.strip_prefix(head) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        let Some(at) = tail.find(part) else { return false };
        tail = &tail[at + part.len()..];
    }
    tail.ends_with(last)
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

    #[test]
    fn parts_are_found_in_order_and_do_not_overlap() {
        assert!(matches("*.3.*down*", "model.layers.3.mlp.down_proj.weight"));
        assert!(!matches("*down*.3.*", "model.layers.3.mlp.down_proj.weight"));
        assert!(matches("a*bb*b", "abbb") && !matches("a*bb*b", "abb"));
        assert!(!matches("ab*ba", "aba"));
        assert!(!matches(&"*a".repeat(40), &"a".repeat(39)));
    }

    #[test]
    fn the_first_pattern_that_matches_decides() {
        let keep = "!*.3.down|*.down";
        assert!(matches_any(keep, "layers.2.down"));
        assert!(!matches_any(keep, "layers.3.down"));
        assert!(matches_any("*.down|!*.3.down", "layers.3.down"));
    }
}
