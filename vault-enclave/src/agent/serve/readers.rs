//! The socket of readers: whoever is on the list gets descriptors of a model, and word of it as long as it holds the
//! connection. A reader that goes, by whatever end, is one whose connection the kernel closes.

use std::io;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use super::access::{Access, Peer, Reader};
use super::error::ServeError;
use super::frames::{Frame, Request};
use super::models::{Entry, Models, State};
use super::places::{Bounds, Place, Places, accept};
use super::shared::Shared;
use crate::agent::term::BootTime;

/// Serves until it is dropped.
pub(super) async fn serve(listener: UnixListener, access: Access, models: Arc<Models>, bounds: Bounds) {
    let places = Places::new(bounds.readers);
    loop {
        let stream = accept(&listener).await;
        let admitted = admit(&stream, &access, &models, &places);
        let models = Arc::clone(&models);
        tokio::spawn(async move {
            // A reader that is gone needs no answer.
            let _ = match admitted {
                Ok((reader, place)) => answer(stream, &models, reader, place).await,
                Err(error) => Frame::refused(&error).send(&stream, None).await,
            };
        });
    }
}

fn admit(
    stream: &UnixStream,
    access: &Access,
    models: &Models,
    places: &Arc<Places>,
) -> Result<(Reader, Place), ServeError> {
    let reader = access.reader(Peer::of(stream), |peer| models.is_listed(peer))?;
    Ok((reader, places.take(reader)?))
}

async fn answer(mut stream: UnixStream, models: &Models, reader: Reader, _place: Place) -> io::Result<()> {
    let asked = match Request::read(&mut stream).await {
        None => return Ok(()),
        Some(Ok(Request::List)) => {
            let models = models.list(reader).into_iter().map(Into::into).collect();
            return Frame::Models { models }.send(&stream, None).await;
        }
        Some(Ok(Request::Open(wanted))) => models.find(&wanted, reader),
        Some(Err(error)) => Err(error),
    };
    match asked {
        Ok(entry) => Opened { stream, models, entry: &entry, has: None }.run().await,
        Err(error) => Frame::refused(&error).send(&stream, None).await,
    }
}

/// A model that a reader asked for.
struct Opened<'a> {
    stream: UnixStream,
    models: &'a Models,
    entry: &'a Entry,
    /// What it was given.
    has: Option<Arc<Shared>>,
}

impl Opened<'_> {
    async fn run(mut self) -> io::Result<()> {
        let mut states = self.entry.states();
        let _reading = self.models.reading(self.entry);
        loop {
            let state = states.borrow_and_update().clone();
            if self.say(state).await? == Next::Nothing {
                return Ok(());
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return Ok(()) },
                () = ended(&self.stream) => return Ok(()),
            }
        }
    }

    async fn say(&mut self, state: State) -> io::Result<Next> {
        let frame = match (state, &self.has) {
            (State::Loading { problem }, None) => {
                Frame::Loading { problem: problem.as_deref() }.send(&self.stream, None).await?;
                return Ok(Next::Wait);
            }
            (State::Ready { shared, .. }, None) => {
                self.hand_out(&shared).await?;
                self.has = Some(shared);
                return Ok(Next::Wait);
            }
            (State::Ready { shared, .. } | State::Draining { shared, .. }, Some(has)) if !Arc::ptr_eq(&shared, has) => {
                Frame::gone(&super::models::Why::LeaseLost)
            }
            (State::Ready { .. }, Some(_)) => return Ok(Next::Wait),
            (State::Draining { why, until, .. }, Some(_)) => {
                let seconds = BootTime::now().until(until).as_secs();
                let frame = Frame::Draining { seconds, why: why.code(), message: why.problem() };
                frame.send(&self.stream, None).await?;
                return Ok(Next::Wait);
            }
            (State::Draining { why, .. } | State::Gone { why }, None) => {
                Frame::refused(&ServeError::ModelGone(why.problem()))
            }
            (State::Gone { why }, Some(_)) => Frame::gone(&why),
            // It went and is on its way again, between two looks.
            (State::Loading { .. }, Some(_)) => Frame::gone(&super::models::Why::LeaseLost),
        };
        frame.send(&self.stream, None).await?;
        Ok(Next::Nothing)
    }

    async fn hand_out(&self, shared: &Shared) -> io::Result<()> {
        for file in shared.files() {
            let frame = Frame::File { path: file.path(), bytes: file.bytes() };
            frame.send(&self.stream, Some(file.descriptor())).await?;
        }
        let (model, version) = (self.entry.name.model.as_str(), self.entry.name.version.as_str());
        let ready = Frame::Ready { model, version, files: shared.files().len(), bytes: shared.bytes() };
        ready.send(&self.stream, None).await
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    Wait,
    Nothing,
}

/// Resolves when the reader has closed its end, or sends what it must not.
async fn ended(stream: &UnixStream) {
    // Whatever comes, or does not: the connection is over.
    let _ = stream.async_io(Interest::READABLE, || stream.try_read(&mut [0; 1])).await;
}
