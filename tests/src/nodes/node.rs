//! A master with its own folder and `meepo.toml`, started from the real binary.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::checking::events::Events;
use crate::checking::status::Status;
use crate::machine::binaries::binary;
use crate::machine::host::Host;
use crate::machine::processes::{self, MARK};
use crate::wait::{DEADLINE, in_time, wait_for, wait_until};

/// What a node is to be. See [`Node::build`].
#[derive(Debug)]
pub struct Builder {
    program: PathBuf,
    host: Host,
    registries: Vec<String>,
    sections: BTreeMap<String, String>,
    listen: Vec<String>,
    start: Vec<String>,
    environment: Vec<(String, String)>,
    shell: Option<String>,
    config: bool,
}

/// A master, or the place of one that is not started yet. When dropped, all its processes are killed.
#[derive(Debug)]
pub struct Node {
    program: PathBuf,
    host: Host,
    folder: TempDir,
    mark: String,
    start: Vec<String>,
    environment: Vec<(String, String)>,
    shell: Option<String>,
    config: bool,
    foreground: Option<Child>,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code, none after a signal.
    pub code: Option<i32>,
    /// What it wrote.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Node {
    /// A node with all three instances and the test worker.
    pub fn test() -> Builder {
        Self::build("meepo-test-node")
    }

    /// A node of one of the workspace's programs. Its instances all listen at an address of its own.
    pub fn build(program: &str) -> Builder {
        let host = Host::new();
        Builder {
            program: binary(program),
            registries: vec![host.registry().to_string()],
            host,
            sections: BTreeMap::new(),
            listen: vec![
                "protocol = \"ws\"\naddress = \"{ip}:19910\"".into(),
                "protocol = \"line\"\naddress = \"{ip}:19909\"".into(),
            ],
            start: Vec::new(),
            environment: Vec::new(),
            shell: None,
            config: true,
        }
    }

