//! The node of the tests: registry, gateway and a worker that writes down what it sees and does what messages say.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use meepo_node::Master;
use meepo_node::clock::since_boot;
use meepo_tests::Record;
use meepo_worker::{
    Answer, Client, ClientId, CloseReason, Cluster, Handler, HandlerError, Hello, JobError, LastWords, Lease, Message,
    Reject, Request, RequestError, Response, Result,
};
use tokio::time::sleep;

/// Longer than any test waits.
const HOUR: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    Master::from_args()
        .version(env!("CARGO_PKG_VERSION"))
        .about("registry, gateway and a worker for tests")
        .instance(meepo_registry::instance())
        .instance(meepo_gateway::instance())
        .instance(meepo_worker::instance(Recorder::new))
        .run()
}

/// Writes each event to the file `MEEPO_TEST_EVENTS`, and answers messages.
struct Recorder {
    events: File,
    /// The longest that a handler of a message takes, in milliseconds: `MEEPO_TEST_SLOW`.
    slow: u64,
    /// What the last word is: `say`, or `hang` for one that never ends. `MEEPO_TEST_FAREWELL`.
    farewell: String,
}

impl Recorder {
    fn new() -> Self {
        let path = std::env::var_os("MEEPO_TEST_EVENTS").unwrap_or_else(|| "/dev/null".into());
        let events = File::options().create(true).append(true).open(path);
        let slow = std::env::var("MEEPO_TEST_SLOW").unwrap_or_default();
        Self {
            events: events.expect("the file of events can be opened"),
            slow: slow.parse().unwrap_or(0),
            farewell: std::env::var("MEEPO_TEST_FAREWELL").unwrap_or_default(),
        }
    }

    fn write(&self, event: &str, client: &Client, record: Record) {
        self.write_line(Record {
            event: event.into(),
            client: client.id().to_string(),
            redelivered: client.redelivered(),
            paused: client.is_paused(),
            ..record
        });
    }

    /// One write of one line, so that children do not mix.
    fn write_line(&self, mut record: Record) {
        record.pid = std::process::id();
        let mut line = serde_json::to_string(&record).expect("a record is plain data");
        line.push('\n');
        (&self.events)
            .write_all(line.as_bytes())
            .expect("events can be written");
    }
}

impl Handler for Recorder {
    async fn on_start(&self, cluster: &Cluster) -> Result<()> {
        self.write_line(Record {
            event: "start".into(),
            ..Record::default()
        });
        // A program whose start code fails, until the file has gone.
        if let Some(path) = std::env::var_os("MEEPO_TEST_CRASH")
            && std::fs::exists(path)?
        {
            std::process::exit(3);
        }
        if let Some(path) = std::env::var_os("MEEPO_TEST_JOBS") {
            cluster.job("ticks", move |_cluster, lease| tick(path.clone().into(), lease))?;
            let twice = cluster.job("ticks", |_cluster, _lease| async { Ok(()) });
            assert_eq!(twice, Err(JobError::Twice("ticks".into())));
        }
        Ok(())
    }

    /// The query of a WebSocket request says what to do: `?sleep=500`, `?reject=403`, `?panic`, `?join=g`, `?set=value`,
    /// `?close=4401`. For line clients, which have none, the variable `MEEPO_TEST_LINE_QUERY` says it.
    async fn on_connect(&self, client: &Client, hello: &Hello) -> Result<(), Reject> {
        self.write(
            "connect",
            client,
            Record {
                path: hello.path().into(),
                query: hello.query().into(),
                peer: hello.peer().into(),
                protocol: hello.protocol().into(),
                text: hello.header("x-test").unwrap_or_default().into(),
                ..Record::default()
            },
        );
        let line = std::env::var("MEEPO_TEST_LINE_QUERY").unwrap_or_default();
        let line = Hello::new("", "line").with_query(line);
        let query = if hello.protocol() == "line" { &line } else { hello };
        if let Some(time) = query.query_value("sleep") {
            sleep(millis(&time)).await;
        }
        if let Some(status) = query.query_value("reject") {
            return Err(Reject::new(status.parse().unwrap_or(500), "not today"));
        }
        if query.query_value("panic").is_some() {
            panic!("asked to panic in the connect handler");
        }
        if let Some(code) = query.query_value("close") {
            client.close(code.parse().unwrap_or(4000), "why");
        }
        if let Some(group) = query.query_value("join") {
            client.join(group);
        }
        if let Some(value) = query.query_value("set") {
            client.set("set", value);
        }
        self.write("connected", client, Record::default());
        Ok(())
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
        self.write(
            "message",
            client,
            Record {
                text: message
                    .text()
                    .map_or_else(|| message.bytes().len().to_string(), Into::into),
                binary: !message.is_text(),
                ..Record::default()
            },
        );
        if self.slow > 0 {
            sleep(Duration::from_millis(fastrand::u64(..=self.slow))).await;
        }
        let answer = match message.text() {
            Some(text) => self.act(client, text).await?,
            None => Some(message.clone()),
        };
        if let Some(answer) = answer {
            client.send(answer);
        }
        self.write("handled", client, Record::default());
        Ok(())
    }

