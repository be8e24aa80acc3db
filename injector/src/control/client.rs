//! The end of whoever controls a session.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::message::{Reply, Request};
use super::{ControlError, place};
use crate::sys::process::{effective_uid, peer_uid};

/// A connection to a session.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to a session of this user's. Whoever does not answer for `patience` is given up; [`None`] waits
    /// for ever.
    pub fn connect(
        directory: &Path,
        session: &str,
        patience: Option<Duration>,
    ) -> Result<Self, ControlError> {
        let path = place::socket(directory, session);
        let failed = |source| ControlError::Io {
            path: path.clone(),
            source,
        };
        let stream = UnixStream::connect(&path).map_err(failed)?;
        let uid = peer_uid(stream.as_fd())?;
        if uid != effective_uid() {
            return Err(ControlError::OtherUser { path, uid });
        }
        stream.set_read_timeout(patience).map_err(failed)?;
        stream.set_write_timeout(patience).map_err(failed)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ControlError> {
        let mut line = serde_json::to_vec(request).map_err(ControlError::NotAReply)?;
        line.push(b'\n');
        let ended = |error: std::io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ControlError::Silent,
            _ => ControlError::Ended,
        };
        self.stream.get_mut().write_all(&line).map_err(ended)?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer).map_err(ended)? == 0 {
            return Err(ControlError::Ended);
        }
        serde_json::from_str(&answer).map_err(ControlError::NotAReply)
    }
}
