//! Child processes: found, run to the end with their time told, or kept until dropped.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// The program of this name on `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let file_name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&path)
        .map(|dir| dir.join(&file_name))
        .find(|program| program.is_file())
}

/// The cargo that started this binary.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// `1 m 05 s`, `4.2 s`.
pub(crate) fn elapsed_text(elapsed: Duration) -> String {
    let secs = elapsed.as_secs();
    if secs >= 60 {
        format!("{} m {:02} s", secs / 60, secs % 60)
    } else {
        format!("{:.1} s", elapsed.as_secs_f64())
    }
}

/// Runs a step that may take long: says what it is, and at the end how long it took.
///
/// # Errors
/// What `body` answers.
pub(crate) fn step<T>(title: &str, body: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eprintln!("▸ {title} …");
    let started_at = Instant::now();
    let outcome = body();
    let mark = if outcome.is_ok() { "✔" } else { "✘" };
    eprintln!("{mark} {title} ({})", elapsed_text(started_at.elapsed()));
    outcome
}

/// Runs a program to its end; its output goes to the terminal.
///
/// # Errors
/// It cannot be started, or it fails.
pub(crate) fn run_to_end(command: &mut Command) -> anyhow::Result<()> {
    let shown = shown(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// Runs a program to its end, passing each line of its standard output on and to `on_line`.
/// Answers whether it succeeded.
///
/// # Errors
/// It cannot be started.
pub(crate) fn run_lines(
    command: &mut Command,
    mut on_line: impl FnMut(&str),
) -> anyhow::Result<bool> {
    let shown = shown(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let stdout = child
        .stdout
        .take()
        .context("the pipe was asked for above")?;
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        on_line(text.trim_end());
        line.clear();
    }
    Ok(child.wait()?.success())
}

fn shown(command: &Command) -> String {
    let mut shown = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        shown.push(' ');
        shown.push_str(&argument.to_string_lossy());
    }
    shown
}

/// A program that runs until this is dropped; it is asked to end first.
#[derive(Debug)]
pub(crate) struct Background {
    name: &'static str,
    child: Child,
}

/// How long a program may take to drain and exit.
const FAREWELL: Duration = Duration::from_secs(10);

impl Background {
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> anyhow::Result<Self> {
        let shown = shown(command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {shown}"))?;
        Ok(Self { name, child })
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// The system cannot tell.
    pub(crate) fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Sends the signal that a service manager would send.
    fn ask_to_end(&mut self) {
        let asked = cfg!(unix)
            && Command::new("kill")
                .arg(self.child.id().to_string())
                .stderr(Stdio::null())
                .status()
                .is_ok();
        if !asked {
            self.kill();
        }
    }

    fn kill(&mut self) {
        if let Err(error) = self.child.kill() {
            eprintln!("cannot end {}: {error}", self.name);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.ask_to_end();
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        if let Err(error) = self.child.wait() {
            eprintln!("cannot wait for {}: {error}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_text_names_minutes_from_one_minute_on() {
        assert_eq!(elapsed_text(Duration::from_millis(4_210)), "4.2 s");
        assert_eq!(elapsed_text(Duration::from_secs(65)), "1 m 05 s");
    }
}
