//! `meepo`: sends to clients and asks about them, from a shell.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use meepo_node::Config;
use meepo_worker::{Answer, ClientId, Cluster, Message, Outside, OutsideError, Target};

/// Sends to the clients of a cluster, and asks about them.
#[derive(Debug, Parser)]
#[command(name = "meepo", version)]
struct Cli {
    /// The configuration file, of which `[node]` names the registries and the secret; $MEEPO_CONFIG if it is not given, else
    /// none
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends a message
    Push {
        #[command(flatten)]
        whom: Whom,
        /// The bytes are no text
        #[arg(long)]
        binary: bool,
        /// The message; `-` reads the standard input
        message: String,
    },
    /// Closes clients
    Close {
        #[command(flatten)]
        whom: Whom,
        /// The close code: 1000, 1001, 1008, 1011 to 1013 or 3000 to 4999
        #[arg(long, default_value_t = 1000)]
        code: u16,
        /// The reason that clients are told
        #[arg(default_value = "")]
        reason: String,
    },
    /// Makes clients members of a group
    Join {
        /// A client; it can be given several times
        #[arg(long, value_name = "ID", required = true)]
        client: Vec<ClientId>,
        /// The group
        group: String,
    },
    /// Takes clients out of a group
    Leave {
        /// A client; it can be given several times
        #[arg(long, value_name = "ID", required = true)]
        client: Vec<ClientId>,
        /// The group
        group: String,
    },
    /// Binds clients to the uid of a user, or to none
    Bind {
        /// A client; it can be given several times
        #[arg(long, value_name = "ID", required = true)]
        client: Vec<ClientId>,
        /// The uid; none if it is not given
        uid: Option<String>,
    },
    /// Prints each key of a client's session with its value
    Session {
        /// The client
        client: ClientId,
    },
    /// Prints how many clients are online
    Count {
        /// Only those in one of these groups
        #[arg(long, value_name = "GROUP")]
        group: Vec<String>,
        /// Only those that are bound to one of these uids
        #[arg(long, value_name = "UID")]
        uid: Vec<String>,
    },
    /// Prints each group with the number of its members
    Groups,
    /// Prints each uid that is online
    Uids,
}

/// Who is meant.
#[derive(Debug, Args)]
#[group(required = true)]
struct Whom {
    /// Everyone
    #[arg(long, conflicts_with_all = ["group", "uid", "client"])]
    all: bool,
    /// The members of a group; it can be given several times
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["uid", "client"])]
    group: Vec<String>,
    /// All clients of a user; it can be given several times
    #[arg(long, value_name = "UID", conflicts_with = "client")]
    uid: Vec<String>,
    /// A client; it can be given several times
    #[arg(long, value_name = "ID")]
    client: Vec<ClientId>,
}

/// The exit code of a configuration that is wrong.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let file = cli.config.or_else(|| std::env::var_os("MEEPO_CONFIG").map(Into::into));
    let node = match Config::load(file.as_deref()).and_then(|config| config.node()) {
        Ok(node) => node,
        Err(error) => {
            eprintln!("meepo: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            let outside = Outside::connect(node.registry, node.secret).await?;
            run(cli.command, outside.cluster()).await?;
            outside.flush().await.map_err(meepo_node::BoxError::from)
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meepo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command, cluster: &Cluster) -> Result<(), meepo_node::BoxError> {
    match command {
        Command::Push { whom, binary, message } => whom.target(cluster).send(read(message, binary)?),
        Command::Close { whom, code, reason } => whom.target(cluster).close(code, reason),
        Command::Join { client, group } => client.into_iter().for_each(|id| cluster.client(id).join(&group)),
        Command::Leave { client, group } => client.into_iter().for_each(|id| cluster.client(id).leave(&group)),
        Command::Bind { client, uid } => {
            for id in client {
                match &uid {
                    Some(uid) => cluster.client(id).bind(uid),
                    None => cluster.client(id).unbind(),
                }
            }
        }
        Command::Session { client } => {
            let session = complete(cluster.session(client).await)?.ok_or("the client is not online")?;
            for (key, value) in session {
                println!("{key}\t{value}");
            }
        }
        Command::Count { group, uid } => {
            let select = group
                .into_iter()
                .fold(cluster.select(), |select, group| select.group(group));
            let select = uid.into_iter().fold(select, |select, uid| select.uid(uid));
            println!("{}", complete(select.count().await)?);
        }
        Command::Groups => {
            for (group, members) in complete(cluster.group_sizes().await)? {
                println!("{members}\t{group}");
            }
        }
        Command::Uids => {
            for uid in complete(cluster.online_uids().await)? {
                println!("{uid}");
            }
        }
    }
    Ok(())
}

/// What all gateways know: a part of it would look like the whole.
fn complete<T>(answer: Answer<T>) -> Result<T, OutsideError> {
    match answer.missing.len() {
        0 => Ok(answer.value),
        missing => Err(OutsideError::Missing(missing)),
    }
}

fn read(message: String, binary: bool) -> Result<Message, meepo_node::BoxError> {
    let bytes = if message == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        bytes
    } else {
        message.into_bytes()
    };
    match binary {
        true => Ok(bytes.into()),
        false => Ok(String::from_utf8(bytes)
            .map_err(|_| "the message is not UTF-8: use --binary")?
            .into()),
    }
}

impl Whom {
    fn target<'a>(&self, cluster: &'a Cluster) -> Target<'a> {
        match self {
            Self { group, .. } if !group.is_empty() => cluster.groups(group.clone()),
            Self { uid, .. } if !uid.is_empty() => cluster.uids(uid.clone()),
            Self { client, .. } if !client.is_empty() => cluster.clients(client.clone()),
            _ => cluster.all(),
        }
    }
}
