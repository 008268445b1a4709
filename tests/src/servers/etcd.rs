//! A cluster of etcd of a test's own.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::machine::host::Host;
use crate::machine::processes::{self, MARK};
use crate::wait::{in_time, wait_for};

/// How long a member may take for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Three members, each on an address of its own. When dropped, their processes are killed.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    folder: TempDir,
    mark: String,
}

#[derive(Debug)]
struct Member {
    host: Host,
    process: Option<Child>,
    frozen: bool,
}

impl Etcd {
    /// Starts three members and waits until they agree.
    ///
    /// None, with a line that says so, when there is no program `etcd`; unless `MEEPO_TEST_ETCD` asks for it.
    ///
    /// # Panics
    ///
    /// When it has to be possible and is not.
    pub async fn start() -> Option<Self> {
        let version = Command::new("etcd").arg("--version").output().await;
        if let Err(error) = version {
            let asked = std::env::var("MEEPO_TEST_ETCD").is_ok_and(|value| value == "1");
            assert!(!asked, "there is no program etcd: {error}");
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            // Past the harness, which shows nothing of a test that passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED {name}: there is no program etcd");
            return None;
        }
        let folder = tempfile::Builder::new()
            .prefix("meepo-etcd-")
            .tempdir()
            .expect("a folder for temporary files");
        let member = || Member {
            host: Host::new(),
            process: None,
            frozen: false,
        };
        let mut etcd = Self {
            members: vec![member(), member(), member()],
            mark: folder.path().display().to_string(),
            folder,
        };
        for which in 0..etcd.members.len() {
            etcd.begin(which);
        }
        etcd.agree().await;
        Some(etcd)
    }

    /// Settings of a registry that uses all members.
    pub fn settings(&self) -> String {
        format!("store = \"etcd\"\netcd.endpoints = {:?}", self.endpoints())
    }

    /// Where all members are.
    pub fn endpoints(&self) -> Vec<String> {
        let members = self.members.iter();
        members.map(|member| member.address().to_string()).collect()
    }

    /// How many members there are, be they there or not.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Starts a member that is not there.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn begin(&mut self, which: usize) {
        let url = |member: &Member, port| format!("http://{}", member.host.port(port));
        let members = self.members.iter().enumerate();
        let cluster: Vec<_> = members
            .map(|(number, member)| format!("m{number}={}", url(member, 2380)))
            .collect();
        let member = &self.members[which];
        let name = format!("m{which}");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("{name}.log")))
            .expect("the folder is writable");
        let mut command = Command::new("etcd");
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.as_encoded_bytes().starts_with(b"ETCD")) {
            command.env_remove(key);
        }
        let child = command
            .args(["--name", &name])
            .arg("--data-dir")
            .arg(self.folder.path().join(&name))
            .args(["--listen-client-urls", &url(member, 2379)])
            .args(["--advertise-client-urls", &url(member, 2379)])
            .args(["--listen-peer-urls", &url(member, 2380)])
            .args(["--initial-advertise-peer-urls", &url(member, 2380)])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(["--initial-cluster-token", &self.mark])
            .args(["--logger", "zap", "--log-outputs", "stderr"])
            .env(MARK, &self.mark)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor is free"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("etcd runs");
        self.members[which].process = Some(child);
    }

    /// Kills a member.
    ///
    /// # Panics
    ///
    /// When it is not there.
    pub async fn kill(&mut self, which: usize) {
        let member = &mut self.members[which];
        let mut process = member.process.take().expect("the member runs");
        member.frozen = false;
        process.start_kill().expect("the member can be killed");
        let _ = in_time("the end of a member", process.wait()).await;
    }

    /// Freezes a member: connections to it stand, and nothing answers.
    pub fn freeze(&mut self, which: usize) {
        self.signal(which, Signal::SIGSTOP);
        self.members[which].frozen = true;
    }

    /// Lets a frozen member go on.
    pub fn thaw(&mut self, which: usize) {
        self.signal(which, Signal::SIGCONT);
        self.members[which].frozen = false;
    }

    fn signal(&self, which: usize, signal: Signal) {
        let process = self.members[which].process.as_ref();
        let pid = process.and_then(Child::id).expect("the member runs");
        processes::signal(pid, signal);
    }

    /// Waits until the members have a leader and take writes.
    pub async fn agree(&self) {
        wait_for("etcd takes writes", async || self.revision().await).await;
    }

    /// The member that leads.
    pub async fn leader(&self) -> usize {
        wait_for("etcd has a leader", async || {
            for which in 0..self.members.len() {
                let status = self.ask(which, "maintenance/status", json!({})).await;
                if let Some(status) = status
                    && status["leader"].is_string()
                    && status["leader"] == status["header"]["member_id"]
                {
                    return Some(which);
                }
            }
            None
        })
        .await
    }

    /// Forgets all that has happened so far: watches of what was before end.
    pub async fn compact(&self) {
        let revision = wait_for("etcd takes writes", async || self.revision().await).await;
        let compacted = async || self.request("kv/compaction", json!({ "revision": revision })).await;
        wait_for("etcd forgets", compacted).await;
    }

    /// Ends all leases, and so takes off all that registries have put there.
    ///
    /// # Panics
    ///
    /// When there are none.
    pub async fn revoke_all(&self) {
        let leases = wait_for("etcd lists leases", async || {
            self.request("lease/leases", json!({})).await
        })
        .await;
        let leases = leases["leases"].as_array().cloned().unwrap_or_default();
        assert!(!leases.is_empty(), "no registry has a lease");
        for lease in leases {
            let revoked = async || self.request("lease/revoke", lease.clone()).await;
            wait_for("etcd ends a lease", revoked).await;
        }
    }

    /// Writes something, and gives its revision.
    async fn revision(&self) -> Option<String> {
        // "test" in base 64.
        let written = self.request("kv/put", json!({ "key": "dGVzdA==" })).await?;
        written["header"]["revision"].as_str().map(Into::into)
    }

    /// Asks the members in turn.
    async fn request(&self, call: &str, body: Value) -> Option<Value> {
        for which in 0..self.members.len() {
            if let Some(answer) = self.ask(which, call, body.clone()).await {
                return Some(answer);
            }
        }
        None
    }

    async fn ask(&self, which: usize, call: &str, body: Value) -> Option<Value> {
        let member = &self.members[which];
        if member.process.is_none() || member.frozen {
            return None;
        }
        let (path, body) = (format!("/v3/{call}"), body.to_string());
        timeout(PATIENCE, post(member.address(), &path, &body)).await.ok()?
    }
}

impl Member {
    fn address(&self) -> SocketAddr {
        self.host.port(2379)
    }
}

/// The body of an answer that is fine.
async fn post(address: SocketAddr, path: &str, body: &str) -> Option<Value> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    let length = body.len();
    let head = format!("POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n");
    socket.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|status| *status == "200")?;
    serde_json::from_str(body).ok()
}

impl Drop for Etcd {
    fn drop(&mut self) {
        processes::kill_marked(&self.mark);
        if !std::thread::panicking() {
            return;
        }
        for which in 0..self.members.len() {
            let text = fs::read_to_string(self.folder.path().join(format!("m{which}.log"))).unwrap_or_default();
            let skipped = text.lines().count().saturating_sub(20);
            let tail: Vec<_> = text.lines().skip(skipped).collect();
            eprintln!("--- etcd m{which}\n{}", tail.join("\n"));
        }
    }
}
