//! `vault-enclave agent`: holds models for the programs of its machine, which share one copy.
//!
//! ```text
//! control.sock  gRPC weightvault.agent.v1 ▶ load, unload, list, watch
//!      order ▶ Holding: loader child ▶ memory that is mounted in this process's namespace ▶ renews, drains, wipes
//!                                          └ the same, mounted to be read alone ▶ Shared: descriptors
//! agent.sock    `v1 open NAME` ▶ descriptors (SCM_RIGHTS), then what becomes of the lease
//! ```
//! A file on a tmpfs of its own, not a sealed memfd: it has huge pages whatever the system's setting, is never swapped, and
//! its memory can be given back while readers still map it. Readers can't write since the mount that their descriptors
//! belong to is read-only, and that lasts as long as the descriptors do.

mod access;
mod agent;
mod control;
mod error;
mod frames;
mod holding;
mod models;
mod places;
mod readers;
mod shared;
mod sockets;
pub mod wiper;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use ledger::names::Name;
use vault_proto::convert::{LoadOrder, Peers};

use self::access::{Access, AllowArg, AllowList, Peer};
use self::agent::Agent;
use self::places::Bounds;
use self::sockets::SocketDir;
use self::wiper::Wiper;
use super::fixed::FixedDir;
use super::load::{Signals, begin, runtime};
use super::machine::MachineArgs;
use super::mount::{MountPoint, PrivateMount};
use super::namespace::{self, Privilege};
use super::options::ModelRef;
use super::part::PartOptions;
use super::spec::SpecError;
use super::state;
use crate::failure::{Failure, Kind};
use crate::open::raise_file_limit;
use crate::user_namespace;

const READERS: &str = "agent.sock";
const CONTROL: &str = "control.sock";

/// Options of `vault-enclave agent`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Needs root, to mount. Stays in the foreground and prints `ready DIR` on stdout when its sockets \
    are there; models come afterwards, and one that can't be had yet is tried again. Programs of allowed users get \
    descriptors of the files at DIR/agent.sock (the Python package `weightvault` does it); `vault-enclave status --agent \
    DIR/control.sock` lists the models. When a lease is lost or revoked, readers are told, the memory is wiped after the \
    time that the rule gives, and they read zeros.\n\nExit status: 0 ended by a signal, all models wiped; 1 failed; 2 \
    wrong use."
)]
pub struct AgentArgs {
    /// Models to load at once, each with its release rule where that is not named like it, as in minilm@1.0:serve. Options behind
    /// commas say which part of it (group=GROUP, units=LIST, rank=R/N, rank-dirs, tensor=PATTERN), and who may have it instead of
    /// those of --allow (allow=NAME|UID|:GID). Others can be loaded and unloaded over the control socket.
    #[arg(value_name = "MODEL@VERSION[:RULE][,OPTION]…")]
    models: Vec<OrderArg>,
    /// Directory of the sockets, made where it is missing. Nobody else may write to it, or to one above it.
    #[arg(long, value_name = "DIR", default_value = "/run/weightvault")]
    sockets: PathBuf,
    /// Where this process alone sees the memory of models. Nobody else may write to a directory above it.
    #[arg(long, value_name = "DIR", default_value = "/run/weightvault-memory")]
    memory: PathBuf,
    /// Who may have models: a user, or with a colon a primary group. Can be given more than once [default: the user of this
    /// process].
    #[arg(long, value_name = "NAME|UID|:GID")]
    allow: Vec<AllowArg>,
    /// Who may also load and unload, likewise.
    #[arg(long, value_name = "NAME|UID|:GID")]
    control: Vec<AllowArg>,
    #[command(flatten)]
    machine: MachineArgs,
}

/// A model on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderArg {
    model: ModelRef,
    rule: Option<Name>,
    part: PartOptions,
    allow: Vec<AllowArg>,
}

impl OrderArg {
    /// What it asks for; users are looked up here.
    ///
    /// # Errors
    /// A user that is not there, or options that don't go together.
    pub(super) fn order(&self) -> Result<LoadOrder, Failure> {
        let readers = if self.allow.is_empty() { None } else { Some(Peers::from(AllowList::new(&self.allow)?)) };
        let ModelRef(model) = self.model.clone();
        Ok(LoadOrder { model, rule: self.rule.clone(), part: self.part.ordered()?, ciphertext: None, readers })
    }

    fn set(&mut self, option: &str) -> Result<(), SpecError> {
        if self.part.set(option)? {
            return Ok(());
        }
        let allowed = option.strip_prefix("allow=").and_then(|allowed| allowed.parse().ok());
        self.allow.push(allowed.ok_or_else(|| SpecError::Key(option.to_owned()))?);
        Ok(())
    }
}

/// Serves until a signal.
#[must_use]
pub fn run(args: AgentArgs) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(false),
    }
}

