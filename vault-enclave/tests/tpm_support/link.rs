//! A wire between the program and a software TPM that can be made to fail at any command.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The command does not reach the TPM.
    CommandLost,
    /// The TPM does it, and its answer gets lost.
    AnswerLost,
    /// The TPM does it, and never answers.
    AnswerHangs,
}

/// Whether the wire works again afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It was one loss.
    Works,
    /// It stays dead, as after `kill -9` of the program: nothing more reaches the TPM.
    Dead,
}

pub(crate) const NV_INCREMENT: u32 = 0x0134;
pub(crate) const NV_READ: u32 = 0x014e;
pub(crate) const QUOTE: u32 = 0x0158;
pub(crate) const UNSEAL: u32 = 0x015e;
pub(crate) const START_SESSION: u32 = 0x0176;

pub(crate) struct Link {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    armed: Option<(u32, u32, Fault, Then)>,
    dead: bool,
    commands: Vec<u32>,
}

impl Link {
    /// A wire to the TPM at `port`.
    pub(crate) fn to(port: u16) -> Self {
        let (data, control) = listen();
        let link = Self { port: data.local_addr().unwrap().port(), state: Arc::default() };
        let state = Arc::clone(&link.state);
        thread::spawn(move || {
            for stream in data.incoming() {
                let state = Arc::clone(&state);
                thread::spawn(move || serve(stream.unwrap(), port, &state));
            }
        });
        thread::spawn(move || {
            for stream in control.incoming() {
                thread::spawn(move || pipe(stream.unwrap(), port + 1));
            }
        });
        link
    }

    pub(crate) fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// Arms a fault at the command of this code, after `skip` others of the same code.
    pub(crate) fn arm(&self, code: u32, skip: u32, fault: Fault, then: Then) {
        self.state.lock().unwrap().armed = Some((code, skip, fault, then));
    }

    /// How often the TPM got this command.
    pub(crate) fn sent(&self, code: u32) -> usize {
        self.state.lock().unwrap().commands.iter().filter(|sent| **sent == code).count()
    }
}

fn serve(mut program: TcpStream, port: u16, state: &Mutex<State>) {
    while let Ok(command) = read_message(&mut program) {
        let (code, _) = split(&command);
        let fault = {
            let mut state = state.lock().unwrap();
            let fault = strike(&mut state, code);
            if state.dead && fault.is_none() || fault == Some(Fault::CommandLost) {
                return;
            }
            state.commands.push(code);
            fault
        };
        let mut tpm = TcpStream::connect(("127.0.0.1", port)).unwrap();
        tpm.write_all(&command).unwrap();
        let Ok(answer) = read_message(&mut tpm) else { return };
        match fault {
            Some(Fault::AnswerHangs) => loop {
                thread::park();
            },
            Some(_) => return,
            None => program.write_all(&answer).unwrap_or(()),
        }
    }
}

fn strike(state: &mut State, code: u32) -> Option<Fault> {
    let (armed, skip, fault, then) = state.armed.filter(|(armed, ..)| *armed == code)?;
    if skip > 0 {
        state.armed = Some((armed, skip - 1, fault, then));
        return None;
    }
    state.armed = None;
    state.dead = then == Then::Dead;
    Some(fault)
}

fn pipe(program: TcpStream, port: u16) {
    let tpm = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut from, mut to) = (program.try_clone().unwrap(), tpm.try_clone().unwrap());
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        // swtpm serves one control connection at a time.
        let _ = to.shutdown(Shutdown::Both);
    });
    let _ = io::copy(&mut &tpm, &mut &program);
}

/// Two ports in a row, as libtss2 wants them.
fn listen() -> (TcpListener, TcpListener) {
    loop {
        let data = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(control) = TcpListener::bind(("127.0.0.1", data.local_addr().unwrap().port() + 1)) {
            return (data, control);
        }
    }
}

/// A command or an answer: tag, size, code, rest.
pub(crate) fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 10];
    stream.read_exact(&mut message)?;
    let size = u32::from_be_bytes(message[2..6].try_into().unwrap());
    message.resize(usize::try_from(size).unwrap(), 0);
    stream.read_exact(&mut message[10..])?;
    Ok(message)
}

/// Code and body.
pub(crate) fn split(message: &[u8]) -> (u32, Vec<u8>) {
    (u32::from_be_bytes(message[6..10].try_into().unwrap()), message[10..].to_vec())
}
