//! The canonical text of plans.
//!
//! ```text
//! plan "name" arena 4096 {
//!   %0 : input "tokens" i32[T]
//!   %1 : weight "embed" bf16[1024,256]
//!   %2 : output "logits" f32[T,256]
//!   gather_0: %2 = gather %1, %0
//! }
//! ```

use super::{Buffer, Kernel, Launch, Place, Plan, Storage};
use crate::text::cursor::{Cursor, Parsed};
use crate::text::{ParseError, attrs_text, nearest};
use crate::{Quoted, text};

const PLACES: [&str; 5] = ["input", "output", "weight", "cache", "arena"];

/// The canonical text of a plan.
pub fn print_plan(plan: &Plan) -> String {
    let buffers = plan.buffers.iter().enumerate().map(|(n, b)| format!("  %{n} : {}\n", buffer_text(b)));
    let launches = plan.launches.iter().map(|l| format!("  {}\n", launch_text(l)));
    let body: String = buffers.chain(launches).collect();
    format!("plan {} arena {} {{\n{body}}}\n", Quoted(&plan.name), plan.arena_bytes_per_token)
}

/// One line of the printed plan.
pub fn launch_text(launch: &Launch) -> String {
    let inputs: Vec<String> = launch.inputs.iter().map(|b| format!("%{b}")).collect();
    let op = launch.kernel.to_op();
    let attrs = attrs_text(&op.attrs());
    format!("{}: %{} = {} {}{attrs}", launch.symbol, launch.output, op.mnemonic(), inputs.join(", "))
}

fn buffer_text(buffer: &Buffer) -> String {
    let place = match &buffer.place {
        Place::Input(name) => format!("input {}", Quoted(name)),
        Place::Output(name) => format!("output {}", Quoted(name)),
        Place::Weight(name) => format!("weight {}", Quoted(name)),
        Place::Cache(name) => format!("cache {}", Quoted(name)),
        Place::Arena { offset } => format!("arena {offset}"),
    };
    let space = if buffer.storage == Storage::Plain { "" } else { " " };
    format!("{place} {}{space}{}", buffer.storage.name(), buffer.ty)
}

/// Parses a plan. [`super::verify_plan`] judges it.
pub fn parse_plan(text: &str) -> Result<Plan, ParseError> {
    let mut c = Cursor::new(text)?;
    c.keyword("plan")?;
    let name = c.string()?;
    c.keyword("arena")?;
    let mut plan = Plan { name, buffers: vec![], launches: vec![], arena_bytes_per_token: c.count()? };
    c.mark('{')?;
    while matches!(c.peek(), text::cursor::Token::Value(_)) {
        let span = c.span();
        if c.value()? != plan.buffers.len() {
            return Err(
                c.error(span, format!("buffers are numbered in order: expected %{}", plan.buffers.len()))
            );
        }
        c.mark(':')?;
        plan.buffers.push(buffer(&mut c)?);
    }
    while !c.eat('}') {
        plan.launches.push(launch(&mut c)?);
    }
    c.end()?;
    Ok(plan)
}

fn buffer(c: &mut Cursor<'_>) -> Parsed<Buffer> {
    let span = c.span();
    let place = match c.word("a place")?.as_str() {
        "input" => Place::Input(c.string()?.into()),
        "output" => Place::Output(c.string()?.into()),
        "weight" => Place::Weight(c.string()?.into()),
        "cache" => Place::Cache(c.string()?.into()),
        "arena" => Place::Arena { offset: c.count()? },
        other => {
            return Err(c.error(span, format!("unknown place `{other}`")).with_hint(nearest(other, PLACES)));
        }
    };
    let named = [Storage::Blocked32, Storage::Interleaved, Storage::Records, Storage::Pitched]
        .into_iter()
        .find(|storage| *c.peek() == text::cursor::Token::Word(storage.name().into()));
    if named.is_some() {
        c.next();
    }
    let storage = named.unwrap_or(Storage::Plain);
    Ok(Buffer { ty: c.ty()?, place, storage })
}

fn launch(c: &mut Cursor<'_>) -> Parsed<Launch> {
    let symbol = c.word("a launch or `}`")?.into();
    c.mark(':')?;
    let output = c.value()?;
    c.mark('=')?;
    let span = c.span();
    let mnemonic = c.word("a kernel")?;
    let mut inputs = vec![c.value()?];
    while c.eat(',') {
        inputs.push(c.value()?);
    }
    let attrs = c.attrs()?;
    let op = c.op(&mnemonic, span.clone(), &attrs, &[])?;
    let kernel =
        Kernel::from_op(&op).ok_or_else(|| c.error(span, format!("`{mnemonic}` is not a kernel")))?;
    Ok(Launch { kernel, symbol, inputs, output })
}
