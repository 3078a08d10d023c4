//! Modules and kernel bodies: directives, declarations, labels, instructions.

use super::{Declaration, Lexer, ParseError, Statement, Token};
use crate::decode::Builder;
use crate::program::{Module, Place, Variable};

/// Parses a module and decodes its kernels.
pub(crate) fn parse(text: &str) -> Result<Module, ParseError> {
    let mut lexer = Lexer::new(text)?;
    let mut module = Module::default();
    while lexer.peek() != Token::End {
        top_level(&mut lexer, &mut module)?;
    }
    if let Some(kernel) = module.kernels.iter().find(|k| k.files_used > module.files.len()) {
        return Err(ParseError::new(kernel.line, "a .loc names a file that no .file declares"));
    }
    Ok(module)
}

fn top_level(lexer: &mut Lexer, module: &mut Module) -> Result<(), ParseError> {
    match lexer.word()? {
        ".version" => lexer.advance().map(|_| ()),
        ".target" => {
            lexer.word()?;
            while lexer.take(',')? {
                lexer.word()?;
            }
            Ok(())
        }
        ".address_size" => match lexer.int()? {
            64 => Ok(()),
            other => Err(ParseError::new(lexer.line(), format!("address size {other} is not 64"))),
        },
        ".visible" | ".weak" | ".common" | ".extern" => Ok(()),
        ".file" => file(lexer, module),
        ".section" => section(lexer),
        ".entry" => kernel(lexer, module),
        ".func" => function(lexer),
        space @ (".global" | ".const" | ".shared") => variable(lexer, module, space),
        other => Err(ParseError::new(lexer.line(), format!("`{other}` is not a known directive"))),
    }
}

fn file(lexer: &mut Lexer, module: &mut Module) -> Result<(), ParseError> {
    let line = lexer.line();
    let index = lexer.int()? as usize;
    let Token::Text(name) = lexer.advance()? else {
        return Err(ParseError::new(line, "a .file needs a name"));
    };
    while lexer.take(',')? {
        lexer.int()?;
    }
    if index == 0 || index > 1 << 16 {
        return Err(ParseError::new(line, format!("{index} is not a file number")));
    }
    let size = module.files.len().max(index);
    module.files.resize(size, String::new());
    name.clone_into(&mut module.files[index - 1]);
    Ok(())
}

/// Debug sections say nothing about execution.
fn section(lexer: &mut Lexer) -> Result<(), ParseError> {
    lexer.word()?;
    lexer.expect('{')?;
    while !lexer.take('}')? {
        if lexer.advance()? == Token::End {
            return Err(lexer.unexpected("`}`"));
        }
    }
    Ok(())
}

/// Only declarations of functions pass; the compiler inlines everything that kernels of this project call.
fn function(lexer: &mut Lexer) -> Result<(), ParseError> {
    let line = lexer.line();
    loop {
        match lexer.advance()? {
            Token::Mark(';') => return Ok(()),
            Token::Mark('{') | Token::End => {
                return Err(ParseError::new(line, "functions that are not inlined are not supported"));
            }
            _ => {}
        }
    }
}

fn variable(lexer: &mut Lexer, module: &mut Module, space: &str) -> Result<(), ParseError> {
    let line = lexer.line();
    let d = Declaration::parse(lexer)?;
    lexer.expect(';')?;
    if module.variable(d.name).is_some() {
        return Err(ParseError::new(line, format!("`{}` is declared twice", d.name)));
    }
    let place = match space {
        ".shared" if d.bytes == 0 => Place::Dynamic,
        ".shared" => Place::Shared,
        ".const" => Place::Constant,
        _ => Place::Global,
    };
    let name = d.name.to_owned();
    module.variables.push(Variable { name, align: d.align, bytes: d.bytes, init: d.init, place });
    Ok(())
}

fn kernel(lexer: &mut Lexer, module: &mut Module) -> Result<(), ParseError> {
    let line = lexer.line();
    let name = lexer.word()?;
    if module.kernels.iter().any(|k| k.name == name) {
        return Err(ParseError::new(line, format!("kernel `{name}` is defined twice")));
    }
    let mut builder = Builder::new(name, line, &module.variables);
    if lexer.take('(')? && !lexer.take(')')? {
        loop {
            if lexer.word()? != ".param" {
                return Err(ParseError::new(lexer.line(), "a kernel's parameter starts with .param"));
            }
            builder.parameter(&Declaration::parse(lexer)?);
            if lexer.take(')')? {
                break;
            }
            lexer.expect(',')?;
        }
    }
    tuning(lexer, &mut builder)?;
    lexer.expect('{')?;
    body(lexer, &mut builder)?;
    module.kernels.push(builder.finish()?);
    Ok(())
}