    async fn on_last_words(&self, client: &Client, why: LastWords) {
        if self.farewell.is_empty() {
            return;
        }
        let text = format!("{why:?}");
        client.send(format!("farewell: {text}"));
        self.write(
            "farewell",
            client,
            Record {
                text,
                ..Record::default()
            },
        );
        if self.farewell == "hang" {
            std::future::pending().await
        }
    }

    /// The query says what to do: `?sleep=500`, `?status=201`, `?header=name&value=text`, `?big=5000`, `?fail`, `?panic`,
    /// `?exit`, `?hang` (at the first time only), `?hang-always`. The answer tells what came.
    async fn on_request(&self, request: Request) -> Result<Response> {
        let record = |event: &str| Record {
            event: event.into(),
            path: request.path().into(),
            query: request.query().into(),
            peer: request.peer().into(),
            text: request.method().into(),
            redelivered: request.redelivered(),
            ..Record::default()
        };
        self.write_line(record("request"));
        let asked = |key: &str| request.query_value(key);
        if let Some(time) = asked("sleep") {
            sleep(millis(&time)).await;
        }
        if asked("hang-always").is_some() || asked("hang").is_some() && !request.redelivered() {
            std::future::pending::<()>().await;
        }
        if asked("fail").is_some() {
            return Err("asked to fail a request".into());
        }
        if asked("panic").is_some() {
            panic!("asked to panic in a request");
        }
        if asked("exit").is_some() {
            std::process::exit(7);
        }
        let body = request.body().iter().take(100).map(|byte| format!("{byte:02x}"));
        let headers: Vec<_> = request.headers().iter().collect();
        let told = serde_json::json!({
            "method": request.method(),
            "path": request.path(),
            "query": request.query(),
            "peer": request.peer(),
            "headers": headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            "test": request.header("x-test"),
            "cookie": request.cookie("b"),
            "length": request.body().len(),
            "body": body.collect::<String>(),
            "redelivered": request.redelivered(),
            "pid": std::process::id(),
            "online": request.cluster().count().await.value,
        });
        let mut response = Response::json(&told);
        if let Some(status) = asked("status") {
            response = response.with_status(status.parse()?);
        }
        if let Some(name) = asked("header") {
            response = response.with_header(name, asked("value").unwrap_or_default());
        }
        if let Some(size) = asked("big") {
            response = response.with_body("x".repeat(size.parse()?));
        }
        response = response
            .with_header("set-cookie", "a=1")
            .with_header("set-cookie", "b=2")
            .with_header("connection", "x-private")
            .with_header("x-private", "1");
        self.write_line(record("answered"));
        Ok(response)
    }

    async fn on_close(&self, client: &Client, reason: &CloseReason) {
        self.write(
            "close",
            client,
            Record {
                text: reason.text.clone(),
                cause: reason.cause.to_string(),
                code: reason.code,
                query: client.get("k").unwrap_or_default(),
                ..Record::default()
            },
        );
    }

    async fn on_buffer_full(&self, client: &Client) {
        self.write("full", client, Record::default());
    }

    async fn on_buffer_empty(&self, client: &Client) {
        self.write("empty", client, Record::default());
    }

    async fn on_error(&self, client: &Client, error: &HandlerError) {
        let text = error.to_string();
        self.write(
            "error",
            client,
            Record {
                text,
                ..Record::default()
            },
        );
    }

    async fn on_stop(&self, _cluster: &Cluster) {
        self.write_line(Record {
            event: "stop".into(),
            ..Record::default()
        });
    }
}

