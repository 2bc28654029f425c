//! HTTP/2 by hand (RFC 9113), for clients that do what no library does: they send no request, or take no answer.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;

pub struct Client {
    stream: TcpStream,
    next: u32,
    /// Bytes that may be sent.
    room: u32,
}

/// A frame of an answer.
#[derive(Debug)]
pub struct Frame {
    pub stream: u32,
    pub kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Headers { end: bool },
    Data { bytes: usize },
    Other,
}

impl Client {
    /// Connects, and says that each answer has room for `window` bytes.
    pub async fn connect(address: SocketAddr, window: u32) -> Self {
        let mut client = Self { stream: TcpStream::connect(address).await.unwrap(), next: 1, room: (1 << 16) - 1 };
        client.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        client.each_has_room(window).await;
        client
    }

    /// Says that each answer has room for so many bytes from now on.
    pub async fn each_has_room(&mut self, window: u32) {
        let settings = [INITIAL_WINDOW_SIZE.to_be_bytes().as_slice(), &window.to_be_bytes()].concat();
        self.write(SETTINGS, 0, 0, &settings).await;
    }

    /// Says that all answers together have room for so many bytes more.
    pub async fn all_have_more_room(&mut self, bytes: u32) {
        self.write(WINDOW_UPDATE, 0, 0, &bytes.to_be_bytes()).await;
    }

    /// Begins a call of which no message comes yet; gives the number of its stream.
    pub async fn begin(&mut self, path: &str) -> u32 {
        // RFC 7541: POST, http and the name of the path are in the static table; the rest is as it is.
        let mut headers = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
        headers.extend_from_slice(path.as_bytes());
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
            headers.push(0);
            for text in [name, value] {
                headers.push(u8::try_from(text.len()).unwrap());
                headers.extend_from_slice(text.as_bytes());
            }
        }
        let stream = self.next;
        self.next += 2;
        self.write(HEADERS, END_HEADERS, stream, &headers).await;
        stream
    }

    /// Sends the message of a call, and says that there is no more.
    pub async fn send(&mut self, stream: u32, message: &[u8]) {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let data = [[0].as_slice(), &length, message].concat();
        let bytes = u32::try_from(data.len()).unwrap();
        while self.room < bytes {
            self.read().await.expect("the connection is open");
        }
        self.room -= bytes;
        self.write(DATA, END_STREAM, stream, &data).await;
    }

    /// Makes a call.
    pub async fn call(&mut self, path: &str, message: &impl prost::Message) -> u32 {
        let stream = self.begin(path).await;
        self.send(stream, &message.encode_to_vec()).await;
        stream
    }

    /// Waits until the host has seen all that was sent.
    pub async fn is_heard(&mut self) {
        self.write(PING, 0, 0, b"is heard").await;
        loop {
            let (kind, flags, _, payload) = self.read().await.expect("the connection is open");
            if (kind, flags, payload.as_slice()) == (PING, ACK, b"is heard".as_slice()) {
                return;
            }
        }
    }

    /// The next frame of an answer; `None` where the host closed the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        let (kind, flags, stream, payload) = self.read().await?;
        let kind = match kind {
            HEADERS => Kind::Headers { end: flags & END_STREAM != 0 },
            DATA => Kind::Data { bytes: payload.len() },
            _ => Kind::Other,
        };
        Some(Frame { stream, kind })
    }

    /// Waits for the end of the connection.
    pub async fn is_closed(&mut self) {
        while self.frame().await.is_some() {}
    }

    /// Reads a frame, and answers what every client answers: else the host would take it for gone.
    async fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        if kind == WINDOW_UPDATE && stream == [0; 4] {
            self.room += u32::from_be_bytes(*payload.first_chunk().unwrap());
        } else if flags & ACK == 0 && kind == SETTINGS {
            self.write(SETTINGS, ACK, 0, b"").await;
        } else if flags & ACK == 0 && kind == PING {
            self.write(PING, ACK, 0, &payload).await;
        }
        Some((kind, flags, u32::from_be_bytes(stream), payload))
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [length.as_slice(), &[kind, flags], &stream.to_be_bytes(), payload].concat();
        // The host may have closed it: then the next read says so.
        let _ = self.stream.write_all(&frame).await;
    }
}
