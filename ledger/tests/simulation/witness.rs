//! Witnesses: honest ones decide by `ledger::witness`, a faulty one signs whatever its log has signed.

use attestation::UnixTime;
use ledger::checkpoint::Checkpoint;
use ledger::cosignature::Answer;
use ledger::witness::{AddCheckpoint, AddCheckpointError, Step, recorded, step};

use crate::sim::Sim;

#[derive(Default)]
pub struct Witness {
    pub faulty: bool,
    pub away: bool,
    pub latest: Option<Checkpoint>,
}

impl Sim {
    /// The host carries a request to a witness, and its answer back.
    pub fn ask_witness(&mut self, name: &str, body: &str) -> Answer {
        let number = self.scene.witnesses.iter().position(|(key, _)| key.name() == name).unwrap();
        if self.witnesses[number].away {
            return Answer::Unreached { why: "away".to_owned() };
        }
        if !self.quiet && self.rng.one_in(40) {
            return Answer::Response { status: 200, body: b"not a cosignature\n".to_vec() };
        }
        let key = self.scene.verifier.key();
        let request = AddCheckpoint::parse(body).unwrap();
        let witness = &mut self.witnesses[number];
        let taken = match witness.faulty {
            true => note_of(body).ok_or(AddCheckpointError::Malformed).and_then(|note| recorded(key, note)),
            false => step(key, witness.latest, request),
        };
        match taken {
            Ok(step) => {
                witness.latest = Some(step.checkpoint());
                Answer::Response { status: 200, body: self.cosign(number, &step).into_bytes() }
            }
            Err(AddCheckpointError::Conflict { size }) => {
                Answer::Response { status: 409, body: format!("{size}\n").into_bytes() }
            }
            Err(error) => Answer::Response { status: error.status(), body: error.code().into() },
        }
    }

    fn cosign(&mut self, number: usize, step: &Step) -> String {
        let time = UnixTime(self.now);
        self.truth.cosigned(number, step.checkpoint());
        let (key, pair) = &self.scene.witnesses[number];
        let signature = pair.sign(&step.message(time)).as_ref().try_into().unwrap();
        key.line(step.text(), time, &signature).unwrap()
    }
}

/// The checkpoint in a request, behind `old` and its proof.
fn note_of(body: &str) -> Option<String> {
    body.split_once("\n\n").map(|(_, note)| note.to_owned())
}
