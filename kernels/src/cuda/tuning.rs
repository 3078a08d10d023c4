//! What a GPU was found to be quickest with, in place of what the cost models say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cost_fp8::{self, Path, Way, paths};
use super::{Linear, LinearConfig, LinearFp8, LinearFp8Config, Unsupported, cost};

/// How a product is done, without what a model thinks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Weights are decoded while they are multiplied.
    Records(LinearConfig),
    /// Weights are decoded into a workspace before.
    Workspace(LinearFp8Config),
}

impl Method {
    /// Whether there is such a kernel.
    pub fn check(&self) -> Result<(), Unsupported> {
        match self {
            Method::Records(config) => config.check(),
            Method::Workspace(config) => config.check(),
        }
    }
}

impl From<Way> for Method {
    fn from(way: Way) -> Self {
        match way {
            Way::Records(config, _) => Method::Records(config),
            Way::Workspace(config, ..) => Method::Workspace(config),
        }
    }
}

/// The method for a number of tokens, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The fewest tokens.
    pub from: usize,
    /// The most tokens; none where there is no limit.
    pub to: Option<usize>,
    /// The method.
    pub method: Method,
    /// In a sentence.
    pub reason: String,
}

/// The quickest of the methods that were tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Winner {
    /// The tokens that it was measured with: the most that it is for, but for the last of a product, which is for more, too.
    pub tokens: usize,
    /// The method.
    pub method: Method,
    /// Seconds that it took.
    pub seconds: f64,
    /// Seconds that the model's choice took.
    pub model: f64,
    /// How many methods were tried.
    pub tried: usize,
}

/// Measurements of products, to be stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// The GPU.
    pub device: String,
    /// Winners by product, as [`Linear`] prints itself, and by rising numbers of tokens.
    pub products: BTreeMap<String, Vec<Winner>>,
}

impl Tuning {
    /// The methods of a product by rising numbers of tokens: measured where it was, the cost models' otherwise.
    pub fn choose(&self, linear: &Linear) -> Vec<Chosen> {
        match self.products.get(&linear.to_string()) {
            Some(winners) => self.measured(winners),
            None => paths(linear).iter().map(modelled).collect(),
        }
    }

    fn measured(&self, winners: &[Winner]) -> Vec<Chosen> {
        let mut chosen: Vec<Chosen> = vec![];
        for (n, winner) in winners.iter().enumerate() {
            let from = chosen.last().and_then(|last| last.to).map_or(1, |last| last + 1);
            let to = (n + 1 < winners.len()).then_some(winner.tokens);
            let (method, reason) = (winner.method, self.reason(winner));
            match chosen.last_mut() {
                Some(last) if last.method == method => (last.to, last.reason) = (to, reason),
                _ => chosen.push(Chosen { from, to, method, reason }),
            }
        }
        chosen
    }

    fn reason(&self, winner: &Winner) -> String {
        let micro = |seconds: f64| format!("{:.1} µs", seconds * 1e6);
        format!(
            "the quickest of {} on {}: {} for {} tokens, {} as the cost model has it",
            winner.tried,
            self.device,
            micro(winner.seconds),
            winner.tokens,
            micro(winner.model)
        )
    }

    /// Reads what [`Tuning::to_json`] writes, and checks it.
    pub fn parse(json: &str) -> Result<Self, String> {
        let tuning: Tuning = serde_json::from_str(json).map_err(|e| e.to_string())?;
        tuning.check()?;
        Ok(tuning)
    }

    /// As JSON, the same bytes for the same content.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("strings and numbers have a JSON form");
        text + "\n"
    }

    /// Whether this says something useful: numbers of tokens rise, methods exist, and times are times.
    pub fn check(&self) -> Result<(), String> {
        for (product, winners) in &self.products {
            let rises = winners.first().is_some_and(|first| first.tokens > 0)
                && winners.is_sorted_by(|a, b| a.tokens < b.tokens);
            if !rises {
                return Err(format!("{product}: numbers of tokens do not rise from 1 on"));
            }
            if let Some(refused) = winners.iter().find_map(|winner| winner.method.check().err()) {
                return Err(format!("{product}: {refused}"));
            }
            if !winners.iter().all(|winner| winner.seconds > 0.0 && winner.seconds.is_finite()) {
                return Err(format!("{product}: times that are none"));
            }
        }
        Ok(())
    }
}

