//! The training step against the same model in PyTorch on the same cores, step by step in turn.
//!
//! Both sides are programs that wait for a number of steps on standard input and answer with their times:
//! the example `training_step` of the server crate and `xtask/bench/train_pytorch.py`, in an environment of its
//! own under `target`. The Python side first checks that loss and gradients of one batch are the same.
//! Data: random windows of the full length, and, where `FRESHET_DATA` names a folder, windows of every stream in it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::inputs::{Environment, Stream, streams};
use crate::process::{cargo, run_to_end, step};
use crate::workspace::Workspace;

/// The wheel loads its CUDA libraries also where only the CPU is used, so its dependencies come too.
const PYTORCH: Environment = Environment {
    name: "bench-torch",
    packages: &["torch==2.15.0", "numpy>=2,<3"],
    check: "import numpy, torch; assert torch.__version__.startswith('2.15.')",
};
/// Steps of one side before the other's turn.
const STEPS_PER_TURN: usize = 4;
const NUM_TURNS: usize = 15;
/// Turns of each side that are not counted: memory and caches fill, PyTorch chooses kernels.
const NUM_WARM_UP_TURNS: usize = 2;
/// Largest difference of losses and of gradients, relative to a tensor's largest, between the two sides.
const DIFFERENCE_MAX: f64 = 1e-3;

/// One kind of batch.
struct Shape {
    name: String,
    /// Arguments of the example behind the file.
    arguments: Vec<PathBuf>,
}

/// Times both sides on all shapes, on all cores and on one.
///
/// # Errors
/// A side cannot be built, installed or run, or the two do not compute the same.
pub(super) fn measure(workspace: &Workspace) -> anyhow::Result<Value> {
    let python = step("preparing PyTorch", || PYTORCH.python(workspace))?;
    step("building the training step", || {
        run_to_end(
            cargo()
                .args(["build", "--workspace", "--example", "training_step"])
                .current_dir(workspace.root()),
        )
    })?;
    // Others on the machine make both sides slower, and not alike; the file says so.
    let load_average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default(); // elsewhere it is not known
    let load_average: Option<f64> = load_average
        .split(' ')
        .next()
        .and_then(|first| first.parse().ok()); // likewise
    let num_cores = std::thread::available_parallelism()?.get();
    let mut runs = Vec::new();
    for shape in shapes()? {
        for num_threads in [num_cores, 1] {
            let title = format!("{}, {num_threads} threads", shape.name);
            runs.push(step(&title, || {
                compare(workspace, &python, &shape, num_threads)
            })?);
        }
    }
    let headline = runs.first().context("there is always one shape")?.clone();
    Ok(json!({
        "examples_per_sec": headline["examples_per_sec"],
        "pytorch_examples_per_sec": headline["pytorch_examples_per_sec"],
        "ratio": headline["ratio"],
        "torch_version": headline["check"]["torch_version"],
        "num_cores": num_cores,
        "load_average_before": load_average,
        "runs": runs,
    }))
}

fn shapes() -> anyhow::Result<Vec<Shape>> {
    let full = Shape {
        name: "full".to_owned(),
        arguments: vec!["full".into()],
    };
    let of_stream = |stream: Stream| Shape {
        name: stream.name,
        arguments: vec!["stream".into(), stream.dir],
    };
    Ok(std::iter::once(full)
        .chain(streams()?.into_iter().map(of_stream))
        .collect())
}

fn compare(
    workspace: &Workspace,
    python: &Path,
    shape: &Shape,
    num_threads: usize,
) -> anyhow::Result<Value> {
    let target_dir = workspace.target_dir();
    let export_path = target_dir.join("bench-train.safetensors");
    let threads = num_threads.to_string();
    let mut command = Command::new(target_dir.join("debug/examples/training_step"));
    command.arg(&export_path).args(&shape.arguments);
    let mut ours = Side::start(command.env("RAYON_NUM_THREADS", &threads))?;
    ours.turn(1)?; // the file is written before the first step
    let mut command = Command::new(python);
    command
        .arg(workspace.path("xtask/bench/train_pytorch.py"))
        .arg(&export_path)
        .arg(&threads)
        .env("OMP_NUM_THREADS", &threads)
        .env("MKL_NUM_THREADS", &threads);
    let mut theirs = Side::start(&mut command)?;
    let check: Value = serde_json::from_str(&theirs.line()?)?;
    ensure_same(&check)?;

    let mut times = [Times::default(), Times::default()];
    for turn in 0..NUM_WARM_UP_TURNS + NUM_TURNS {
        for (side, times) in [&mut ours, &mut theirs].into_iter().zip(&mut times) {
            let answer = side.turn(STEPS_PER_TURN)?;
            if turn >= NUM_WARM_UP_TURNS {
                times.add(answer);
            }
        }
    }
    let [ours, theirs] = times.map(Times::summed_up);
    let batch_size = check["num_windows"][0].as_f64().context("a batch size")?;
    eprintln!(
        "  {:.1} ms, PyTorch {:.1} ms: {:.2} times the examples per second",
        ours.median,
        theirs.median,
        theirs.median / ours.median
    );
    Ok(json!({
        "shape": shape.name,
        "num_threads": num_threads,
        "examples_per_sec": batch_size / ours.median * 1e3,
        "pytorch_examples_per_sec": batch_size / theirs.median * 1e3,
        "ratio": theirs.median / ours.median,
        "cpu_ratio": theirs.cpu / ours.cpu,
        "step_millis": ours.to_json(),
        "pytorch_step_millis": theirs.to_json(),
        "num_steps": STEPS_PER_TURN * NUM_TURNS,
        "check": check,
    }))
}

