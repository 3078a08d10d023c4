//! Launches that may begin before earlier ones have ended: what `griddepcontrol.wait` orders, and what it does not.

use fireq_sim::{FaultKind, InFlight, Launch, Memory, Module, Options, Params, Timing, run};

/// What a launch does with memory that is in flight.
#[derive(Clone, Copy, PartialEq)]
enum Earlier {
    Writes,
    Reads,
}

/// One warp runs `body` on 512 bytes at `%memory`, aligned, beside 512 bytes that nobody writes at `%constant`. Shared memory has
/// room for a copy at `buffer`, and for its barrier at `barrier`.
fn attempt(body: &str, earlier: Option<Earlier>, timing: Timing) -> Result<(), FaultKind> {
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n\
         .visible .entry overlap(.param .u64 p0, .param .u64 p1)\n{{\n\
         .reg .b64 %memory, %constant, %rd<8>;\n.reg .b32 %lane, %r<16>;\n.reg .pred %first, %p;\n\
         .shared .align 128 .b8 buffer[512];\n.shared .align 8 .b8 barrier[8];\n\
         mov.u32 %lane, %laneid;\nsetp.eq.u32 %first, %lane, 0;\n\
         ld.param.u64 %memory, [p0];\nld.param.u64 %constant, [p1];\n{body}\nret;\n}}\n"
    );
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{e} of\n{text}"));
    let mut memory = Memory::new();
    let [used, constant] = ["used", "constant"].map(|name| memory.alloc_with(name, &[1; 512]));
    memory.set_in_flight(earlier.map(|earlier| {
        let only = |when| if earlier == when { Some(used..used + 512) } else { None };
        let [written, read] = [Earlier::Writes, Earlier::Reads].map(|when| only(when).into_iter().collect());
        InFlight { written, read }
    }));
    let launch = Launch {
        kernel: "overlap".into(),
        grid: [1; 3],
        block: [32, 1, 1],
        cluster: [1; 3],
        dynamic_shared: 0,
        params: Params::new().u64(used).u64(constant).build(),
    };
    let options = Options { timing, budget: 100_000, ..Options::default() };
    run(&module, &launch, &mut memory, &options).map(|_| ()).map_err(|fault| fault.kind)
}

/// With either timing the same.
fn both(body: &str, earlier: Option<Earlier>) -> Result<(), String> {
    let [early, late] = [Timing::Early, Timing::Late]
        .map(|timing| attempt(body, earlier, timing).map_err(|kind| kind.to_string()));
    assert_eq!(early, late, "{body}");
    late
}

#[track_caller]
fn refused(body: &str, earlier: Earlier, said: &str) {
    let fault = both(body, Some(earlier)).expect_err(body);
    assert!(fault.contains(said), "{body}: {fault}");
    both(body, None).unwrap_or_else(|fault| panic!("without launches in flight: {fault}"));
}

#[track_caller]
fn accepted(body: &str, earlier: Earlier) {
    both(body, Some(earlier)).unwrap_or_else(|fault| panic!("{body}: {fault}"));
}

const WAIT: &str = "griddepcontrol.wait;\n";
const LOAD: &str = "ld.global.u32 %r1, [%memory];\n";
const STORE: &str = "st.global.u32 [%memory], %lane;\n";

#[test]
fn what_is_written_is_read_behind_the_wait() {
    accepted(&format!("{WAIT}{LOAD}"), Earlier::Writes);
    refused(&format!("{LOAD}{WAIT}"), Earlier::Writes, "may still write: this thread has not executed");
    refused(&format!("ld.u32 %r1, [%memory+508];\n{WAIT}"), Earlier::Writes, "may still write");
    refused(&format!("red.global.add.u32 [%memory], %lane;\n{WAIT}"), Earlier::Writes, "may still write");
    accepted(&format!("ld.global.u32 %r1, [%constant];\n{WAIT}{LOAD}"), Earlier::Writes);
    // What is only read may be read, too.
    accepted(&format!("{LOAD}{WAIT}"), Earlier::Reads);
}