    /// The node's address.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The node's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder().join("meepo.toml")
    }

    /// The folder of pid file and control socket.
    pub fn run_dir(&self) -> PathBuf {
        self.folder().join("run")
    }

    /// Where a master in the foreground writes to.
    pub fn output(&self) -> String {
        fs::read_to_string(self.folder().join("output")).unwrap_or_default()
    }

    /// What the test worker of this node wrote down.
    pub fn events(&self) -> Events {
        Events::at(self.folder().join("events"))
    }

    /// Changes the configuration file: each pair is a text and its successor.
    ///
    /// # Panics
    ///
    /// When a text is not there.
    pub fn edit(&self, changes: &[(&str, &str)]) {
        let mut text = fs::read_to_string(self.config()).expect("the node has a configuration");
        for (old, new) in changes {
            assert!(text.contains(old), "{old:?} is not in the configuration:\n{text}");
            text = text.replace(old, new);
        }
        fs::write(self.config(), text).expect("the folder is writable");
    }

    /// A command of the program, not started. `start`, `check` and the like get the node's configuration file.
    ///
    /// What the shell of whoever runs the tests sets for Meepo does not count.
    pub fn prepare(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.shell {
            None => Command::new(&self.program),
            Some(first) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("{first} && exec \"$0\" \"$@\""));
                shell.arg(&self.program);
                shell
            }
        };
        for (key, _) in env::vars_os().filter(|(key, _)| key.as_encoded_bytes().starts_with(b"MEEPO_")) {
            command.env_remove(key);
        }
        command
            .args(arguments)
            .current_dir(self.folder())
            .env(MARK, &self.mark)
            .env("MEEPO_TEST_EVENTS", self.folder().join("events"))
            .env("MEEPO_NODE__RUN_DIR", self.run_dir())
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if self.config
            && !arguments
                .iter()
                .any(|argument| matches!(*argument, "-c" | "--help" | "--version"))
        {
            command.arg("-c").arg(self.config());
        }
        command
    }

    /// Runs a command of the program to its end.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    pub async fn command(&self, arguments: &[&str]) -> Finished {
        let what = format!("the command {arguments:?}");
        // Files, not pipes: a daemon that keeps its output open must not keep us waiting.
        let name = format!("{:016x}", fastrand::u64(..));
        let [out, err] = ["out", "err"].map(|end| self.folder().join(format!("{name}.{end}")));
        let status = self
            .prepare(arguments)
            .stdout(File::create(&out).expect("the folder is writable"))
            .stderr(File::create(&err).expect("the folder is writable"))
            .status();
        let status = in_time(&what, status).await.expect("the program runs");
        let [stdout, stderr] = [out, err].map(|path| {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let _ = fs::remove_file(path);
            text
        });
        Finished {
            code: status.code(),
            stdout,
            stderr,
        }
    }

    /// Starts the master in the foreground and waits until all its children serve.
    pub async fn start(&mut self) {
        self.spawn();
        self.serving().await;
    }

    /// Starts the master in the foreground and does not wait.
    ///
    /// # Panics
    ///
    /// When it runs already.
    pub fn spawn(&mut self) {
        assert!(self.foreground.is_none(), "the node was started already");
        let output = File::options()
            .create(true)
            .append(true)
            .open(self.folder().join("output"))
            .expect("the folder is writable");
        let mut arguments = vec!["start"];
        arguments.extend(self.start.iter().map(String::as_str));
        let child = self
            .prepare(&arguments)
            .stdout(output.try_clone().expect("a descriptor is free"))
            .stderr(output)
            .spawn()
            .expect("the program runs");
        self.foreground = Some(child);
    }

    /// Starts the master as a daemon.
    pub async fn start_daemon(&self) -> Finished {
        let mut arguments = vec!["start", "-d"];
        arguments.extend(self.start.iter().map(String::as_str));
        self.command(&arguments).await
    }

    /// Waits until the children serve.
    ///
    /// # Panics
    ///
    /// When the master ends, or they do not serve in time.
    pub async fn serving(&mut self) {
        let end = tokio::time::Instant::now() + DEADLINE;
        while !self.try_status().await.is_some_and(|status| status.all_serve()) {
            if let Some(child) = &mut self.foreground
                && let Ok(Some(status)) = child.try_wait()
            {
                panic!("the master ended with {status}");
            }
            assert!(tokio::time::Instant::now() < end, "the node does not serve in time");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// `status --json`.
    ///
    /// # Panics
    ///
    /// When the master does not run.
    pub async fn status(&self) -> Status {
        let finished = self.command(&["status", "--json"]).await;
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error} in {finished:?}"))
    }

    /// `status --json`, if a master runs.
    pub async fn try_status(&self) -> Option<Status> {
        let finished = self.command(&["status", "--json"]).await;
        serde_json::from_str(&finished.stdout).ok()
    }

    /// Waits until the status is as it should be, and returns it.
    pub async fn status_when(&self, what: &str, mut right: impl FnMut(&Status) -> bool) -> Status {
        wait_for(what, async || self.try_status().await.filter(|status| right(status))).await
    }

    /// The children of an instance.
    pub async fn pids(&self, instance: &str) -> Vec<u32> {
        self.status().await.instance(instance).pids()
    }

    /// The master that was started in the foreground.
    ///
    /// # Panics
    ///
    /// When none was.
    pub fn master(&self) -> u32 {
        let child = self
            .foreground
            .as_ref()
            .expect("the node was started in the foreground");
        child.id().expect("the master has not been waited for")
    }

    /// Sends a signal to the master that was started in the foreground.
    pub fn signal(&self, signal: Signal) {
        processes::signal(self.master(), signal);
    }

    /// Waits for the end of the master that was started in the foreground, and gives its exit code.
    ///
    /// # Panics
    ///
    /// When none was started.
    pub async fn ended(&mut self) -> Option<i32> {
        let mut child = self.foreground.take().expect("the node was started in the foreground");
        let status = in_time("the end of the master", child.wait()).await;
        status.expect("the master can be waited for").code()
    }

    /// Stops the node as `stop` does, and waits for its end.
    ///
    /// # Panics
    ///
    /// When the command fails.
    pub async fn stop(&mut self) {
        let finished = self.command(&["stop"]).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        if self.foreground.is_some() {
            assert_eq!(self.ended().await, Some(0), "a stopped master ends well");
        }
    }

    /// Kills master and children at once, and waits until all have let go of what they had, such as their addresses.
    pub async fn kill_all(&mut self) {
        let all = self.processes();
        for pid in &all {
            processes::signal(*pid, Signal::SIGKILL);
        }
        self.ended().await;
        let over = async || !all.iter().any(|pid| processes::running(*pid));
        wait_until("all have ended", DEADLINE, over).await;
    }

    /// All processes of the node that run, also those without a parent.
    pub fn processes(&self) -> Vec<u32> {
        processes::marked(&self.mark)
    }

    /// Waits until no process of the node is left.
    pub async fn gone(&self, deadline: Duration) {
        wait_until("no process is left", deadline, async || self.processes().is_empty()).await;
    }

    /// The files in the run folder, but for the log of a daemon.
    pub fn run_files(&self) -> Vec<String> {
        let mut files = names(&self.run_dir());
        files.retain(|name| !name.ends_with(".log"));
        files
    }
}

impl Finished {
    /// The command went well.
    ///
    /// # Panics
    ///
    /// When it did not.
    #[track_caller]
    pub fn fine(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
    }