/// Refuses to time two different models.
fn ensure_same(check: &Value) -> anyhow::Result<()> {
    let gradients = check["gradient_differences"]
        .as_object()
        .context("differences of gradients")?;
    let loss = ("loss", &check["loss_difference"]);
    let pairs = gradients
        .iter()
        .map(|(name, difference)| (name.as_str(), difference));
    for (name, difference) in pairs.chain([loss]) {
        let difference = difference.as_f64().unwrap_or(f64::NAN); // null is no number either
        ensure!(
            difference <= DIFFERENCE_MAX,
            "the two sides do not compute the same: {name} differs by {difference}, at most {DIFFERENCE_MAX} is wanted"
        );
    }
    Ok(())
}

/// A program that answers numbers of steps with their times.
struct Side {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Side {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        let input = child.stdin.take();
        let output = child
            .stdout
            .take()
            .context("the pipe was asked for above")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let num_bytes = self.output.read_line(&mut line)?;
        ensure!(num_bytes > 0, "a side of the benchmark ended early");
        Ok(line)
    }

    /// Times of `num_steps` steps.
    fn turn(&mut self, num_steps: usize) -> anyhow::Result<Times> {
        let input = self
            .input
            .as_mut()
            .context("the pipe was asked for above")?;
        writeln!(input, "{num_steps}")?;
        input.flush()?;
        let line = self.line()?;
        Times::parse(&line).with_context(|| format!("no times: {line:?}"))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.input.take()); // the end of its input is the end of its work
        if let Err(error) = self.child.wait() {
            eprintln!("cannot wait for a side of the benchmark: {error}");
        }
    }
}

/// Times of steps.
#[derive(Debug, Default)]
struct Times {
    /// One per step.
    millis: Vec<f64>,
    /// Of all threads and steps; NaN where the system does not tell.
    cpu_millis: f64,
}

impl Times {
    fn parse(line: &str) -> Option<Self> {
        let answer: Value = serde_json::from_str(line).ok()?; // the caller shows the line
        let millis = answer["millis"].as_array()?;
        Some(Self {
            millis: millis.iter().map(Value::as_f64).collect::<Option<_>>()?,
            cpu_millis: answer["cpu_millis"].as_f64().unwrap_or(f64::NAN),
        })
    }

    fn add(&mut self, other: Self) {
        self.millis.extend(other.millis);
        self.cpu_millis += other.cpu_millis;
    }

    /// Of at least one step.
    fn summed_up(mut self) -> Summary {
        self.millis.sort_by(f64::total_cmp);
        let at = |quarter: usize| self.millis[(self.millis.len() - 1) * quarter / 4];
        Summary {
            fastest: at(0),
            lower: at(1),
            median: at(2),
            upper: at(3),
            cpu: self.cpu_millis / self.millis.len() as f64, // a few dozen
        }
    }
}

/// Quartiles of step times, and CPU time per step, in milliseconds.
struct Summary {
    fastest: f64,
    lower: f64,
    median: f64,
    upper: f64,
    cpu: f64,
}

impl Summary {
    fn to_json(&self) -> Value {
        json!({
            "fastest": self.fastest,
            "lower_quartile": self.lower,
            "median": self.median,
            "upper_quartile": self.upper,
            "cpu": self.cpu,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_those_of_the_sorted_times() {
        let line = r#"{"millis": [5.0, 1.0, 4.0, 2.0, 3.0], "cpu_millis": 20.0}"#;
        let times = Times::parse(line).expect("times").summed_up();
        assert_eq!((times.lower, times.median, times.upper), (2.0, 3.0, 4.0));
        assert_eq!((times.fastest, times.cpu), (1.0, 4.0));
        assert!(Times::parse("[1.0]").is_none() && Times::parse("").is_none());
    }

    #[test]
    fn a_side_that_computes_something_else_is_refused() {
        let check = |difference: Value| json!({ "loss_difference": 1e-6, "gradient_differences": { "start": difference } });
        assert!(ensure_same(&check(json!(1e-4))).is_ok());
        for difference in [json!(2e-3), Value::Null] {
            let error = ensure_same(&check(difference)).expect_err("refused");
            assert!(error.to_string().contains("start"), "{error}");
        }
        assert!(ensure_same(&json!({ "loss_difference": 0.0 })).is_err());
    }
}