#[test]
fn what_is_used_is_written_behind_the_wait() {
    accepted(&format!("{WAIT}{STORE}"), Earlier::Reads);
    refused(&format!("{STORE}{WAIT}"), Earlier::Reads, "store of 0x");
    refused(&format!("{STORE}{WAIT}"), Earlier::Reads, "may still read");
    refused(&format!("{STORE}{WAIT}"), Earlier::Writes, "may still write");
    refused(&format!("red.global.add.u32 [%memory], %lane;\n{WAIT}"), Earlier::Reads, "may still read");
}

#[test]
fn each_thread_waits_for_itself() {
    refused(&format!("@%first {WAIT}{LOAD}"), Earlier::Writes, "may still write");
    accepted(&format!("@%first {WAIT}@%first {LOAD}"), Earlier::Writes);
    // To say that later launches may begin is no wait.
    refused(&format!("griddepcontrol.launch_dependents;\n{LOAD}{WAIT}"), Earlier::Writes, "may still write");
}

#[test]
fn a_launch_that_never_waits_is_refused() {
    let fault =
        attempt("griddepcontrol.launch_dependents;", Some(Earlier::Writes), Timing::Late).unwrap_err();
    assert!(matches!(fault, FaultKind::NeverWaits), "{fault}");
    assert_eq!(both("griddepcontrol.launch_dependents;", None), Ok(()));
    accepted(&format!("@%first {WAIT}"), Earlier::Writes);
}

#[test]
fn loads_of_constant_memory_need_it_to_be_constant() {
    let constant = |of: &str| format!("{WAIT}ld.global.nc.u32 %r1, [{of}];\n");
    refused(&constant("%memory"), Earlier::Writes, "may write while this kernel runs");
    accepted(&constant("%memory"), Earlier::Reads);
    accepted(&constant("%constant"), Earlier::Writes);
}

/// One thread asks for a copy in bulk, and waits for it; `between` is in front of the copy, `behind` behind it.
fn bulk(from: &str, between: &str, behind: &str) -> String {
    format!(
        "mov.u32 %r1, barrier;\nmov.u32 %r2, buffer;\n@!%first bra END;\n\
         mbarrier.init.shared::cta.b64 [%r1], 1;\nfence.mbarrier_init.release.cluster;\n{between}\
         mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%r1], 512;\n\
         cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [{from}], 512, [%r1];\n{behind}\
         AGAIN:\nmbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p, [%r1], 0;\n@!%p bra AGAIN;\nEND:\n"
    )
}

#[test]
fn a_copy_is_an_access_of_the_thread_that_asks_for_it() {
    accepted(&bulk("%memory", WAIT, ""), Earlier::Writes);
    refused(&bulk("%memory", "", WAIT), Earlier::Writes, "a bulk copy of 0x");
    accepted(&bulk("%constant", "", WAIT), Earlier::Writes);
    let cp_async = |of: &str| {
        format!(
            "mov.u32 %r2, buffer;\nshl.b32 %r3, %lane, 4;\nadd.u32 %r2, %r2, %r3;\n\
             cp.async.cg.shared.global [%r2], [{of}], 16;\ncp.async.wait_all;\n{WAIT}"
        )
    };
    refused(&cp_async("%memory"), Earlier::Writes, "cp.async of 0x");
    accepted(&cp_async("%constant"), Earlier::Writes);
    let out = "mov.u32 %r2, buffer;\nshl.b32 %r3, %lane, 4;\nadd.u32 %r3, %r2, %r3;\n\
               st.shared.v4.u32 [%r3], {%lane, %lane, %lane, %lane};\nfence.proxy.async.shared::cta;\nbar.warp.sync -1;\n";
    let store = "@%first cp.async.bulk.global.shared::cta.bulk_group [%memory], [%r2], 512;\n\
                 cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;\n";
    refused(&format!("{out}{store}{WAIT}"), Earlier::Reads, "a bulk copy of 0x");
    accepted(&format!("{out}{WAIT}{store}"), Earlier::Reads);
}
