//! Kills compilations at random moments, and sees that nothing is ever half there and nothing much is ever lost.

mod state;

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use state::State;

/// What is compiled and killed.
#[derive(Clone, Debug)]
pub struct Crashes {
    /// The `fireq` command.
    pub binary: PathBuf,
    /// A model directory.
    pub model: PathBuf,
    /// An empty directory for artifacts.
    pub folder: PathBuf,
    /// The recipe, and other arguments that it needs.
    pub recipe: Vec<String>,
    /// Threads that compile.
    pub threads: usize,
    /// How often it is killed.
    pub kills: usize,
    /// Of the random moments.
    pub seed: u64,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Kills while the journal had weights.
    pub packing: usize,
    /// Kills in all.
    pub kills: usize,
    /// The most weights that one kill lost: whole in the file, and not in the journal.
    pub lost: usize,
    /// Compilations that ended, with what an undisturbed one gives.
    pub ended: usize,
    /// The most weights that one run took over from those before.
    pub resumed: usize,
    /// Weights in all.
    pub weights: usize,
}

/// Kills compilations, and checks after each that the output is the old artifact, the new one or none, and that the next run
/// takes over all that is in the journal; and at the end that the artifact is that of an undisturbed run. Every other
/// time an older artifact is replaced.
pub fn crash(options: &Crashes, say: &mut dyn FnMut(&str)) -> Result<Seen, String> {
    let [undisturbed, old, out] = ["undisturbed", "old", "out"].map(|name| options.folder.join(name));
    let recipe: Vec<&str> = options.recipe.iter().map(String::as_str).collect();
    let began = Instant::now();
    finish(options.command(&undisturbed, &recipe))?;
    let whole = began.elapsed();
    finish(options.command(&old, &["--recipe", "none"]))?;
    let state = State::new(&undisturbed, &out)?;
    let mut seen = Seen { weights: state.weights(), ..Seen::default() };
    say(&format!(
        "undisturbed: {:.1} s, {} weights; seed {}",
        whole.as_secs_f64(),
        seen.weights,
        options.seed
    ));
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let mut replaces = false;
    while seen.kills < options.kills {
        if state.journaled() == seen.weights && random.random_bool(0.5) {
            // Most moments would be those after the last weight.
            fs::remove_dir_all(state.partial()).map_err(|e| e.to_string())?;
        }
        let expected = state.journaled();
        let soon = (expected + seen.weights / 6).min(seen.weights);
        let when = When::random(&mut random, whole, expected..soon);
        let (killed, errors) = kill(options.command(&out, &recipe), &when, &state)?;
        seen.resumed = seen.resumed.max(resumed(&errors, expected)?);
        if killed {
            seen.kills += 1;
            let line = look(options, &state, Some(&*old).filter(|_| replaces), &mut seen)?;
            say(&format!("kill {:>2} {when}: {line}", seen.kills));
            continue;
        }
        ends(&state, &mut seen)?;
        fs::remove_dir_all(&out).map_err(|e| e.to_string())?;
        replaces = !replaces;
        if replaces {
            copy(&old, &out)?;
        }
    }
    finish(options.command(&out, &recipe))?;
    ends(&state, &mut seen)?;
    Ok(seen)
}

impl Crashes {
    fn command(&self, out: &Path, recipe: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("compile").arg(&self.model).arg("-o").arg(out).args(recipe);
        command.args(["--threads", &self.threads.to_string(), "--cpu", "baseline"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

fn finish(mut command: Command) -> Result<(), String> {
    let done = command.output().map_err(|e| e.to_string())?;
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

/// When a process is killed.
struct When {
    /// Where weights are waited for: until so many are in the journal.
    weights: Option<usize>,
    /// So much later, or after its start.
    delay: Duration,
}

impl When {
    /// Any moment of a run that takes as long as a `whole` one, or one while weights are packed, which may be short.
    fn random(random: &mut ChaCha8Rng, whole: Duration, weights: Range<usize>) -> Self {
        if weights.is_empty() || random.random_bool(0.5) {
            return When { weights: None, delay: whole.mul_f64(random.random_range(0.05..0.9)) };
        }
        When {
            weights: Some(random.random_range(weights)),
            delay: Duration::from_micros(random.random_range(0..20_000)),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.delay.as_secs_f64();
        match self.weights {
            Some(weights) => write!(f, "{seconds:.3} s after weight {weights}"),
            None => write!(f, "after {seconds:.3} s"),
        }
    }
}

/// Whether the process had to be killed, and what it said; it is an error if it failed by itself.
fn kill(mut command: Command, when: &When, state: &State) -> Result<(bool, String), String> {
    let mut child: Child = command.spawn().map_err(|e| e.to_string())?;
    let runs = |child: &mut Child| child.try_wait().is_ok_and(|ended| ended.is_none());
    while when.weights.is_some_and(|weights| state.journaled() < weights) && runs(&mut child) {
        std::thread::sleep(Duration::from_micros(200));
    }
    let until = Instant::now() + when.delay;
    while Instant::now() < until && runs(&mut child) {
        std::thread::sleep(Duration::from_millis(1).min(until.saturating_duration_since(Instant::now())));
    }
    child.kill().map_err(|e| e.to_string())?;
    let done = child.wait_with_output().map_err(|e| e.to_string())?;
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    match done.status.code() {
        None => Ok((true, errors)),
        Some(0) => Ok((false, errors)),
        Some(_) => Err(format!("it failed by itself: {errors}")),
    }
}

/// How many weights a run took over, by what it said, which must be what was in the journal.
fn resumed(errors: &str, journaled: usize) -> Result<usize, String> {
    let line = errors.lines().find(|line| line.contains("weights were packed by an earlier run"));
    let Some(line) = line else { return Ok(0) };
    let said = line.split(' ').next().and_then(|n| n.parse().ok()).ok_or("no number of weights")?;
    if said == journaled {
        Ok(said)
    } else {
        Err(format!("{journaled} weights were in the journal, and it said: {line}"))
    }
}

/// What a killed process leaves.
fn look(options: &Crashes, state: &State, old: Option<&Path>, seen: &mut Seen) -> Result<String, String> {
    let is = state.output(old)?;
    if is != "absent" {
        let mut inspect = Command::new(&options.binary);
        inspect.arg("inspect").arg(state.out()).stdout(Stdio::null());
        finish(inspect)?;
    }
    let (journaled, lost) = (state.journaled(), state.unjournaled()?);
    seen.packing += usize::from(journaled > 0);
    seen.lost = seen.lost.max(lost);
    if lost > options.threads {
        return Err(format!("{lost} weights are lost with {} threads", options.threads));
    }
    Ok(format!("the output is {is}; {journaled} weights are in the journal, and {lost} more were written"))
}

fn ends(state: &State, seen: &mut Seen) -> Result<(), String> {
    seen.ended += 1;
    match state.output(None)? {
        "the new one" if !state.partial().exists() => Ok(()),
        "the new one" => Err("something is left beside the artifact".into()),
        is => Err(format!("it ended, and the output is {is}")),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let mut command = Command::new("cp");
    command.arg("-r").args([from, to]);
    finish(command)
}
