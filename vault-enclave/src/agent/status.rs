//! `vault-enclave status` and `models`: what the agent of this machine holds, and is to hold.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use vault_proto::agent::v1;
use vault_proto::agent::v1::agent_client::AgentClient;
use vault_proto::client::causes;
use vault_proto::convert::{AgentModel, AgentModelState, LoadOrder, ModelName, Peers};

use super::load::runtime;
use super::options::ModelRef;
use super::serve::OrderArg;
use crate::failure::{Failure, Kind, plain};

/// Options of `vault-enclave status`.
#[derive(clap::Args, Debug)]
pub struct StatusArgs {
    /// The control socket of the agent.
    #[arg(long, value_name = "SOCKET", default_value = "/run/weightvault/control.sock")]
    agent: PathBuf,
    /// JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Options of `vault-enclave models`.
#[derive(clap::Args, Debug)]
pub struct ModelsArgs {
    /// The control socket of the agent.
    #[arg(long, value_name = "SOCKET", default_value = "/run/weightvault/control.sock")]
    agent: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Load a model, and wait until readers can have it.
    Load {
        /// The model, with its release rule where that is not named like it, and options behind commas as `agent` takes them:
        /// which part of it, and who may have it.
        #[arg(value_name = "MODEL@VERSION[:RULE][,OPTION]…")]
        model: OrderArg,
        /// A directory of the agent's machine to read the sealed units from, instead of the host.
        #[arg(long, value_name = "DIR")]
        ciphertext: Option<PathBuf>,
    },
    /// Wipe a model and end its lease.
    Unload {
        /// The model.
        #[arg(value_name = "MODEL@VERSION")]
        model: ModelRef,
    },
}

/// Loads or unloads a model.
#[must_use]
pub fn models(args: ModelsArgs) -> ExitCode {
    let done = runtime().and_then(|runtime| {
        runtime.block_on(async {
            match args.what {
                What::Load { model, ciphertext } => load(&args.agent, model.order()?, ciphertext).await,
                What::Unload { model: ModelRef(name) } => unload(&args.agent, name).await,
            }
        })
    });
    match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(failure) => failure.report(false),
    }
}

async fn load(agent: &Path, mut order: LoadOrder, ciphertext: Option<PathBuf>) -> Result<String, Failure> {
    let absolute = |path: PathBuf| std::path::absolute(&path).map_err(|error| Failure::io(path.display(), &error));
    order.ciphertext = ciphertext.map(absolute).transpose()?;
    let name = order.model.clone();
    let mut client = connect(agent).await?;
    client.load_model(v1::LoadModelRequest::from(order)).await.map_err(refused)?;
    let mut said = String::new();
    let mut models = client.watch_models(v1::WatchModelsRequest {}).await.map_err(refused)?.into_inner();
    while let Some(now) = models.message().await.map_err(refused)? {
        let models = AgentModel::all(now.models)?;
        let Some(model) = models.into_iter().find(|model| model.model == name) else { break };
        match model.state {
            AgentModelState::Loading if model.problem != said => {
                eprintln!("{}", plain(&model.problem));
                said = model.problem;
            }
            AgentModelState::Loading => {}
            AgentModelState::Ready | AgentModelState::Draining => {
                return Ok(format!("{}@{} is there: {} bytes", name.model, name.version, model.bytes));
            }
            AgentModelState::Gone => return Err(gone(&name, &model.problem)),
        }
    }
    Err(gone(&name, "unloaded"))
}

async fn unload(agent: &Path, name: ModelName) -> Result<String, Failure> {
    let wiped = format!("{}@{} is wiped", name.model, name.version);
    connect(agent).await?.unload_model(v1::UnloadModelRequest::from(name)).await.map_err(refused)?;
    Ok(wiped)
}

fn gone(name: &ModelName, why: &str) -> Failure {
    Failure::new(Kind::Refused, "model-gone", format!("{}@{} is gone: {why}", name.model, name.version))
}

/// The agent's own words have its code.
fn refused(status: Status) -> Failure {
    Failure::new(Kind::Refused, "agent-refused", status.message())
}

/// Asks and prints.
#[must_use]
pub fn run(args: &StatusArgs) -> ExitCode {
    match status(args) {
        Ok(text) => {
            println!("{}", plain(&text));
            ExitCode::SUCCESS
        }
        Err(failure) => failure.report(args.json),
    }
}

fn status(args: &StatusArgs) -> Result<String, Failure> {
    let models = runtime()?.block_on(ask(args))?;
    Ok(if args.json { in_json(&models) } else { in_words(&models) })
}

async fn ask(args: &StatusArgs) -> Result<Vec<AgentModel>, Failure> {
    let answer = connect(&args.agent).await?.list_models(v1::ListModelsRequest {}).await;
    let answer = answer.map_err(|status| unreachable(&args.agent, status.message()))?;
    Ok(AgentModel::all(answer.into_inner().models)?)
}

