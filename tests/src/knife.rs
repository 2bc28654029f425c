//! Kills a process at a step of what it does, seen from its TPM and its host.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::relay::{self, Gate, Way};

/// TPM2_NV_Increment (TPM 2.0 Part 2, table 12).
const NV_INCREMENT: [u8; 4] = [0, 0, 1, 0x34];
/// Where a process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// In the place of the n-th thing that the keeper says to its host, from 0, once the challenge is redeemed.
    Said(u32),
    /// In the place of the increment.
    Increment,
    /// The TPM has counted, and its answer is lost.
    Counted,
    /// In the place of the n-th thing that the keeper says after it has counted.
    SaidAfterwards(u32),
}

/// Kills a process at a cut.
#[derive(Default)]
pub struct Knife(Mutex<State>);

#[derive(Default)]
struct State {
    armed: Option<(Pid, Cut)>,
    said: u32,
    /// Of the increment: sent, answered.
    increment: (bool, bool),
}

impl Knife {
    /// Kills this process there, once.
    pub fn arm(&self, pid: u32, cut: Cut) {
        let pid = Pid::from_raw(pid.try_into().expect("a process id")).expect("a process id");
        *self.lock() = State { armed: Some((pid, cut)), ..State::default() };
    }

    /// Whether it has cut.
    pub fn has_cut(&self) -> bool {
        self.lock().armed.is_none()
    }

    /// Sees what a keeper says to its TPM.
    pub fn tpm(self: &Arc<Self>) -> Gate {
        let knife = Arc::clone(self);
        Arc::new(move |way, bytes| {
            let mut state = knife.lock();
            match way {
                Way::Up if bytes.get(6..10) == Some(&NV_INCREMENT) => {
                    state.increment.0 = true;
                    state.strike(Cut::Increment)
                }
                Way::Down if state.increment == (true, false) => {
                    state.increment.1 = true;
                    state.said = 0;
                    state.strike(Cut::Counted)
                }
                Way::Up | Way::Down => true,
            }
        })
    }

    /// Sees what a keeper says to its host.
    pub fn link(self: &Arc<Self>) -> Gate {
        let knife = Arc::clone(self);
        Arc::new(move |way, bytes| {
            let mut state = knife.lock();
            // A frame of HTTP/2 without data, such as an acknowledgement, is nothing that is said.
            if way == Way::Up || bytes.get(3) != Some(&0) || state.armed.is_none() {
                return true;
            }
            let cut = if state.increment.1 { Cut::SaidAfterwards(state.said) } else { Cut::Said(state.said) };
            state.said += 1;
            state.strike(cut)
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether what comes by may go on.
    fn strike(&mut self, here: Cut) -> bool {
        match self.armed {
            Some((pid, cut)) if cut == here => {
                self.armed = None;
                kill_process(pid, Signal::KILL).expect("it is a process that this test started");
                false
            }
            Some(_) | None => true,
        }
    }
}

/// A TPM behind a gate. libtss2 takes the control port of a software TPM to be the one after its port for commands.
pub fn relayed(tcti: &str, gate: Gate) -> String {
    let (_, port) = tcti.rsplit_once("port=").expect("a port");
    let port: u16 = port.parse().expect("a port");
    let pairs = (0..64).filter_map(|_| {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let next = first.local_addr().ok()?.port().checked_add(1)?;
        Some((first, TcpListener::bind((Ipv4Addr::LOCALHOST, next)).ok()?))
    });
    let (commands, control) = pairs.into_iter().next().expect("two free ports in a row");
    let here = commands.local_addr().expect("it listens").port();
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    relay::tcp(commands, local(port), gate);
    relay::tcp(control, local(port + 1), Arc::new(|_, _| true));
    format!("swtpm:host=127.0.0.1,port={here}")
}