/// Performance directives between parameters and body.
fn tuning(lexer: &mut Lexer, builder: &mut Builder) -> Result<(), ParseError> {
    while let Token::Word(word) = lexer.peek() {
        lexer.advance()?;
        match word {
            ".maxntid" => builder.kernel.max_threads = Some(dimensions(lexer)?.iter().product()),
            ".reqntid" => builder.kernel.required_block = Some(dimensions(lexer)?),
            ".reqnctapercluster" => builder.kernel.required_cluster = Some(dimensions(lexer)?),
            ".explicitcluster" | ".noreturn" | ".blocksareclusters" => {}
            ".minnctapersm" | ".maxnreg" | ".maxclusterrank" => {
                lexer.int()?;
            }
            ".pragma" => pragma(lexer)?,
            other => {
                return Err(ParseError::new(
                    lexer.line(),
                    format!("`{other}` is not a known kernel directive"),
                ));
            }
        }
    }
    Ok(())
}

fn dimensions(lexer: &mut Lexer) -> Result<[u32; 3], ParseError> {
    let mut dims = [lexer.int32()?, 1, 1];
    for dim in &mut dims[1..] {
        if !lexer.take(',')? {
            break;
        }
        *dim = lexer.int32()?;
    }
    Ok(dims)
}

fn pragma(lexer: &mut Lexer) -> Result<(), ParseError> {
    lexer.advance()?;
    while lexer.take(',')? {
        lexer.advance()?;
    }
    lexer.expect(';')
}

/// Everything up to the brace that closes the body; inner braces are scopes of inline assembly.
fn body<'a>(lexer: &mut Lexer<'a>, builder: &mut Builder<'a>) -> Result<(), ParseError> {
    let mut depth = 1;
    while depth > 0 {
        match lexer.peek() {
            Token::Mark('{') => {
                lexer.advance()?;
                builder.open();
                depth += 1;
            }
            Token::Mark('}') => {
                lexer.advance()?;
                builder.close();
                depth -= 1;
            }
            Token::Mark(';') => lexer.expect(';')?,
            Token::Word(word) if word.starts_with('.') => {
                lexer.advance()?;
                directive(lexer, builder, word)?;
            }
            Token::Mark('@') => builder.instruction(&Statement::parse(lexer)?)?,
            Token::Word(word) => label_or_instruction(lexer, builder, word)?,
            _ => return Err(lexer.unexpected("an instruction")),
        }
    }
    Ok(())
}

fn directive<'a>(lexer: &mut Lexer<'a>, builder: &mut Builder<'a>, word: &'a str) -> Result<(), ParseError> {
    match word {
        ".reg" => {
            let ty = lexer.word()?;
            registers(lexer, builder, ty)
        }
        glued if glued.starts_with(".reg.") => registers(lexer, builder, &glued[4..]),
        ".loc" => location(lexer, builder),
        ".pragma" => pragma(lexer),
        ".shared" | ".local" => {
            let line = lexer.line();
            let declaration = Declaration::parse(lexer)?;
            builder.variable(word, &declaration, line)?;
            lexer.expect(';')
        }
        other => Err(ParseError::new(lexer.line(), format!("`{other}` is not a known directive of a body"))),
    }
}

fn registers<'a>(lexer: &mut Lexer<'a>, builder: &mut Builder<'a>, ty: &str) -> Result<(), ParseError> {
    loop {
        let line = lexer.line();
        let name = lexer.word()?;
        let mut count = None;
        if lexer.take('<')? {
            count = Some(lexer.int32()?);
            lexer.expect('>')?;
        }
        builder.registers(ty, name, count, line)?;
        if !lexer.take(',')? {
            return lexer.expect(';');
        }
    }
}

/// `.loc file line column[, function_name label[+offset]][, inlined_at file line column]`.
fn location(lexer: &mut Lexer, builder: &mut Builder) -> Result<(), ParseError> {
    let (file, line) = (lexer.int32()?, lexer.int32()?);
    lexer.int()?;
    let mut outer = None;
    while lexer.take(',')? {
        match lexer.word()? {
            "function_name" => {
                lexer.word()?;
                if lexer.take('+')? {
                    lexer.int()?;
                }
            }
            "inlined_at" => {
                outer = Some((lexer.int32()?, lexer.int32()?));
                lexer.int()?;
            }
            other => return Err(ParseError::new(lexer.line(), format!("`{other}` in .loc"))),
        }
    }
    builder.location((file, line), outer);
    Ok(())
}

fn label_or_instruction<'a>(
    lexer: &mut Lexer<'a>,
    builder: &mut Builder<'a>,
    word: &'a str,
) -> Result<(), ParseError> {
    let statement_line = lexer.line();
    if !lexer.followed_by_colon() {
        return builder.instruction(&Statement::parse(lexer)?);
    }
    lexer.advance()?;
    lexer.expect(':')?;
    if lexer.peek() != Token::Word(".branchtargets") {
        return builder.label(word, statement_line);
    }
    lexer.advance()?;
    let mut targets = vec![lexer.word()?];
    while lexer.take(',')? {
        targets.push(lexer.word()?);
    }
    lexer.expect(';')?;
    builder.table(word, targets, statement_line)
}
