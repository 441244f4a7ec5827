//! Claims about the clients in `clients/`: their own tests pass, and the example in the README of each runs against a
//! real server and prints what the README says. Skipped, with a word, where there is no interpreter.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running `freshet serve`; killed on drop.
struct Server {
    child: Child,
    url: String,
    admin_url: String,
}

impl Server {
    fn start(dir: &Path) -> Self {
        let any_port = "127.0.0.1:0";
        let mut child = Command::new(env!("CARGO_BIN_EXE_freshet"))
            .args(["serve", "--bind", any_port, "--admin-bind", any_port])
            .args(["--set", "model.text_encoder=small"])
            .args(["--set", "train.device=flex"])
            .args(["--set", &format!("access.admin_token={TOKEN}")])
            .arg("--data-dir")
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut said = stdout.lines();
        let mut address = |prefix: &str| {
            let line = said.next().expect("a line").expect("text");
            line.strip_prefix(prefix).expect("an address").to_owned()
        };
        let url = address("freshet listens on ");
        let admin_url = address("and for operators on ");
        Self {
            child,
            url,
            admin_url,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it is gone already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const TOKEN: &str = "a-token-of-the-test";

fn folder(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("a workspace").join("clients").join(name)
}

/// Whether the interpreter is there; says so where it is not.
fn is_there(interpreter: &str) -> bool {
    let found = Command::new(interpreter).arg("--version").output();
    let is_there = found.is_ok_and(|output| output.status.success());
    if !is_there {
        println!("skipped: there is no {interpreter}");
    }
    is_there
}

/// Runs a command to its end; what it has printed.
fn run(command: &mut Command) -> String {
    let output = command.output().expect("runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out.into_owned()
}

fn example(command: &mut Command, folder: &Path, file: &str) {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = Server::start(dir.path());
    let printed = run(command
        .arg(file)
        .current_dir(folder)
        .env("FRESHET_URL", &server.url)
        .env("FRESHET_ADMIN", &server.admin_url)
        .env("FRESHET_TOKEN", TOKEN));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("readable");
    let readme = read("README.md");
    assert!(readme.contains(&read(file)), "{file} is not in the README");
    assert!(
        readme.contains(&printed),
        "the README says else:\n{printed}"
    );
}

#[test]
fn the_client_for_python_does_what_its_readme_says() {
    if !is_there("python3") {
        return;
    }
    let folder = folder("python");
    let python = || {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", &folder);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    };
    let tests = ["-m", "unittest", "discover", "-s", "tests"];
    run(python().args(tests).current_dir(&folder));
    example(&mut python(), &folder, "examples/shop.py");
}

#[test]
fn the_client_for_typescript_does_what_its_readme_says() {
    if !is_there("node") {
        return;
    }
    let folder = folder("typescript");
    let tests = ["--test", "test/client.test.js"];
    run(Command::new("node").args(tests).current_dir(&folder));
    example(&mut Command::new("node"), &folder, "examples/shop.mjs");
}
