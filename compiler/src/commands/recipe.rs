//! What `fireq compile` quantizes by: a recipe by name or as a file, or a pipeline.

use std::fs;
use std::path::Path;

use fireq_passes::{BuiltIn, RECIPES, Recipe, named_pipeline};

use crate::cli::recipe::RecipeArgs;
use crate::failure::{Failure, Outcome};

/// How a model is quantized.
pub struct Chosen {
    /// As it was asked for.
    pub label: String,
    /// The pipeline that runs and that the artifact records.
    pub pipeline: String,
}

/// What the options choose. What is wrong with it is said before the model is read.
pub fn chosen(options: &RecipeArgs) -> Outcome<Chosen> {
    let label = options.passes.as_ref().unwrap_or(&options.recipe).clone();
    let pipeline = match &options.passes {
        Some(passes) => passes.clone(),
        None if is_file(&label) => read(&label)?.1.pipeline(),
        None => {
            Some(named_pipeline(&label)?).filter(|text| !text.is_empty()).unwrap_or_else(|| label.clone())
        }
    };
    fireq_passes::pipeline(&pipeline)?;
    Ok(Chosen { label, pipeline })
}

/// As [`chosen`], for what has no data: operations and types that the recipe leads to, and whether queries and keys can have
/// scales behind rope.
pub fn structure(options: &RecipeArgs) -> Outcome<(Chosen, bool)> {
    let Some(recipe) = recipe(options)? else { return Ok((chosen(options)?, false)) };
    let chosen = Chosen { label: options.recipe.clone(), pipeline: recipe.structure().pipeline() };
    Ok((chosen, recipe.scales_behind_rope()))
}

/// As [`chosen`], of a recipe without what checkpoints cannot hold. A pipeline is what it is.
pub fn for_checkpoint(options: &RecipeArgs) -> Outcome<Chosen> {
    let Some(recipe) = recipe(options)? else { return chosen(options) };
    let pipeline = recipe.for_checkpoint().pipeline();
    fireq_passes::pipeline(&pipeline)?;
    Ok(Chosen { label: options.recipe.clone(), pipeline })
}

/// The recipe, where the options name one and not a pipeline.
fn recipe(options: &RecipeArgs) -> Outcome<Option<Recipe>> {
    let built_in = || RECIPES.iter().find(|recipe| recipe.name == options.recipe).map(BuiltIn::recipe);
    Ok(match &options.passes {
        Some(_) => None,
        None if is_file(&options.recipe) => Some(read(&options.recipe)?.1),
        None => built_in(),
    })
}

/// The recipe's file, as it is.
pub fn text(options: &RecipeArgs) -> Outcome<String> {
    let name = &options.recipe;
    if is_file(name) {
        return Ok(read(name)?.0);
    }
    let pipeline = named_pipeline(name)?;
    let no_file = || {
        let message = format!("`{name}` is a pipeline without a recipe: {pipeline}");
        Failure::new(message).hint(format!("these have a file: {}", names()))
    };
    RECIPES.iter().find(|recipe| recipe.name == name).map(|recipe| recipe.text.into()).ok_or_else(no_file)
}

fn names() -> String {
    let name = |recipe: &BuiltIn| recipe.name;
    RECIPES.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn is_file(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
}

/// The text of a file, and the recipe that it is.
fn read(path: &str) -> Outcome<(String, Recipe)> {
    let hint = "`fireq compile --print-recipe > my.toml` writes one to begin with";
    let unread =
        |e: &std::io::Error| Failure::from_error(e).within(format!("recipe `{path}` cannot be read"));
    let text = fs::read_to_string(path).map_err(|e| unread(&e).hint(hint))?;
    let invalid =
        |e: &dyn std::error::Error| Failure::from_error(e).within(format!("`{path}` is not a valid recipe"));
    let recipe = Recipe::parse(&text)
        .map_err(|e| invalid(&e).hint("`fireq compile --print-recipe` prints one with every key"))?;
    Ok((text, recipe))
}
