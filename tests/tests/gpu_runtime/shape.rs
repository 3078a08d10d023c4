//! Weights that are made at random: kernels and the interpreter read the same numbers from them.

use std::path::Path;

use fireq::build::{Plans, Targets, build_anew};
use fireq::import::{ImportOptions, import_shape};
use fireq_runtime::cuda::{Executor, Needs, Piece};
use fireq_runtime::{Artifact, RuntimeError};

use super::simulated::options;
use super::{ROOM, on_the_simulator, tokens};

#[test]
fn random_weights_are_what_weights_could_be() {
    let Some((_, gpu)) = on_the_simulator("shape::random_weights_are_what_weights_could_be") else { return };
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("shape.fireq");
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tinystories-3m");
    // The kernels are those of the demo model's artifact, which the simulator knows.
    let mut model = import_shape(&demo, ImportOptions::default()).unwrap();
    fireq_passes::pipeline("full").unwrap().run(&mut model.graph).unwrap();
    let plans = Plans::of(&model.graph, Targets { cpu: false, cuda: true }).unwrap();
    build_anew(&model, &plans, "full", &options(), &out).unwrap();
    let artifact = Artifact::open_for_gpu(&out).unwrap();
    assert!(artifact.manifest.weightless);
    assert!(matches!(Executor::new(&gpu, &artifact, ROOM), Err(RuntimeError::Weightless)));
    let weights = artifact.random_cuda_weights(5).unwrap();
    let mut executor = Executor::with_weights(&gpu, &artifact, &weights, ROOM).unwrap();
    let (ids, pages) = (tokens(0, 24), [0, 1, 2, 3]);
    let mut past = 0;
    for count in [23, 1] {
        let piece = Piece { tokens: &ids[past..past + count], past, pages: &pages, selected: 0..1 };
        for launch in executor.compare(&piece).unwrap() {
            assert!(launch.agrees(), "{count} tokens after {past}: {launch:?}");
        }
        past += count;
    }
    let logits = executor.logits().unwrap();
    let mean = logits.iter().sum::<f32>() / logits.len() as f32;
    let deviation = (logits.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / logits.len() as f32).sqrt();
    assert!((0.01..100.0).contains(&deviation), "{deviation}");
    let footprint = Needs::of(&artifact).unwrap().footprint(ROOM);
    let too_much = Executor::with_weights(
        &gpu,
        &artifact,
        &weights,
        fireq_runtime::cuda::Room { pages: 1 << 40, ..ROOM },
    );
    assert!(footprint.total() < 1 << 26 && matches!(too_much, Err(RuntimeError::GpuMemory { .. })));
}
