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
                let handed_out = tokio::select! {
                    // It has something better to say, unless it is in the middle of a frame.
                    biased;
                    handed_out = self.hand_out(&shared) => handed_out?,
                    () = self.entry.goes(&shared) => return Ok(Next::Nothing),
                };
                if handed_out {
                    self.has = Some(shared);
                    return Ok(Next::Wait);
                }
                Frame::refused(&ServeError::ModelGone("it went while it was handed out".to_owned()))
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

    /// Whether all of it was. However slowly a reader takes it, it is not told that it has what goes already.
    async fn hand_out(&self, shared: &Arc<Shared>) -> io::Result<bool> {
        for file in shared.files() {
            if !self.entry.is_handed_out(shared) {
                return Ok(false);
            }
            let frame = Frame::File { path: file.path(), bytes: file.bytes() };
            frame.send(&self.stream, Some(file.descriptor())).await?;
        }
        if !self.entry.is_handed_out(shared) {
            return Ok(false);
        }
        let (model, version) = (self.entry.name.model.as_str(), self.entry.name.version.as_str());
        let ready = Frame::Ready { model, version, files: shared.files().len(), bytes: shared.bytes() };
        ready.send(&self.stream, None).await?;
        Ok(true)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use attestation::{LeaseKey, Sha256Digest, UnixTime};
    use ledger::lease::LeaseStatement;
    use ledger::policy::{LeaseEnd, UnitCheck};
    use tokio::io::AsyncReadExt;
    use tokio::sync::watch;
    use vault_proto::convert::ModelName;

    use super::super::models::Why;
    use super::*;
    use crate::agent::term::Term;

    const FILES: usize = 200;

    fn terms() -> watch::Receiver<Term> {
        let lease = LeaseStatement {
            vault: Sha256Digest::of(b"vault"),
            lease: Sha256Digest::of(b"lease"),
            lease_key: LeaseKey::try_from([7; 32].as_slice()).unwrap(),
            rule: "serve".try_into().unwrap(),
            policy: Sha256Digest::of(b"policy"),
            issued: UnixTime(0),
            renew_by: UnixTime(900),
            lease_end: LeaseEnd::End,
            unit_check: UnitCheck::Hashed,
        };
        watch::channel(Term::first(BootTime::now(), &lease)).1
    }

    /// What the next frame is; `None` at the end.
    async fn frame(reader: &mut UnixStream) -> Option<(String, String)> {
        let length = reader.read_u32().await.ok()?;
        let mut json = vec![0; length as usize];
        reader.read_exact(&mut json).await.ok()?;
        let frame: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let text = |key: &str| frame[key].as_str().unwrap_or_default().to_owned();
        Some((text("frame"), text("code")))
    }

    /// A reader that takes a frame, and the others when the model has gone.
    #[tokio::test]
    async fn a_reader_that_takes_its_time_is_not_told_that_it_has_what_went_meanwhile() {
        let models = Models::new();
        let name = ModelName { model: "minilm".parse().unwrap(), version: "1".parse().unwrap() };
        let entry = models.add(name, "all".to_owned(), None).unwrap();
        let shared = Arc::new(Shared::of_files(FILES));
        models.set(&entry, State::Ready { shared: Arc::clone(&shared), terms: terms() });
        let (stream, mut reader) = UnixStream::pair().unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, 1).unwrap();
        let opened = Opened { stream, models: &models, entry: &entry, has: None };
        let reads = async {
            assert_eq!(frame(&mut reader).await.unwrap().0, "file");
            let until = BootTime::now().plus(Duration::from_secs(2));
            models.set(&entry, State::Draining { shared: Arc::clone(&shared), why: Why::LeaseLost, until });
            models.set(&entry, State::Gone { why: Why::LeaseLost });
            let (mut files, mut last) = (1, None);
            while let Some((kind, code)) = frame(&mut reader).await {
                files += usize::from(kind == "file");
                last = Some((kind, code));
            }
            (files, last)
        };
        let (_, (files, last)) = tokio::join!(opened.run(), reads);
        assert!(files < FILES, "all were sent at once");
        if let Some((kind, code)) = last.filter(|(kind, _)| kind != "file") {
            assert_eq!((kind.as_str(), code.as_str()), ("refused", "model-gone"));
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_all_of_a_model_is_told_that_it_has_it() {
        let models = Models::new();
        let name = ModelName { model: "minilm".parse().unwrap(), version: "1".parse().unwrap() };
        let entry = models.add(name, "all".to_owned(), None).unwrap();
        let shared = Arc::new(Shared::of_files(FILES));
        models.set(&entry, State::Ready { shared, terms: terms() });
        let (stream, mut reader) = UnixStream::pair().unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, 1).unwrap();
        let opened = Opened { stream, models: &models, entry: &entry, has: None };
        let reads = async {
            for _ in 0..FILES {
                assert_eq!(frame(&mut reader).await.unwrap().0, "file");
            }
            assert_eq!(frame(&mut reader).await.unwrap().0, "ready");
            models.set(&entry, State::Gone { why: Why::LeaseLost });
            assert_eq!(frame(&mut reader).await.unwrap().0, "gone");
        };
        let (ended, ()) = tokio::join!(opened.run(), reads);
        ended.unwrap();
    }
}