impl Recorder {
    /// Does what a message says; one that says nothing is sent back. Gives the answer.
    async fn act(&self, client: &Client, text: &str) -> Result<Option<Message>> {
        let cluster = client.cluster();
        let mut words = text.splitn(3, ' ');
        let command = words.next().unwrap_or_default();
        let first = words.next().unwrap_or_default();
        let rest = words.next().unwrap_or_default();
        let mut answer = None;
        match command {
            "panic" => panic!("asked to panic"),
            "fail" => return Err("asked to fail".into()),
            "exit" => std::process::exit(7),
            "quiet" => {}
            "sleep" => {
                sleep(millis(first)).await;
                answer = Some("slept".into());
            }
            // For ever, but at the first time only.
            "hang" if !client.redelivered() => std::future::pending().await,
            "hang-always" => std::future::pending().await,
            "pause" => client.pause(),
            "resume" => client.resume(),
            "pause-of" => cluster.client(id(first)?).pause(),
            "resume-of" => cluster.client(id(first)?).resume(),
            "id" => answer = Some(client.id().to_string()),
            "pid" => answer = Some(std::process::id().to_string()),
            "version" => answer = Some(std::env::var("MEEPO_TEST_VERSION").unwrap_or_default()),
            "join" => client.join(first),
            "leave" => client.leave(first),
            "set" => client.set(first, rest),
            "remove" => client.remove(first),
            "get" => answer = Some(client.get(first).unwrap_or_else(|| "-".into())),
            "close" => client.close(first.parse()?, rest),
            "send-group" => cluster.group(first).send(rest),
            "send-others" => cluster.group(first).except(client.id()).send(rest),
            "send-all" => cluster.all().send(rest),
            "send-to" => cluster.client(id(first)?).send(rest),
            "close-of" => cluster.client(id(first)?).close(4000, rest),
            "set-of" => cluster.client(id(first)?).set("k", rest),
            "join-of" => cluster.client(id(first)?).join(rest),
            "session-of" => {
                let answered = cluster.session(id(first)?).await;
                answer = Some(serde_json::to_string(&answered.value)?);
            }
            "big" => client.send("x".repeat(first.parse()?)),
            "big-binary" => client.send(vec![b'x'; first.parse()?]),
            "big-then-close" => {
                client.send("x".repeat(first.parse()?));
                client.close(4001, rest);
            }
            "burst" => {
                for number in 0..first.parse()? {
                    client.send(format!("{number}{rest}"));
                }
            }
            "set-many" => {
                for number in 1..=rest.parse::<u32>()? {
                    cluster
                        .client(client.id())
                        .set(format!("{first}{number}"), number.to_string());
                }
            }
            "who" => {
                let answered = cluster.members(first).await;
                let mut sessions: Vec<_> = answered.value.into_iter().map(|member| member.session).collect();
                sessions.sort();
                answer = Some(serde_json::to_string(&sessions)?);
            }
            "count" => answer = Some(cluster.members(first).await.value.len().to_string()),
            "bind" => client.bind(first),
            "bind-of" => cluster.client(id(first)?).bind(rest),
            "unbind" => client.unbind(),
            "send-uid" => cluster.uid(first).send(rest),
            "send-uids" => cluster.uids(first.split(',')).send(rest),
            "send-groups" => cluster.groups(first.split(',')).send(rest),
            "send-clients" => {
                let ids: Result<Vec<ClientId>, _> = first.split(',').map(id).collect();
                cluster.clients(ids?).send(rest);
            }
            // `send-but GROUP UID TEXT`
            "send-but" => {
                let (uid, text) = rest.split_once(' ').unwrap_or_default();
                cluster.group(first).except_uid(uid).send(text);
            }
            "close-uid" => cluster.uid(first).close(4009, rest),
            "destroy" => client.destroy(),
            "dissolve" => cluster.dissolve(first),
            "update" => client.update(pairs(first)),
            "update-of" => cluster.client(id(first)?).update(pairs(rest)),
            "replace" => client.replace_session(pairs(first)),
            // `flood CLIENT BYTES`, until the last is known of.
            "flood" => {
                let delivery = cluster
                    .client(id(first)?)
                    .send_and_confirm("x".repeat(rest.parse()?))
                    .await;
                answer = Some(format!("{delivery:?}"));
            }
            "confirm" => {
                let delivery = cluster.client(id(first)?).send_and_confirm(rest).await;
                answer = Some(format!("{delivery:?}"));
            }
            "after" => {
                let text = rest.to_owned();
                client.after(millis(first), async move |client| client.send(text));
            }
            "every" => {
                let text = rest.to_owned();
                client.every(millis(first), move |client| {
                    let text = text.clone();
                    async move { client.send(text) }
                });
            }
            "request" => answer = Some(replied(client.request(first, HOUR).await)),
            "request-after" => {
                let question = rest.to_owned();
                client.after(millis(first), async move |client| {
                    client.send(replied(client.request(question, HOUR).await));
                });
            }
            // `request-re MILLISECONDS QUESTION`: the reply begins with `re:`.
            "request-re" => {
                let is_reply = |message: &Message| message.text().is_some_and(|text| text.starts_with("re:"));
                let reply = client.request_matching(rest, millis(first), is_reply).await;
                answer = Some(replied(reply));
            }
            _ => answer = Some(ask(cluster, command, first, rest).await?.unwrap_or_else(|| text.into())),
        }
        Ok(answer.map(Into::into))
    }
}