async fn connect(socket: &Path) -> Result<AgentClient<Channel>, Failure> {
    let absolute = std::path::absolute(socket).map_err(|error| Failure::io(socket.display(), &error))?;
    // Without the limit on calls that hosts have: a model takes as long as it takes.
    let endpoint = Endpoint::from_shared(format!("unix:{}", absolute.display()));
    let channel = endpoint.map_err(|error| unreachable(socket, &causes(&error)))?.connect().await;
    channel.map(AgentClient::new).map_err(|error| unreachable(socket, &causes(&error)))
}

fn unreachable(socket: &Path, why: &str) -> Failure {
    Failure::new(Kind::Failed, "agent-unreachable", format!("{}: {why}", socket.display()))
        .next("see that the agent runs, that this is its control.sock, and that it allows this user (--allow)")
}

fn in_words(models: &[AgentModel]) -> String {
    if models.is_empty() {
        return "no models".to_owned();
    }
    let lines = models.iter().map(|model| {
        let AgentModel { model: name, state, files, bytes, readers, seconds, problem, part, allowed } = model;
        let name = format!("{}@{}", name.model, name.version);
        let state = match state {
            AgentModelState::Loading => format!("loading   {problem}"),
            AgentModelState::Ready => {
                format!("ready     {files} files, {bytes} bytes, {readers} readers; {seconds} s left of the lease")
            }
            AgentModelState::Draining => format!("draining  {readers} readers, wiped in {seconds} s: {problem}"),
            AgentModelState::Gone => format!("gone      {problem}"),
        };
        // Of all of it there is nothing to say.
        let part = Some(part).filter(|part| !part.is_empty() && *part != "all").map(|part| format!("; {part}"));
        let allowed = allowed.as_ref().map(|peers| format!("; for {} alone", peers_in_words(peers)));
        format!("{name:<24} {}{}{}", state.trim_end(), part.unwrap_or_default(), allowed.unwrap_or_default())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// As `allow=` takes them.
fn peers_in_words(peers: &Peers) -> String {
    let gids = peers.gids.iter().map(|gid| format!(":{gid}"));
    peers.uids.iter().map(ToString::to_string).chain(gids).collect::<Vec<_>>().join(", ")
}

fn in_json(models: &[AgentModel]) -> String {
    let models = models.iter().map(|model| {
        let state = match model.state {
            AgentModelState::Loading => "loading",
            AgentModelState::Ready => "ready",
            AgentModelState::Draining => "draining",
            AgentModelState::Gone => "gone",
        };
        json!({
            "model": model.model.model.as_str(), "version": model.model.version.as_str(), "state": state,
            "files": model.files, "bytes": model.bytes, "readers": model.readers, "seconds": model.seconds,
            "problem": model.problem, "part": model.part,
            "allowed": model.allowed.as_ref().map(|peers| json!({ "uids": peers.uids, "gids": peers.gids })),
        })
    });
    json!({ "models": models.collect::<Vec<_>>() }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_shown_in_words_and_in_json() {
        let model = |state| AgentModel {
            model: ModelName { model: "minilm".parse().unwrap(), version: "1".parse().unwrap() },
            state,
            files: 3,
            bytes: 7,
            readers: 2,
            seconds: 9,
            problem: "lease-lost".to_owned(),
            part: "group=stage.2".to_owned(),
            allowed: Some(Peers { uids: [1001].into(), gids: [2002].into() }),
        };
        let states =
            [AgentModelState::Loading, AgentModelState::Ready, AgentModelState::Draining, AgentModelState::Gone];
        let models = states.map(model);
        let words = in_words(&models);
        let found =
            ["loading   lease-lost", "ready     3 files, 7 bytes, 2 readers; 9 s", "wiped in 9 s: lease", "gone"];
        assert!(words.lines().zip(found).all(|(line, found)| line.contains(found)), "{words}");
        let json: serde_json::Value = serde_json::from_str(&in_json(&models)).unwrap();
        assert_eq!(json["models"][2]["state"], "draining");
        assert_eq!(json["models"][1]["readers"], 2);
        assert!(words.lines().all(|line| line.ends_with("; group=stage.2; for 1001, :2002 alone")), "{words}");
        assert_eq!(json["models"][1]["part"], "group=stage.2");
        assert_eq!(json["models"][1]["allowed"], json!({ "uids": [1001], "gids": [2002] }));
        let plain = [AgentModel { part: "all".to_owned(), allowed: None, ..models[1].clone() }];
        assert!(in_words(&plain).ends_with(" s left of the lease"), "{}", in_words(&plain));
        assert_eq!(in_words(&[]), "no models");
    }
}
