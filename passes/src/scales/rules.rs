//! The rules by which scales move. Each is an identity of real numbers; none rounds, quantizes or drops anything.
//!
//! `(scale x s)` multiplies channels, `(scale_rows w s)` the rows of a weight. A rule whose right side needs another
//! vector than the left has binds it as `?d` from a fact about `?s`, and does not fire where the fact does not hold.

use egg::{Applier, Id, Pattern, PatternAst, Rewrite, SimpleScheduler, Subst, Symbol, Var};
use fireq_ir::{Dim, Op, Shape};

use super::facts::{Facts, Graph};
use super::language::Node;

pub(super) type Rule = Rewrite<Node, Facts>;

/// What must hold for a rule to fire, and what `?d` then is.
type Given = fn(&mut Graph, &dyn Fn(&str) -> Id) -> Option<Bound>;

/// What a condition gives.
enum Bound {
    /// Nothing but that it holds.
    Holds,
    /// The numbers of `?d`, made of those of `?s`.
    Vector(Vec<f32>),
}

/// Rules in the order of data: through what scales move up to their producers, then down to consumers.
pub(super) fn rules() -> Vec<Rule> {
    vec![
        // A scale of a scale is one scale; a scale of ones is none.
        rule("scale-of-scale", "(scale (scale ?x ?a) ?b)", "(scale ?x (scale ?a ?b))"),
        rule_if("scale-of-ones", "(scale ?x ?s)", is_ones, "?x"),
        // Up, towards producers.
        rule_if("into-linear-rows", "(scale (linear ?x ?w) ?s)", weight, "(linear ?x (scale_rows ?w ?s))"),
        rule_if(
            "into-norm-weight",
            "(scale (rms_norm ?o ?x ?w) ?s)",
            whole,
            "(rms_norm ?o ?x (scale ?w ?s))",
        ),
        rule_if(
            "into-head-norm",
            "(scale (rms_norm ?o ?x ?w) ?s)",
            per_run,
            "(rms_norm ?o ?x (scale ?w ?d))",
        ),
        rule_if("up-through-bias", "(scale (bias ?x ?w) ?s)", weight, "(bias (scale ?x ?s) (scale ?w ?s))"),
        rule("up-through-mul-left", "(scale (mul ?a ?b) ?s)", "(mul (scale ?a ?s) ?b)"),
        rule("up-through-mul-right", "(scale (mul ?a ?b) ?s)", "(mul ?a (scale ?b ?s))"),
        rule_if("up-through-rope", "(scale (rope ?x ?t) ?s)", pairs, "(rope (scale ?x ?s) ?t)"),
        rule("up-through-cache", "(scale (kv_append ?c ?x) ?s)", "(kv_append ?c (scale ?x ?s))"),
        rule_if(
            "up-through-attention",
            "(scale (attention ?o ?q ?k ?v) ?s)",
            same_in_repeats,
            "(attention ?o ?q ?k (scale ?v ?d))",
        ),
        // Down, towards consumers.
        rule_if("into-linear-columns", "(linear (scale ?x ?s) ?w)", weight, "(linear ?x (scale ?w ?s))"),
        rule("down-through-mul-left", "(mul (scale ?a ?s) ?b)", "(scale (mul ?a ?b) ?s)"),
        rule("down-through-mul-right", "(mul ?a (scale ?b ?s))", "(scale (mul ?a ?b) ?s)"),
        rule_if("down-through-rope", "(rope (scale ?x ?s) ?t)", pairs, "(scale (rope ?x ?t) ?s)"),
        rule("down-through-cache", "(kv_append ?c (scale ?x ?s))", "(scale (kv_append ?c ?x) ?s)"),
        rule_if(
            "down-through-attention",
            "(attention ?o ?q ?k (scale ?v ?s))",
            repeated,
            "(scale (attention ?o ?q ?k ?v) ?d)",
        ),
    ]
}

/// Every rule in every round: a block is small, and a rule that is banned for a while hides saturation.
pub(super) fn scheduler() -> SimpleScheduler {
    SimpleScheduler
}

fn rule(name: &str, from: &str, to: &str) -> Rule {
    Rewrite::new(name, pattern(from), pattern(to)).expect("a rule's variables are bound")
}

fn rule_if(name: &str, from: &str, given: Given, to: &str) -> Rule {
    let to = Conditional { given, to: pattern(to) };
    Rewrite::new(name, pattern(from), to).expect("a rule's variables are bound")
}

fn pattern(text: &str) -> Pattern<Node> {
    text.parse().expect("a rule's pattern parses")
}

/// Applies `to` where `given` holds, with the vector that it gives as `?d`.
struct Conditional {
    given: Given,
    to: Pattern<Node>,
}

