//! Gates on machine code: what is promised about memory accesses holds in SASS, and nothing spills.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use fireq_codegen::cuda::cubin::resources;
use fireq_codegen::cuda::toolkit::disassembler;

use super::units::compiled;

/// The machine code of a cubin as text; `None`, said on stderr, where there is no disassembler.
fn disassemble(cubin: &[u8]) -> Option<String> {
    static PROGRAM: LazyLock<Option<PathBuf>> = LazyLock::new(disassembler);
    let Some(program) = &*PROGRAM else {
        eprintln!("skipped: machine code of GPU kernels: no disassembler (cargo xtask setup)");
        return None;
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(cubin).unwrap();
    let output = Command::new(program).arg("-c").arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Instructions that start with this mnemonic, with or without a predicate.
fn count(sass: &str, mnemonic: &str) -> usize {
    sass.split_whitespace().filter(|word| word.starts_with(mnemonic)).count()
}

#[test]
fn nothing_spills_and_nothing_uses_local_memory() {
    let Some(units) = compiled() else { return };
    for (unit, compiled) in units {
        let taken = resources(&compiled.cubin, &unit.name).unwrap();
        eprintln!("{:40} {taken:?}", unit.name);
        assert_eq!(taken.local, 0, "{}", unit.name);
        assert!(
            taken.registers > 0 && taken.registers * unit.cta.threads as u32 <= 65536,
            "{}: {taken:?}",
            unit.name
        );
        let Some(sass) = disassemble(&compiled.cubin) else { continue };
        assert!(count(&sass, "EXIT") > 0, "{}: no machine code:\n{sass}", unit.name);
        for local in ["LDL", "STL"] {
            assert_eq!(count(&sass, local), 0, "{}: {local}", unit.name);
        }
    }
}

#[test]
fn loads_are_as_wide_as_reasons_say() {
    let Some(units) = compiled() else { return };
    let mut promised = 0;
    for (unit, compiled) in units.iter().filter(|(unit, _)| unit.reason.contains("16-byte loads")) {
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        assert!(count(&sass, "LDG.E.128") > 0, "{}:\n{sass}", unit.name);
        promised += 1;
    }
    assert!(promised > 10, "{promised} units promise wide loads");
}