fn serve(args: AgentArgs) -> Result<(), Failure> {
    begin()?;
    let this = rustix::process::geteuid().as_raw();
    let (readers, controllers) = (AllowList::new(&args.allow)?, AllowList::new(&args.control)?);
    let unknown = user_namespace::unknown();
    let access = Access::new(this, readers, controllers, unknown)?;
    let bounds = Bounds::of(raise_file_limit());
    let orders = args.models.iter().map(OrderArg::order).collect::<Result<Vec<_>, _>>()?;
    // The vault file, once, so that whoever mistyped it is told so now.
    for order in &orders {
        args.machine.request(holding::wanted(order)?)?;
    }
    // While the owners of directories are known by their own numbers.
    let (memory, sockets) = (FixedDir::new(&args.memory)?, FixedDir::new(&args.sockets)?);
    let others = access.has_others() || orders.iter().any(|order| order.readers.is_some());
    if namespace::enter()? == Privilege::User {
        // A user namespace knows its own user alone: peers would be nobody.
        return Err(Failure::new(
            Kind::Failed,
            "namespace",
            "an agent that serves other users needs a mount namespace of its own",
        )
        .next("run it as root with CAP_SYS_ADMIN, or use `vault-enclave run` for one command"));
    }
    rustix::thread::set_no_new_privs(true).map_err(|errno| Failure::io("no_new_privs", &errno.into()))?;
    let root = PrivateMount::for_directories(MountPoint::at(&memory)?)?;
    runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let mut wiper = Wiper::start(root.path())?;
        let devices = args.machine.devices()?;
        let identity = state::identity(&devices, args.machine.state())?;
        let mut directory = SocketDir::open(&sockets)?;
        let readers = directory.listen(READERS, others)?;
        let control = directory.listen(CONTROL, others)?;
        let agent = Arc::new(Agent::new(args.machine, identity, root, others, unknown));
        let own = access.controller(Peer { uid: this, gid: rustix::process::getegid().as_raw() });
        let own = own.map_err(|error| Failure::new(Kind::Failed, error.code(), error))?;
        for order in orders {
            agent.load(&own, order).map_err(|error| Failure::new(Kind::Usage, error.code(), error))?;
        }
        println!("ready {}", sockets.path().display());
        let ended = tokio::select! {
            () = signals.next() => Ok(()),
            served = control::serve(control, access.clone(), Arc::clone(&agent), bounds) => served,
            failure = wiper.died() => Err(failure),
            () = readers::serve(readers, access, Arc::clone(&agent.models), bounds) => Ok(()),
        };
        agent.models.end_all().await;
        eprintln!("wiped");
        drop(directory);
        wiper.finish().await;
        ended
    })
}

impl FromStr for OrderArg {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut options = text.split(',');
        let first = options.next().unwrap_or_default();
        let (model, rule) = match first.split_once(':') {
            Some((model, rule)) => (model, Some(rule)),
            None => (first, None),
        };
        let model = model.parse().map_err(SpecError::Model)?;
        let rule = rule.map(|rule| Name::try_from(rule.to_owned())).transpose().map_err(SpecError::Name)?;
        let mut order = Self { model, rule, part: PartOptions::default(), allow: Vec::new() };
        options.try_for_each(|option| order.set(option))?;
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use vault_proto::convert::OrderedPart;

    use super::super::options::ArgumentError;
    use super::super::part::Part;
    use super::*;

    #[test]
    fn a_model_on_the_command_line_may_name_its_rule() {
        let parsed = |text: &str| text.parse::<OrderArg>().map(|order| order.order().unwrap());
        let order = parsed("minilm@1.0:serve").unwrap();
        assert_eq!((order.model.version.as_str(), order.rule.unwrap().as_str()), ("1.0", "serve"));
        assert_eq!((order.part, order.readers), (OrderedPart::all(), None));
        assert_eq!(parsed("minilm@1.0").unwrap().rule, None);
        assert_eq!(parsed("minilm").unwrap_err(), SpecError::Model(ArgumentError::NoVersion));
        for bad in ["minilm@1.0:", "minilm@1.0:Serve", "minilm@1.0:a:b"] {
            assert!(matches!(parsed(bad), Err(SpecError::Name(_))), "{bad}");
        }
    }

    #[test]
    fn a_model_on_the_command_line_may_be_a_part_and_for_some_alone() {
        let order = |text: &str| text.parse::<OrderArg>().unwrap().order();
        let some = order("llama@1:stage-2,group=stage.2,rank=0/4,rank=1/4,rank-dirs,tensor=*.q,allow=1001,allow=:2002")
            .unwrap();
        let readers = some.readers.unwrap();
        assert_eq!((readers.uids.into_iter().collect(), readers.gids.into_iter().collect()), (vec![1001], vec![2002]));
        let part = Part::try_from(&some.part).unwrap();
        assert_eq!(part.to_string(), "group=stage.2,rank=0/4,rank=1/4,tensor=*.q,rank-dirs");
        let units = order("llama@1,units=0,units=3-5").unwrap().part;
        assert_eq!(Part::try_from(&units).unwrap().to_string(), "units=0,units=3,units=4,units=5");
        for (text, code) in [
            ("llama@1,rank=0/4,rank=0/4", "rank-twice"),
            ("llama@1,rank=0/4,rank=1/8", "rank-other-number"),
            ("llama@1,units=0,group=a", "part-malformed"),
            ("llama@1,rank-dirs", "part-malformed"),
            ("llama@1,allow=no-such-user", "user-unknown"),
        ] {
            assert_eq!(order(text).unwrap_err().code(), code, "{text}");
        }
        for bad in ["llama@1,", "llama@1,x=1", "llama@1,allow=", "llama@1,rule=a", "llama@1,follow=/x"] {
            assert_eq!(bad.parse::<OrderArg>().unwrap_err(), SpecError::Key(bad[8..].to_owned()), "{bad}");
        }
    }
}