impl Applier<Node, Facts> for Conditional {
    fn apply_one(
        &self,
        egraph: &mut Graph,
        class: Id,
        subst: &Subst,
        searcher: Option<&PatternAst<Node>>,
        name: Symbol,
    ) -> Vec<Id> {
        let var = |name: &str| name.parse::<Var>().expect("a variable's name");
        let Some(bound) = (self.given)(egraph, &|name| subst[var(name)]) else { return vec![] };
        let mut subst = subst.clone();
        if let Bound::Vector(numbers) = bound {
            let known = egraph[subst[var("?s")]].data.vector;
            let made_of = known.map_or_else(String::new, |n| egraph.analysis.vectors[n].name.clone());
            let place = egraph.analysis.derive(numbers, made_of);
            let id = egraph.add(Node { kind: super::language::Kind::Vector(place), children: vec![] });
            subst.insert(var("?d"), id);
        }
        self.to.apply_one(egraph, class, &subst, searcher, name)
    }
}

/// `?w` is a constant of plain numbers: codes have been rounded, and take no scale.
fn weight(egraph: &mut Graph, id: &dyn Fn(&str) -> Id) -> Option<Bound> {
    let fact = &egraph[id("?w")].data;
    let plain = fact.constant && fact.ty.as_ref()?.scheme.is_plain();
    plain.then_some(Bound::Holds)
}

/// `?s` is ones, and taking it away leaves the type.
fn is_ones(egraph: &mut Graph, id: &dyn Fn(&str) -> Id) -> Option<Bound> {
    let ty = egraph[id("?x")].data.ty.as_ref()?;
    let ones = numbers(egraph, id("?s"))?.iter().all(|x| *x == 1.0);
    (ones && ty.dtype == fireq_ir::DType::F32).then_some(Bound::Holds)
}

/// The constant norm weight `?w` has all channels.
fn whole(egraph: &mut Graph, id: &dyn Fn(&str) -> Id) -> Option<Bound> {
    weight(egraph, id)?;
    (cols(egraph, id("?w"))? == cols(egraph, id("?x"))?).then_some(Bound::Holds)
}

/// `?s` is the same in each run of the constant norm weight `?w`: one of them.
fn per_run(egraph: &mut Graph, id: &dyn Fn(&str) -> Id) -> Option<Bound> {
    weight(egraph, id)?;
    let run = cols(egraph, id("?w"))?;
    let scale = numbers(egraph, id("?s"))?;
    let same = scale.chunks(run).all(|chunk| chunk == &scale[..run]);
    same.then(|| Bound::Vector(scale[..run].to_vec()))
}

/// `?s` is equal on both channels of each pair that the table `?t` rotates: only then does it commute with rope.
fn pairs(egraph: &mut Graph, id: &dyn Fn(&str) -> Id) -> Option<Bound> {
    let half = cols(egraph, id("?t"))? / 2;
    let scale = numbers(egraph, id("?s"))?;
    let symmetric = scale.chunks(2 * half).all(|head| head[..half] == head[half..]);
    symmetric.then_some(Bound::Holds)
}

/// `?s` over the result of attention is equal in all query heads of a kv head: one of them for each.
fn same_in_repeats(egraph: &mut Graph, id: &dyn Fn(&str) -> Id) -> Option<Bound> {
    let (repeats, head) = grouping(egraph, id)?;
    let scale = numbers(egraph, id("?s"))?;
    let groups = || scale.chunks(repeats * head);
    let same = groups().all(|group| group.chunks(head).all(|one| one == &group[..head]));
    same.then(|| Bound::Vector(groups().flat_map(|group| &group[..head]).copied().collect()))
}

/// `?s` over the values of attention, repeated for each query head of a kv head.
fn repeated(egraph: &mut Graph, id: &dyn Fn(&str) -> Id) -> Option<Bound> {
    let (repeats, head) = grouping(egraph, id)?;
    let scale = numbers(egraph, id("?s"))?;
    Some(Bound::Vector(scale.chunks(head).flat_map(|one| one.repeat(repeats)).collect()))
}

/// Query heads of a kv head, and channels of a head, of the attention with attributes `?o`.
fn grouping(egraph: &Graph, id: &dyn Fn(&str) -> Id) -> Option<(usize, usize)> {
    let Op::Attention { heads, kv_heads, .. } = egraph.analysis.ops[egraph[id("?o")].data.op?] else {
        return None;
    };
    Some((heads / kv_heads, cols(egraph, id("?q"))? / heads))
}

fn numbers(egraph: &Graph, id: Id) -> Option<&[f32]> {
    egraph[id].data.vector.map(|n| egraph.analysis.vectors[n].numbers.as_slice())
}

fn cols(egraph: &Graph, id: Id) -> Option<usize> {
    egraph[id].data.ty.as_ref().map(|ty| &ty.shape).map(Shape::cols).as_ref().and_then(Dim::fixed)
}