    /// The command failed, and said why.
    ///
    /// # Panics
    ///
    /// When it went well, died, or said nothing.
    #[track_caller]
    pub fn failed(&self) {
        assert!(self.code.is_some_and(|code| code != 0), "{self:?}");
        assert!(!self.stderr.trim().is_empty(), "the reason is told: {self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
}

impl Builder {
    /// Uses this address instead of a new one.
    pub fn host(mut self, host: &Host) -> Self {
        self.host = host.clone();
        self.registries = vec![host.registry().to_string()];
        self
    }

    /// Uses the registry of another host.
    pub fn registry(self, host: &Host) -> Self {
        self.registries(std::slice::from_ref(host))
    }

    /// Uses the registries of other hosts.
    pub fn registries(mut self, hosts: &[Host]) -> Self {
        self.registries = hosts.iter().map(|host| host.registry().to_string()).collect();
        self
    }

    /// Adds settings to a section. `{ip}` and `{folder}` are replaced.
    pub fn set(mut self, section: &str, settings: &str) -> Self {
        let text = self.sections.entry(section.into()).or_default();
        text.push_str(settings);
        text.push('\n');
        self
    }

    /// Adds a listener of the gateway.
    pub fn listen(mut self, settings: &str) -> Self {
        self.listen.push(settings.into());
        self
    }

    /// Adds settings to the listener of this protocol.
    pub fn set_listen(mut self, protocol: &str, settings: &str) -> Self {
        let head = format!("protocol = \"{protocol}\"");
        for listener in self.listen.iter_mut().filter(|listener| listener.starts_with(&head)) {
            listener.push('\n');
            listener.push_str(settings);
        }
        self
    }

    /// Starts only this instance.
    pub fn only(mut self, instance: &str) -> Self {
        self.start.extend(["--only".into(), instance.into()]);
        self
    }

    /// Sets an environment variable for all commands.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// Runs all commands from a shell that has done this: `umask 077`, `ulimit -n 256`.
    pub fn shell(mut self, first: &str) -> Self {
        self.shell = Some(first.into());
        self
    }

    /// Goes without a configuration file.
    pub fn no_config(mut self) -> Self {
        self.config = false;
        self
    }

    /// Makes folder and configuration, starts nothing.
    ///
    /// # Panics
    ///
    /// When the folder cannot be made.
    pub fn prepare(self) -> Node {
        let folder = tempfile::Builder::new()
            .prefix("meepo-test-")
            .tempdir()
            .expect("a folder for temporary files");
        let node = Node {
            mark: folder.path().display().to_string(),
            program: self.program.clone(),
            host: self.host.clone(),
            start: self.start.clone(),
            environment: self.environment.clone(),
            shell: self.shell.clone(),
            config: self.config,
            foreground: None,
            folder,
        };
        if self.config {
            fs::write(node.config(), self.text(node.folder())).expect("the folder is writable");
        }
        node
    }

    /// Starts the node in the foreground and waits until all children serve.
    pub async fn start(self) -> Node {
        let mut node = self.prepare();
        node.start().await;
        node
    }

    fn text(&self, folder: &Path) -> String {
        let section = |name: &str| self.sections.get(name).map_or("", String::as_str);
        let mut text = format!(
            "[node]\nregistry = {:?}\n{}\n[registry]\naddress = \"{{ip}}:19911\"\n{}\n[worker]\n{}\n\
             [gateway]\ninner = \"{{ip}}:19912\"\n{}\n",
            self.registries,
            section("node"),
            section("registry"),
            section("worker"),
            section("gateway"),
        );
        const ABOVE: [&str; 4] = ["node", "registry", "worker", "gateway"];
        for (name, settings) in self.sections.iter().filter(|(name, _)| !ABOVE.contains(&name.as_str())) {
            text.push_str(&format!("[{name}]\n{settings}\n"));
        }
        for listener in &self.listen {
            text.push_str(&format!("[[gateway.listen]]\n{listener}\n\n"));
        }
        text.replace("{ip}", &self.host.ip().to_string())
            .replace("{folder}", &folder.display().to_string())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        processes::kill_marked(&self.mark);
        if !std::thread::panicking() {
            return;
        }
        for folder in [self.folder().to_path_buf(), self.run_dir()] {
            for name in names(&folder) {
                if name != "output" && name != "events" && !name.ends_with(".log") {
                    continue;
                }
                let text = fs::read_to_string(folder.join(&name)).unwrap_or_default();
                let skipped = text.lines().count().saturating_sub(200);
                let tail: Vec<_> = text.lines().skip(skipped).map(shortened).collect();
                eprintln!("--- {} of {}\n{}", name, self.host.ip(), tail.join("\n"));
            }
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect()
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.into(),
    }
}
