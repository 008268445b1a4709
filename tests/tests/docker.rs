//! `deploy/Dockerfile` and `deploy/docker-compose.yml` on a real Docker engine, without a network.
//!
//! It runs with `MEEPO_TEST_DOCKER=1` only: it needs Docker and docker-compose, a Debian machine and minutes.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use meepo_tests::binaries::workspace;
use meepo_tests::{Host, Line, Ws, http, wait_for, wait_until};
use tempfile::TempDir;

const SERVICES: [&str; 5] = ["registry", "gateway-1", "gateway-2", "worker-1", "worker-2"];

/// What the test makes; all of it is removed when it is dropped.
struct Compose {
    /// A copy of the work tree: it may change during the build, and both stages must see the same.
    context: TempDir,
    project: String,
    image: String,
    host: Host,
    base_images: Vec<String>,
}

impl Compose {
    /// Builds the image.
    fn build() -> Self {
        let made = output(Command::new(workspace().join("tests/docker/base-images")));
        let host = Host::new();
        let project = format!("meepo-test-{}", std::process::id());
        let compose = Self {
            context: copy(),
            image: format!("{project}:latest"),
            project,
            host,
            base_images: made.lines().map(Into::into).collect(),
        };
        // The first stage gets a name as well, so that it can be removed.
        compose.stage("build", &compose.first_stage());
        compose.stage("", &compose.image);
        compose
    }

    fn stage(&self, target: &str, image: &str) {
        let mut build = Command::new("docker");
        build
            .env("DOCKER_BUILDKIT", "0")
            .args(["build", "--network", "none", "--build-arg", "PROFILE=dev", "--force-rm"])
            .args(["--label", &self.label(), "--target", target])
            .args(["--file", "deploy/Dockerfile", "--tag", image, "."])
            .current_dir(self.context.path());
        output(build);
    }

    fn label(&self) -> String {
        format!("meepo.test={}", self.project)
    }

    /// The images that carry this test's label, also those that lost their name.
    fn images(&self) -> Vec<String> {
        let label = format!("label={}", self.label());
        let ids = docker(&["images", "--quiet", "--no-trunc", "--filter", &label]);
        ids.lines().map(Into::into).collect()
    }

    fn first_stage(&self) -> String {
        format!("{}-build", self.project)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("docker-compose");
        command
            .args(["--project-name", &self.project, "--file", "deploy/docker-compose.yml"])
            .args(arguments)
            .env("MEEPO_IMAGE", &self.image)
            .env("MEEPO_BIND", self.host.ip().to_string())
            .env("MEEPO_SECRET", "a secret of the test")
            .current_dir(workspace());
        output(command)
    }

    fn container(&self, service: &str) -> String {
        self.run(&["ps", "--quiet", service]).trim().into()
    }

    fn inspect(&self, service: &str, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.container(service)])
            .trim()
            .into()
    }

    /// All containers, networks and images of this test.
    fn left(&self) -> String {
        let label = format!("label=com.docker.compose.project={}", self.project);
        [
            docker(&["ps", "--all", "--quiet", "--filter", &label]),
            docker(&["network", "ls", "--quiet", "--filter", &label]),
            docker(&["volume", "ls", "--quiet", "--filter", &label]),
            self.images().concat(),
        ]
        .concat()
    }

    fn remove(&self) {
        self.run(&["down", "--volumes", "--timeout", "1"]);
        for image in self.images().iter().chain(self.base_images.iter().rev()) {
            docker(&["rmi", "--force", image]);
        }
    }

    /// A port of the host.
    fn port(&self, port: u16) -> SocketAddr {
        self.host.port(port)
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut logs = Command::new("docker-compose");
        logs.args([
            "--project-name",
            &self.project,
            "--file",
            "deploy/docker-compose.yml",
            "logs",
            "--no-color",
        ])
        .current_dir(workspace());
        if let Ok(logs) = logs.output() {
            eprintln!("{}", String::from_utf8_lossy(&logs.stdout));
        }
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.remove()));
    }
}

/// The files that the image is built from, without what has been built.
fn copy() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let listed = std::fs::read_to_string(workspace().join(".dockerignore")).expect("the list of files");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--exclude=target", "--file=-", ".dockerignore"])
        .args(listed.lines().filter_map(|line| line.strip_prefix('!')))
        .current_dir(workspace());
    let mut unpack = Command::new("tar");
    unpack.args(["--extract", "--directory"]).arg(folder.path());
    let mut packed = tar.stdout(Stdio::piped()).spawn().expect("tar runs");
    unpack.stdin(packed.stdout.take().expect("a pipe"));
    output(unpack);
    assert!(
        packed.wait().is_ok_and(|status| status.success()),
        "tar packs the files"
    );
    folder
}

fn docker(arguments: &[&str]) -> String {
    let mut command = Command::new("docker");
    command.args(arguments);
    output(command)
}

fn output(mut command: Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_on_two_gateways_chat_and_a_stop_drains() {
    if std::env::var("MEEPO_TEST_DOCKER").as_deref() != Ok("1") {
        // Written directly: the test runner shows it although the test does not fail.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: the Docker test runs with MEEPO_TEST_DOCKER=1 only"
        );
        return;
    }
    let compose = Compose::build();
    compose.run(&["up", "--detach", "--no-build"]);
    for service in SERVICES {
        wait_until(&format!("{service} is healthy"), Duration::from_secs(60), async || {
            compose.inspect(service, "{{.State.Health.Status}}") == "healthy"
        })
        .await;
        assert_ne!(docker(&["exec", &compose.container(service), "id", "-u"]).trim(), "0");
    }

    let page = http::get(compose.port(19920), "/").await;
    assert!(page.status == 200 && page.body.contains("Meepo chat"), "{page:?}");

    let mut ann = greet(compose.port(19909), "ann").await;
    let mut bob = greet(compose.port(19919), "bob").await;
    // The workers may still be on their way to the other gateway.
    wait_for("ann hears bob", async || {
        bob.send("good morning").await;
        let heard = ann.until("good morning");
        tokio::time::timeout(Duration::from_secs(1), heard).await.ok()
    })
    .await;
    ann.send("and to you").await;
    assert!(bob.until("and to you").await.contains("ann"));

    // One worker goes: the chat goes on.
    stop(&compose, "worker-1");
    bob.send("one worker less").await;
    ann.until("one worker less").await;

    // A gateway tells its clients that it goes.
    let mut browser = Ws::connect(compose.port(19920)).await;
    let end = tokio::spawn(async move { browser.closed().await });
    stop(&compose, "gateway-2");
    assert_eq!(end.await.expect("it does not panic").0, 1001);
    bob.rest().await;
    ann.send("still here").await;

    for service in ["gateway-1", "worker-2", "registry"] {
        stop(&compose, service);
    }
    compose.remove();
    assert_eq!(compose.left(), "", "all is removed");
}

/// A client of the line protocol that has a name in the chat room.
async fn greet(address: SocketAddr, name: &str) -> Line {
    let mut client = Line::connect(address).await;
    client.send(&format!("/name {name}")).await;
    client.until(name).await;
    client
}

/// Stops a service as an operator does: it ends well, in time.
fn stop(compose: &Compose, service: &str) {
    let began = Instant::now();
    docker(&["stop", "-t", "20", &compose.container(service)]);
    assert!(
        began.elapsed() < Duration::from_secs(19),
        "{service}: {:?}",
        began.elapsed()
    );
    let all = compose.run(&["ps", "--all", "--quiet", service]);
    let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", all.trim()]);
    assert_eq!(code.trim(), "0", "{service} ends well");
}
