//! Embeds sentences by MiniLM in candle, with weights that a vault released to this process and to no file.
//!
//! One line of standard input is one sentence; one line of standard output is its embedding, as JSON. Where the lease is lost, the
//! program lets go of the model and ends.

mod embedder;
mod in_order;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};
use tokio::sync::mpsc;
use vault_enclave::{Failure, LeaseLost, MachineArgs, Model, ModelRef, ModelRequest, Overdue, Session};

use crate::embedder::Embedder;
use crate::in_order::InOrder;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Embeds the lines of standard input.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    from: Origin,
    /// The release rule [default: the one that is named like the model].
    #[arg(long, requires = "vault")]
    rule: Option<String>,
    /// The model.
    #[arg(long, value_name = "NAME@VERSION", requires = "vault", required_unless_present = "plain")]
    model: Option<ModelRef>,
    /// The TPM, as `vault-enclave load --tpm` takes it.
    #[arg(long, value_name = "TCTI", requires = "vault")]
    tpm: Option<String>,
    /// Ask this host instead of those in the vault file.
    #[arg(long, value_name = "URL", requires = "vault")]
    host: Vec<String>,
    /// Give candle each layer as it comes, while later ones load.
    #[arg(long, requires = "vault")]
    in_order: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Origin {
    /// The vault that has the model.
    #[arg(long, value_name = "FILE")]
    vault: Option<PathBuf>,
    /// Take the model's plain files instead: what a test compares with.
    #[arg(long, value_name = "DIR")]
    plain: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| runtime.block_on(run(options)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            status_of(error.as_ref())
        }
    }
}

/// Where the lease was lost, in a load or later, the status says so as that of `vault-enclave load` does.
fn status_of(error: &(dyn Error + Send + Sync + 'static)) -> ExitCode {
    let lost = error.downcast_ref::<LeaseLost>().map(|lost| lost.exit_code());
    let in_load = || error.downcast_ref::<Failure>().and_then(Failure::lost_lease);
    lost.or_else(in_load).map_or(ExitCode::FAILURE, ExitCode::from)
}

async fn run(options: Options) -> Result<()> {
    if let Some(plain) = &options.from.plain {
        let file = |name: &str| std::fs::read(plain.join(name)).map_err(|error| format!("{name}: {error}"));
        let (config, tokenizer) = (file("config.json")?, file("tokenizer.json")?);
        let embedder = Embedder::from_safetensors(&config, &tokenizer, &file("model.safetensors")?)?;
        return embed_lines(&embedder, std::future::pending()).await;
    }
    let (Some(vault), Some(model)) = (options.from.vault, options.model) else { return Err("no model".into()) };
    let mut machine = MachineArgs::new(vault);
    (machine.tpm, machine.host) = (options.tpm, options.host);
    let session = Session::open(machine).await?;
    // Whoever does not let go in time is ended: what candle has copied then goes with the process.
    let mut request = ModelRequest::new(model, Overdue::EndProcess);
    request.rule = options.rule.map(TryInto::try_into).transpose()?;
    let (model, embedder) = if options.in_order {
        let layers = InOrder::new(session.stream(request)?);
        let embedder = tokio::task::block_in_place(|| layers.embedder());
        // Not before all has passed is it the model's: an answer that was computed with a part of it is none. Where candle lacks
        // something, this says why.
        (layers.finish().await?, embedder?)
    } else {
        let model = session.load(request).await?;
        let embedder = from_weights(&model)?;
        (model, embedder)
    };
    let done = embed_while_held(&model, embedder).await;
    let closed = model.close().await;
    done.and(closed.map_err(Into::into))
}

fn from_weights(model: &Model) -> Result<Embedder> {
    let weights = model.weights()?;
    let file = |name: &str| weights.file(name).ok_or_else(|| format!("the model has no {name}"));
    Embedder::from_safetensors(file("config.json")?, file("tokenizer.json")?, file("model.safetensors")?)
}

async fn embed_while_held(model: &Model, embedder: Embedder) -> Result<()> {
    // As long as candle has copies, so have we the weights: else nobody would wait for the copies, and nothing end them.
    let weights = model.weights()?;
    eprintln!("{} bytes in {}, {} of them in huge pages", model.bytes(), model.place(), weights.huge_bytes());
    let lease = model.lease();
    let done = embed_lines(&embedder, async { lease.lost().await }).await;
    drop(embedder);
    drop(weights);
    done
}

/// Until there are no more lines, or the lease is lost.
async fn embed_lines(embedder: &Embedder, lost: impl Future<Output = Option<LeaseLost>>) -> Result<()> {
    let mut lines = lines();
    let mut lost = std::pin::pin!(lost);
    loop {
        let line = tokio::select! {
            // Looked at first: no sentence more once it is lost.
            biased;
            lost = &mut lost => return Err(lost.map_or("the model is gone".into(), Into::into)),
            line = lines.recv() => line.transpose()?,
        };
        let Some(line) = line else { return Ok(()) };
        let embedding = tokio::task::block_in_place(|| embedder.embed(&line))?;
        println!("{}", serde_json::to_string(&embedding)?);
    }
}

/// Of standard input, by a thread that the end of the program does not wait for: a line may never come.
fn lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