/// Asks what a message asks, if it does. Gives the answer as JSON.
async fn ask(cluster: &Cluster, question: &str, first: &str, rest: &str) -> Result<Option<String>> {
    fn json<T: serde::Serialize>(answer: Answer<T>) -> Result<Option<String>> {
        if !answer.is_complete() {
            return Err("a gateway did not answer".into());
        }
        Ok(Some(serde_json::to_string(&answer.value)?))
    }
    let texts = |answer: Answer<Vec<ClientId>>| Answer {
        value: answer.value.iter().map(ToString::to_string).collect::<Vec<_>>(),
        missing: answer.missing,
    };
    match question {
        // What is known, be it all or not.
        "online" => Ok(Some(cluster.count().await.value.to_string())),
        "groups" => Ok(Some(serde_json::to_string(&cluster.group_sizes().await.value)?)),
        "is-online" => json(cluster.is_online(id(first)?).await),
        "is-uid-online" => json(cluster.is_uid_online(first).await),
        "clients-of" => json(texts(cluster.clients_of(first).await)),
        "uid-of" => json(cluster.uid_of(id(first)?).await),
        "groups-of" => json(cluster.groups_of(id(first)?).await),
        "uids-in" => json(cluster.uids_in(first).await),
        "uids" => json(cluster.online_uids().await),
        "clients" => json(texts(cluster.select().ids().await)),
        // Of these groups, with these values in the session.
        "select" => {
            let mut select = cluster.select().with_uid();
            for group in first.split(',') {
                select = select.group(group);
            }
            for (key, value) in pairs(rest) {
                select = select.session(key, value);
            }
            let found = select.list().await;
            let uids = found.value.into_iter().map(|member| member.uid.unwrap_or_default());
            json(Answer {
                value: uids.collect::<BTreeSet<_>>(),
                missing: found.missing,
            })
        }
        _ => Ok(None),
    }
}

fn replied(reply: Result<Message, RequestError>) -> String {
    match reply {
        Ok(message) => format!("reply: {}", message.text().unwrap_or("binary")),
        Err(error) => format!("no reply: {error:?}"),
    }
}

/// `a=1,b=2`
fn pairs(text: &str) -> Vec<(&str, &str)> {
    text.split(',').filter_map(|pair| pair.split_once('=')).collect()
}

fn millis(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap_or(100))
}

fn id(text: &str) -> Result<ClientId, Box<dyn Error + Send + Sync>> {
    Ok(text.parse()?)
}

/// A run of the job, which writes down what it does.
struct Run {
    file: File,
    lease: Lease,
}

impl Run {
    /// One line, if the lease is held at the time that it says, or a little later.
    fn write(&self, what: &str, what_if_late: Option<&str>) {
        let at = since_boot().as_nanos();
        let held = self.lease.is_held();
        if let Some(what) = Some(what).filter(|_| held).or(what_if_late) {
            let line = format!("{} {what} {} {at}\n", self.lease.term(), std::process::id());
            (&self.file)
                .write_all(line.as_bytes())
                .expect("the job's steps can be written");
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.write("end", Some("late"));
    }
}

/// The job: ticks, and does what it is asked.
async fn tick(path: PathBuf, lease: Lease) -> Result<()> {
    let ask = path.with_extension("ask");
    let run = Run {
        file: File::options().create(true).append(true).open(path)?,
        lease,
    };
    run.write("start", None);
    loop {
        sleep(Duration::from_millis(20)).await;
        run.write("tick", None);
        if let Ok(asked) = std::fs::read_to_string(&ask) {
            std::fs::remove_file(&ask)?;
            match &*asked {
                "panic" => panic!("asked to panic"),
                "fail" => return Err("asked to fail".into()),
                _ => return Ok(()),
            }
        }
    }
}
