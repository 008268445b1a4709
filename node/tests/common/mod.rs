//! A node of the example `echo`, with a directory of its own, driven as a person would: by its command line and by signals.
#![allow(dead_code, unreachable_pub, reason = "not each test needs all of it")]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);

pub struct Node {
    pub dir: tempfile::TempDir,
    pub program: PathBuf,
}

impl Node {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("node-").tempdir().unwrap();
        let node = Self {
            dir,
            program: program().into(),
        };
        node.configure("", "");
        node
    }

    /// Writes the configuration: lines of `[node]` and of `[echo]`.
    pub fn configure(&self, node: &str, echo: &str) {
        let run = self.run_dir();
        let trouble = self.path("trouble");
        let text = format!(
            "[node]\nrun_dir = \"{}\"\n{node}\n[echo]\ntrouble = \"{}\"\n{echo}\n",
            run.display(),
            trouble.display()
        );
        std::fs::write(self.config(), text).unwrap();
    }

    /// From now on children that start misbehave.
    pub fn trouble(&self, how: &str) {
        std::fs::write(self.path("trouble"), how).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("meepo.toml")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.run_dir().join("echo.log")).unwrap_or_default()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .arg("-c")
            .arg(self.config())
            .current_dir(self.dir.path());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MEEPO_")) {
            command.env_remove(name);
        }
        command
    }

    /// A command without a file: all settings, paths among them that are relative, come from the environment.
    pub fn without_file(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(self.dir.path());
        command.env_remove("MEEPO_CONFIG").env("MEEPO_NODE__RUN_DIR", "run");
        command.env("MEEPO_NODE__SECRET_FILE", "secret");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Done {
        finish(
            self.command(args)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// Starts in the background, which must succeed.
    pub fn start(&self) {
        self.run(&["start", "-d"]).ok();
    }

    /// Starts in the foreground, in a process group of its own, and waits until it serves.
    pub fn foreground(&self) -> Foreground {
        let mut command = self.command(&["start"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
            .stderr(File::create(self.path("stderr")).unwrap())
            .process_group(0);
        let child = command.spawn().unwrap();
        until("the node serves", || {
            self.run(&["status"]).code == 0 && self.status()["state"] == "serving"
        });
        Foreground(child)
    }

    pub fn status(&self) -> Value {
        let done = self.run(&["status", "--json"]);
        assert!([0, 4].contains(&done.code), "{done:?}");
        serde_json::from_str(&done.out).unwrap()
    }

    pub fn master(&self) -> i32 {
        pid(&self.status()["pid"])
    }

    /// All children in this state.
    pub fn children(&self, state: &str) -> Vec<Value> {
        let status = self.status();
        let children = status["instances"][0]["children"].as_array().unwrap();
        children
            .iter()
            .filter(|child| child["state"] == state)
            .cloned()
            .collect()
    }

    pub fn serving(&self) -> Vec<i32> {
        self.children("serving")
            .iter()
            .map(|child| pid(&child["pid"]))
            .collect()
    }

    pub fn address(&self) -> String {
        self.status()["instances"][0]["listeners"][0]["address"]
            .as_str()
            .unwrap()
            .into()
    }

    pub fn connect(&self) -> Client {
        connect(&self.address()).unwrap()
    }

    /// Nothing is left but the log.
    pub fn assert_clean(&self, pids: &[i32]) {
        for pid in pids {
            until("all processes are gone", || !alive(*pid));
        }
        assert!(!self.run_dir().join("echo.pid").exists());
        assert!(!self.run_dir().join("echo.sock").exists());
        assert_eq!(self.run(&["status"]).code, 3);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.config().exists() {
            self.configure("", "");
            self.run(&["kill"]);
        }
    }
}

/// A node in the foreground; ended with the test.
pub struct Foreground(pub Child);

impl Foreground {
    pub fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    pub fn wait(&mut self) -> i32 {
        let mut code = None;
        until("the master ends", || {
            code = self.0.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    #[track_caller]
    pub fn ok(self) -> Self {
        self.is(0)
    }

    #[track_caller]
    pub fn is(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.out.contains(text) || self.err.contains(text),
            "{text:?} in {self:?}"
        );
        self
    }
}

pub fn finish(mut child: Child) -> Done {
    until("the command ends", || child.try_wait().unwrap().is_some());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Done {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// An address that nobody else uses, nor the ports after it: loopback has many, and no two tests get the same.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, high, low, NEXT.fetch_add(1, Ordering::Relaxed)], 21000))
}

/// A client of the echo.
pub struct Client {
    stream: BufReader<TcpStream>,
    pub greeting: String,
    /// The child that serves it.
    pub pid: i32,
}

pub fn connect(address: &str) -> std::io::Result<Client> {
    greeted(TcpStream::connect(address)?)
}

/// A client whose connection may still wait for a child.
pub fn greeted(stream: TcpStream) -> std::io::Result<Client> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut client = Client {
        stream: BufReader::new(stream),
        greeting: String::new(),
        pid: 0,
    };
    let line = client.line()?;
    let (greeting, pid) = line.rsplit_once(' ').ok_or(std::io::ErrorKind::UnexpectedEof)?;
    client.greeting = greeting.into();
    client.pid = pid.parse().unwrap();
    Ok(client)
}

impl Client {
    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line.trim_end().into())
    }

    /// What comes until the connection ends.
    pub fn rest(&mut self) -> std::io::Result<String> {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.stream, &mut text)?;
        Ok(text)
    }

    pub fn echo(&mut self, text: &str) -> std::io::Result<String> {
        self.stream.get_mut().write_all(format!("{text}\n").as_bytes())?;
        self.line()
    }
}

/// Waits for something to become true.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Whether a process runs; one that nobody has reaped does not.
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn pid(value: &Value) -> i32 {
    value.as_i64().unwrap().try_into().unwrap()
}

/// The example, which is built with the tests.
pub fn program() -> &'static Path {
    static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let program = test.ancestors().nth(2).unwrap().join("examples/echo");
        assert!(
            program.exists(),
            "the example is built with `cargo test -p meepo-node` or `cargo build --examples`"
        );
        program
    })
}
