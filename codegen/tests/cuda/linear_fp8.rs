//! Gates on the machine code of products whose weights are decoded before.

use super::machine_code::{count, disassemble};
use super::units::compiled;

#[test]
fn weights_are_read_and_written_in_16_bytes() {
    let Some(units) = compiled() else { return };
    let decoders: Vec<_> = units.iter().filter(|(unit, _)| unit.name.starts_with("decode_weight")).collect();
    assert_eq!(decoders.len(), 2);
    for (unit, compiled) in decoders {
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        let name = &unit.name;
        let scales = count(&sass, "LDG.E.U16");
        assert_eq!(count(&sass, "LDG.E.128"), 2, "{name}: codes\n{sass}");
        assert_eq!(count(&sass, "LDG"), 2 + scales, "{name}: nothing else but scales is read\n{sass}");
        assert_eq!([count(&sass, "STG.E.128"), count(&sass, "STG")], [4, 4], "{name}\n{sass}");
        assert_eq!(count(&sass, "SHFL"), 8, "{name}: two for each sixteen columns of a lane");
    }
}
