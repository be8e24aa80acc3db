//! A session's end of its socket. Nothing of it waits: the session's loop polls, and takes what has come.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::message::{Reply, Request};
use super::{ControlError, place};
use crate::sys::process::{effective_uid, peer_uid};

/// Bytes of one request at most.
const LONGEST: usize = 1 << 16;
/// Connections at once.
const MOST: usize = 64;

/// Who has asked, until the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker(u64);

#[derive(Debug)]
struct Connection {
    asker: Asker,
    stream: UnixStream,
    taken: Vec<u8>,
    /// Requests of its that are not answered.
    open: usize,
    /// Nothing more comes from it.
    is_read: bool,
}

/// The socket, while the session has it.
#[derive(Debug)]
pub struct Server {
    name: String,
    path: PathBuf,
    listener: UnixListener,
    connections: Vec<Connection>,
    asked: u64,
}

impl Server {
    /// Opens one in a directory, which is made. `name` is the session's, with a number behind it where
    /// another one that is alive has that name. Sockets of sessions that are dead are taken away: how many.
    pub fn open(directory: &Path, name: &str) -> Result<(Self, usize), ControlError> {
        place::prepare(directory)?;
        let dead = sweep(directory);
        let mut tried = 1;
        loop {
            let own = match tried {
                1 => name.to_owned(),
                _ => format!("{name}-{tried}"),
            };
            let path = place::socket(directory, &own);
            let failed = |source| ControlError::Io {
                path: path.clone(),
                source,
            };
            match listen(directory, &path) {
                Ok(listener) => {
                    let server = Self {
                        name: own,
                        path,
                        listener,
                        connections: Vec::new(),
                        asked: 0,
                    };
                    return Ok((server, dead));
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists && tried < 100 => tried += 1,
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// The same in the first of several directories in which it can be.
    pub fn open_in(directories: &[PathBuf], name: &str) -> Result<(Self, usize), ControlError> {
        let mut first = None;
        for directory in directories {
            match Self::open(directory, name) {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.unwrap_or(ControlError::Ended))
    }

    /// The session's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What becomes readable when there is something to take.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let streams = self.connections.iter();
        let streams = streams.map(|connection| connection.stream.as_fd());
        std::iter::once(self.listener.as_fd()).chain(streams)
    }

    /// Takes what has come. A request that is not understood is answered here.
    pub fn take(&mut self) -> Vec<(Asker, Request)> {
        self.accept();
        let mut requests = Vec::new();
        let mut mistaken = Vec::new();
        for connection in &mut self.connections {
            connection.is_read = connection.is_read || !connection.read();
            // One at a time.
            while connection.open == 0
                && let Some(line) = connection.line()
            {
                connection.open += 1;
                match serde_json::from_slice(&line) {
                    Ok(request) => requests.push((connection.asker, request)),
                    Err(error) => mistaken.push((connection.asker, error)),
                }
            }
        }
        for (asker, error) in mistaken {
            let reply = Reply::Refused {
                error: format!("the request is not understood: {error}"),
                help: "use `finject ctl` of the same version".into(),
            };
            self.reply(asker, &reply);
        }
        self.connections
            .retain(|connection| !connection.is_read || connection.open > 0);
        requests
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let is_own =
                peer_uid(stream.as_fd()).is_ok_and(|uid| uid == 0 || uid == effective_uid());
            if !is_own || self.connections.len() >= MOST || stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.asked += 1;
            self.connections.push(Connection {
                asker: Asker(self.asked),
                stream,
                taken: Vec::new(),
                open: 0,
                is_read: false,
            });
        }
    }

    /// Answers. Whoever does not wait for it goes without.
    pub fn reply(&mut self, asker: Asker, reply: &Reply) {
        let Ok(mut line) = serde_json::to_vec(reply) else {
            return;
        };
        line.push(b'\n');
        self.connections.retain_mut(|connection| {
            if connection.asker != asker {
                return true;
            }
            connection.open = 0;
            // Half a reply would be worse than none.
            connection.stream.write_all(&line).is_ok()
        });
    }

    /// Whether whoever asked is still there.
    pub fn waits(&self, asker: Asker) -> bool {
        self.connections
            .iter()
            .any(|connection| connection.asker == asker)
    }
}

/// Listens at a path where nothing is. The socket gets its name only then: before it listens, it looks like one
/// of a session that is dead.
fn listen(directory: &Path, path: &Path) -> std::io::Result<UnixListener> {
    let new = directory.join(format!(".new-{}", std::process::id()));
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    let set = fs::set_permissions(&new, fs::Permissions::from_mode(0o600))
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| fs::hard_link(&new, path));
    let _ = fs::remove_file(&new);
    set.map(|()| listener)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Connection {
    /// Takes what has come; whether more may.
    fn read(&mut self) -> bool {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(length) => self.taken.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
            if self.taken.len() > LONGEST {
                return false;
            }
        }
    }

    /// The next whole line.
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.taken.iter().position(|byte| *byte == b'\n')?;
        let line = self.taken.drain(..=end).collect();
        Some(line)
    }
}

/// Takes sockets away behind which no session is any more; how many there were.
pub fn sweep(directory: &Path) -> usize {
    let sessions = place::sessions(directory);
    let is_dead = |session: &&String| {
        let path = place::socket(directory, session);
        let refused = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
        let is_dead = UnixStream::connect(&path).is_err_and(|error| refused(&error));
        is_dead && fs::remove_file(path).is_ok()
    };
    sessions.iter().filter(is_dead).count()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::thread;

    use serde_json::json;

    use super::super::Client;
    use super::*;

    /// Answers whatever comes with its own spelling, so many times.
    fn echo(mut server: Server, times: usize) -> Server {
        let mut answered = 0;
        while answered < times {
            for (asker, request) in server.take() {
                server.reply(asker, &Reply::Done(json!(format!("{request:?}"))));
                answered += 1;
            }
            thread::yield_now();
        }
        server
    }

    #[test]
    fn a_request_is_answered_on_the_connection_on_which_it_came() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("own");
        let (server, _) = Server::open(&own, "7").unwrap();
        let serving = thread::spawn(move || echo(server, 20));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut client = Client::connect(&own, "7", None).unwrap();
                    for number in 0..10 {
                        let rules = vec![format!("r{number}")];
                        let request = Request::Arm { rules };
                        let said = Reply::Done(json!(format!("{request:?}")));
                        assert_eq!(client.ask(&request).unwrap(), said);
                    }
                });
            }
        });
        drop(serving.join().unwrap());
        assert!(place::sessions(&own).is_empty(), "it takes its socket away");
    }

    #[test]
    fn what_is_not_understood_is_said_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("own");
        let (mut server, _) = Server::open(&own, "7").unwrap();
        let mut stream = UnixStream::connect(place::socket(&own, "7")).unwrap();
        // In pieces, and then one that is understood.
        for piece in ["{\"do\":", "\"dance\"}", "\nnonsense\n{\"do\":\"stop\"}\n"] {
            stream.write_all(piece.as_bytes()).unwrap();
            let mut requests = server.take();
            requests.extend(server.take());
            let is_last = piece.starts_with('\n');
            requests.extend(if is_last { server.take() } else { Vec::new() });
            assert_eq!(requests.len(), usize::from(is_last));
        }
        let mut told = [0; 4096];
        let length = stream.read(&mut told).unwrap();
        let told = String::from_utf8_lossy(&told[..length]).into_owned();
        assert_eq!(told.matches("not understood").count(), 2, "{told}");
        // One that never ends is not listened to for ever.
        let mut endless = UnixStream::connect(place::socket(&own, "7")).unwrap();
        let _ = server.take();
        endless.set_nonblocking(true).unwrap();
        let piece = [b'x'; 4096];
        let mut is_open = true;
        for _ in 0..1000 {
            is_open &= endless.write(&piece).is_ok_and(|length| length > 0);
            let _ = server.take();
        }
        assert!(!is_open);
    }

    #[test]
    fn sockets_of_the_dead_are_swept_away_and_those_of_the_living_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("own");
        let (living, _) = Server::open(&own, "7").unwrap();
        let dead = UnixListener::bind(place::socket(&own, "8")).unwrap();
        drop(dead);
        let (another, swept) = Server::open(&own, "7").unwrap();
        assert_eq!((another.name(), swept), ("7-2", 1));
        assert_eq!(place::sessions(&own), ["7", "7-2"]);
        assert_eq!(fs::metadata(&living.path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
    }
}