fn modelled(path: &Path) -> Chosen {
    Chosen { from: path.from, to: path.to, method: path.way.into(), reason: path.reason() }
}

/// At most `most` methods for so many tokens: what the cost models choose, what they find quickest of the other way, since models
/// of two kernels err apart, then what they find quickest.
pub fn candidates(linear: &Linear, tokens: usize, most: usize) -> Vec<Method> {
    let records = cost::candidates(linear, tokens)
        .map(|c| (Method::Records(c), cost::estimate(linear, &c, tokens).seconds));
    let decoded = LinearFp8::from(*linear);
    let before = cost_fp8::decode_seconds(linear);
    let workspace = cost_fp8::candidates(&decoded)
        .map(|c| (Method::Workspace(c), before + cost_fp8::estimate(&decoded, &c, tokens).seconds));
    let mut all: Vec<(Method, f64)> = records.chain(workspace).collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let holds = |path: &Path| path.from <= tokens && path.to.is_none_or(|to| tokens <= to);
    let first: Option<Method> = paths(linear).into_iter().find(holds).map(|path| path.way.into());
    let decoded = |method: &Method| matches!(method, Method::Workspace(_));
    let other =
        all.iter().map(|(method, _)| *method).find(|m| first.is_none_or(|f| decoded(&f) != decoded(m)));
    let others = all.into_iter().map(|(method, _)| method);
    let others = others.filter(|method| Some(*method) != first && Some(*method) != other);
    first.into_iter().chain(other).chain(others).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up() -> Linear {
        Linear::plain(28672, 4096, 128)
    }

    fn winner(tokens: usize, method: Method) -> Winner {
        Winner { tokens, method, seconds: 2e-6, model: 3e-6, tried: 4 }
    }

    #[test]
    fn what_was_not_measured_is_chosen_by_the_models() {
        let chosen = Tuning::default().choose(&up());
        assert_eq!(chosen.len(), paths(&up()).len());
        assert!(chosen[0].reason.contains("unmeasured"));
        assert_eq!(chosen.last().unwrap().to, None);
    }

    #[test]
    fn winners_are_for_the_tokens_up_to_theirs_and_neighbours_that_agree_are_one() {
        let [a, b] = [16, 256].map(|tokens| candidates(&up(), tokens, 1)[0]);
        let winners = vec![winner(8, a), winner(64, a), winner(512, b)];
        let products = [(up().to_string(), winners)].into();
        let tuning = Tuning { device: "a GPU".into(), products };
        tuning.check().unwrap();
        let chosen = tuning.choose(&up());
        let ranges: Vec<_> = chosen.iter().map(|c| (c.from, c.to, c.method)).collect();
        assert_eq!(ranges, [(1, Some(64), a), (65, None, b)]);
        assert_eq!(
            chosen[0].reason,
            "the quickest of 4 on a GPU: 2.0 µs for 64 tokens, 3.0 µs as the cost model has it"
        );
        let text = serde_json::to_string(&tuning).unwrap();
        assert_eq!(serde_json::from_str::<Tuning>(&text).unwrap(), tuning);
    }

    #[test]
    fn tables_that_are_empty_or_go_back_are_refused() {
        let method = candidates(&up(), 16, 1)[0];
        for ends in [&[][..], &[8, 8], &[16, 8], &[0, 8]] {
            let winners = ends.iter().map(|to| winner(*to, method)).collect();
            let tuning = Tuning { device: String::new(), products: [("p".to_string(), winners)].into() };
            assert!(tuning.check().is_err(), "{ends:?}");
        }
    }

    #[test]
    fn candidates_differ_and_begin_with_the_models_choice() {
        for tokens in [1, 64, 4096] {
            let all = candidates(&up(), tokens, 12);
            let mut sorted = all.clone();
            sorted.sort();
            sorted.dedup();
            assert_eq!((all.len(), sorted.len()), (12, 12));
            let decoded = all[..2].iter().filter(|method| matches!(method, Method::Workspace(_)));
            assert_eq!(decoded.count(), 1, "both ways are tried");
        }
    }
}
