use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use super::*;

#[test]
fn every_unit_is_done_once_by_a_known_thread() {
    for (threads, units) in [(1, 0), (1, 7), (2, 1), (2, 7), (3, 1000), (4, 3), (16, 1000)] {
        for (several, shared) in [(true, true), (true, false), (false, true)] {
            let done: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
            let body = |begin: usize, end: usize, thread: usize| {
                assert!(thread < threads);
                for count in &done[begin..end] {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            };
            Threads::new(threads).unwrap().run(several, |crew| crew.share(units, shared, &body));
            assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} {units}");
        }
    }
}

#[test]
fn a_thread_number_is_never_used_twice_at_once() {
    let threads = 4;
    let busy: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
    let body = |_: usize, _: usize, thread: usize| {
        assert_eq!(busy[thread].fetch_add(1, Ordering::SeqCst), 0);
        yield_now();
        busy[thread].fetch_sub(1, Ordering::SeqCst);
    };
    let mut crew = Threads::new(threads).unwrap();
    crew.run(true, |crew| (0..200).for_each(|_| crew.share(64, true, &body)));
}

/// Each launch reads what the one before it wrote on whichever thread, without an atomic.
#[test]
fn a_launch_sees_all_of_the_launch_before() {
    struct Cells(Vec<UnsafeCell<u64>>);
    // SAFETY: the crew gives every unit to one thread, and orders launches.
    unsafe impl Sync for Cells {}
    impl Cells {
        fn add_next(&self, from: &Cells, begin: usize, end: usize) {
            for n in begin..end {
                // SAFETY: nobody else has this unit; nothing writes `from` in this launch.
                unsafe { *self.0[n].get() = *from.0[(n + 1) % from.0.len()].get() + 1 };
            }
        }
    }
    for threads in [2, 3, 9] {
        let cells = || Cells((0..61).map(|_| UnsafeCell::new(0)).collect());
        let (one, other, launches) = (cells(), cells(), 500);
        let mut crew = Threads::new(threads).unwrap();
        for _ in 0..4 {
            crew.run(true, |crew| {
                for _ in 0..launches {
                    crew.share(61, true, &|begin, end, _| other.add_next(&one, begin, end));
                    crew.share(61, true, &|begin, end, _| one.add_next(&other, begin, end));
                }
            });
        }
        assert!(one.0.into_iter().all(|cell| cell.into_inner() == 2 * 4 * launches), "{threads} threads");
    }
}

#[test]
fn work_is_shared_when_it_takes_long_enough() {
    let taken: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
    let body = |begin: usize, end: usize, thread: usize| {
        std::thread::sleep(Duration::from_millis(5));
        taken[thread].fetch_add(end - begin, Ordering::Relaxed);
    };
    Threads::new(3).unwrap().run(true, |crew| crew.share(120, true, &body));
    let taken: Vec<usize> = taken.into_iter().map(AtomicUsize::into_inner).collect();
    assert!(taken.iter().all(|n| *n > 0) && taken.iter().sum::<usize>() == 120, "{taken:?}");
}

/// A panic reaches the thread that runs the step, from whichever thread, and the crew goes on.
#[test]
fn a_panic_is_the_steps_and_not_the_crews() {
    let mut crew = Threads::new(3).unwrap();
    for guilty in 0..3 {
        let body = |_: usize, _: usize, thread: usize| {
            std::thread::sleep(Duration::from_millis(1));
            assert!(thread != guilty, "as it should");
        };
        let step = |crew: &mut Threads| crew.run(true, |crew| crew.share(60, true, &body));
        // Where other processes want the cores, a thread may come too late to get a piece.
        let mut steps = (0..1000).map(|_| catch_unwind(AssertUnwindSafe(|| step(&mut crew))));
        assert!(steps.any(|step| step.is_err()), "thread {guilty}");
        let done = AtomicUsize::new(0);
        let count = |begin, end, _: usize| {
            done.fetch_add(end - begin, Ordering::Relaxed);
        };
        crew.run(true, |crew| crew.share(60, true, &count));
        assert_eq!(done.into_inner(), 60);
    }
}

/// Threads that share cores with others let them run: thousands of launches take no time to speak of.
#[test]
fn more_threads_than_cores_are_no_disaster() {
    let threads = 4 * available_parallelism().map_or(1, usize::from) + 1;
    let (mut crew, sum, began) = (Threads::new(threads).unwrap(), AtomicUsize::new(0), Instant::now());
    let body = |begin, end, _: usize| {
        sum.fetch_add(end - begin, Ordering::Relaxed);
    };
    crew.run(true, |crew| (0..5000).for_each(|_| crew.share(100, true, &body)));
    assert_eq!(sum.into_inner(), 500_000);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// Between steps a worker takes no time.
#[test]
#[cfg(target_os = "linux")]
fn workers_sleep_between_steps() {
    let worker = Mutex::new(None);
    let mut crew = Threads::new(2).unwrap();
    let body = |_: usize, _: usize, thread: usize| {
        std::thread::sleep(Duration::from_millis(5));
        if thread == 1 {
            *worker.lock().unwrap() = Some(std::fs::read_link("/proc/thread-self").unwrap());
        }
    };
    crew.run(true, |crew| crew.share(8, true, &body));
    let stat = std::path::Path::new("/proc").join(worker.into_inner().unwrap().unwrap()).join("stat");
    let ticks = || -> u64 {
        let text = std::fs::read_to_string(&stat).unwrap();
        let fields = text.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        fields.map(|n| n.parse::<u64>().unwrap()).sum()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_millis(300));
    // Of a hundredth of a second each: one may have begun before.
    assert!(ticks() <= before + 1, "{} ticks", ticks() - before);
}
