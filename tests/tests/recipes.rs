//! No text makes a recipe panic, and what is one stands for a pipeline.

use fireq_passes::{RECIPES, Recipe};
use fireq_tests::fuzz;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What mistakes are made of.
const PIECES: [&str; 24] = [
    "",
    "\n",
    "[",
    "]",
    "[[override]]\n",
    "[smooth]\n",
    "[smooth.paper]\n",
    "[weights]\n",
    "\"",
    "'''",
    "=",
    "=",
    "#",
    "|",
    "group = 64\n",
    "group = 18446744073709551615\n",
    "alpha = -1e400\n",
    "keep = true\n",
    "tensors = \"*|k.3\"\n",
    "skip = [\"quantize-kv\"]\n",
    "{",
    "\u{fffd}ä",
    "\u{0}",
    "1979-05-27T07:32:00Z",
];

/// A piece in place of a stretch of text, up to the end of a line or so.
fn edit() -> impl Strategy<Value = (Index, usize, &'static str)> {
    (any::<Index>(), 0usize..40, select(&PIECES[..]))
}

fn edited(text: &str, (at, length, piece): &(Index, usize, &str)) -> String {
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let start = at.index(places.len());
    let end = (start + length).min(places.len() - 1);
    format!("{}{piece}{}", &text[..places[start]], &text[places[end]..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn recipes_with_mistakes((recipe, edits) in (0..RECIPES.len(), prop::collection::vec(edit(), 1..5))) {
        // The example at the end of the file is part of what is edited.
        let text = RECIPES[recipe].text.replace("# [[", "[[").replace("\n# tensors", "\ntensors");
        fuzz::recipe(&edits.iter().fold(text, |text, one| edited(&text, one)));
    }

    #[test]
    fn any_text(text in "\\PC*") {
        fuzz::recipe(&text);
    }
}

#[test]
fn recipes_in_recipes_end() {
    for open in ["[", "{a=", "[[", "a.", "[a.", "\"", "[[override]]\n"] {
        fuzz::recipe(&open.repeat(100_000));
        fuzz::recipe(&format!("override = {}", open.repeat(100_000)));
    }
}

#[test]
fn a_file_as_it_is_printed_is_the_recipe() {
    for built_in in &RECIPES {
        let recipe = Recipe::parse(built_in.text).unwrap();
        assert_eq!(fireq_passes::named_pipeline(built_in.name).unwrap(), recipe.pipeline());
    }
}
