//! Where and from what a report was made: machine, command, commit.

use std::path::Path;

use serde::Serialize;

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Name of the processor, where the system tells.
    pub cpu: Option<String>,
    /// Cores this process may use.
    pub num_cores: Option<usize>,
    /// Main memory, where the system tells.
    pub memory_bytes: Option<u64>,
    /// Operating system and architecture.
    pub system: String,
    /// How this program was compiled.
    pub build: &'static str,
}

/// Looks at this machine.
#[must_use]
pub fn machine() -> Machine {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default(); // absent outside Linux: then unknown
    Machine {
        cpu: line_value(&read("/proc/cpuinfo"), "model name").map(str::to_owned),
        num_cores: std::thread::available_parallelism().ok().map(usize::from), // unknown is reported as null
        memory_bytes: line_value(&read("/proc/meminfo"), "MemTotal").and_then(kibibytes),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        build: if cfg!(debug_assertions) {
            "dev profile"
        } else {
            "release profile"
        },
    }
}

/// The command line of this process.
#[must_use]
pub fn command() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let name = Path::new(&program)
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    std::iter::once(name.unwrap_or(program))
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Commit of the repository that this program was built in, with `-dirty` where files differ from it;
/// of the working folder if the program lies elsewhere; the reason where unknown.
///
/// # Errors
/// Git is missing, or neither is a repository with a commit.
pub fn commit() -> Result<String, String> {
    let program = std::env::current_exe().ok(); // then the working folder decides
    let program_dir = program.as_deref().and_then(Path::parent);
    match program_dir.map(commit_in) {
        Some(Ok(commit)) => Ok(commit),
        Some(Err(_)) | None => commit_in(Path::new(".")),
    }
}

fn commit_in(dir: &Path) -> Result<String, String> {
    let commit = git(dir, &["rev-parse", "HEAD"])?;
    let changes = git(dir, &["status", "--porcelain", "--untracked-files=no"])?;
    Ok(if changes.is_empty() {
        commit
    } else {
        format!("{commit}-dirty")
    })
}

fn git(dir: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = std::process::Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(arguments)
        .output()
        .map_err(|error| format!("git cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(
            "neither the program nor the working folder lies in a repository with a commit"
                .to_owned(),
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn line_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024) // anything else is not a size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_lines_are_read() {
        assert_eq!(
            line_value("a\t: 1\nmodel name\t: X 9\n", "model name"),
            Some("X 9")
        );
        assert_eq!(kibibytes("16 kB"), Some(16_384));
        assert_eq!(kibibytes("16"), None);
    }
}
