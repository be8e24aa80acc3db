//! The ends of the socket that a call is about, and whether they are those that a rule names (doc/rules.md, `peer=` and `addr=`):
//! for backends that look at calls from outside the kernel. An address that the call itself gives comes before the socket's.

use std::cell::OnceCell;

use injector_common::socket::{FAMILY_OTHER, FAMILY_UNIX, FAMILY_V4, FAMILY_V6};
use injector_common::{Endpoint, SocketSide, WireGlob, WireRule, WireSocketTest, is_about_sockets};
use rustix::io::Errno;
use rustix::net::{
    SocketAddrAny, SocketAddrUnix, SocketAddrV4, SocketAddrV6, getpeername, getsockname,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::files::is_named;
use super::memory::CallSlot;
use crate::sys::process::read_memory;
use crate::syscall::{AddressArg, DataPlace, Direction, roles};
use crate::target::view::{Seen, Unseen, if_all_are_seen};

/// An end of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// As it is compared.
    pub endpoint: Endpoint,
    /// The name of a unix socket; an abstract one's after `@`.
    pub name: Vec<u8>,
}

/// What is looked at of the socket of one call.
pub trait Sockets {
    /// One of its ends; [`None`] where it has none, and where there is no socket.
    fn end(&self, side: SocketSide) -> Seen<Option<End>>;
}

/// A call without sockets.
#[derive(Clone, Copy, Debug)]
pub struct NoSockets;

impl Sockets for NoSockets {
    fn end(&self, _: SocketSide) -> Seen<Option<End>> {
        Ok(None)
    }
}

/// A call's socket.
#[derive(Debug)]
pub struct CallSocket<'a> {
    tgid: u32,
    call: CallSlot,
    args: &'a [u64; 6],
}

/// Bytes of the longest address (`struct sockaddr_storage`).
const MOST: usize = 128;

impl<'a> CallSocket<'a> {
    /// Of a process.
    pub fn of(tgid: u32, call: CallSlot, args: &'a [u64; 6]) -> Self {
        Self { tgid, call, args }
    }

    fn arg(&self, number: u8) -> u64 {
        let arg = self.args.get(usize::from(number).wrapping_sub(1));
        let arg = arg.copied().unwrap_or(0);
        if self.call.compat {
            arg & u64::from(u32::MAX)
        } else {
            arg
        }
    }

    /// The address that the call gives for an end: where it lies, and how long it is.
    fn given(&self, side: SocketSide) -> Seen<Option<(u64, u64)>> {
        let roles = roles(self.call.into());
        if let Some(AddressArg { at, len, peer }) = roles.address {
            let is_meant = peer == (side == SocketSide::Peer);
            let address = (self.arg(at), self.arg(len));
            return Ok(Some(address).filter(|(at, _)| is_meant && *at != 0));
        }
        let Some(data) = roles.data.filter(|data| data.direction == Direction::Out) else {
            return Ok(None);
        };
        let (DataPlace::Message { at } | DataPlace::Messages { at, .. }) = data.place else {
            return Ok(None);
        };
        if side == SocketSide::Own {
            return Ok(None);
        }
        // `msg_name` and `msg_namelen` of `struct user_msghdr`; of several messages the first one's.
        let width = if self.call.compat { 4 } else { 8 };
        let mut message = [0; 12];
        let Some(message) = self.read(self.arg(at), &mut message[..width + 4])? else {
            return Ok(None);
        };
        let (name, length) = message.split_at(width);
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        };
        Ok(Some((word(name), word(length))).filter(|(at, _)| *at != 0))
    }

    /// Reads the caller's memory; [`None`] where there is nothing, so that the call fails by itself.
    fn read<'b>(&self, at: u64, to: &'b mut [u8]) -> Seen<Option<&'b [u8]>> {
        match read_memory(self.tgid, at, to) {
            Ok(()) => Ok(Some(to)),
            Err(error) if matches!(error.errno(), libc::EFAULT | libc::ESRCH) => Ok(None),
            Err(error) => Err(Unseen(Errno::from_raw_os_error(error.errno()))),
        }
    }

    fn own(&self, side: SocketSide) -> Seen<Option<End>> {
        let fd = roles(self.call.into())
            .fds
            .first()
            .map(|fd| self.arg(*fd) as i32);
        let (Some(fd), Some(pid)) = (fd.filter(|fd| *fd >= 0), Pid::from_raw(self.tgid as i32))
        else {
            return Ok(None);
        };
        // For as long as it takes to ask, the socket has another descriptor.
        let twin = pidfd_open(pid, PidfdFlags::empty())
            .and_then(|process| pidfd_getfd(process, fd, PidfdGetfdFlags::empty()));
        let found = twin.and_then(|socket| match side {
            SocketSide::Peer => getpeername(socket),
            SocketSide::Own => getsockname(socket).map(Some),
        });
        match found {
            // A unix socket of no name is not bound.
            Ok(address) => Ok(address.and_then(end_of).filter(|end| {
                let is_unix = end.endpoint.family == FAMILY_UNIX;
                side == SocketSide::Peer || !is_unix || !end.name.is_empty()
            })),
            // No socket, not connected, closed meanwhile, or its process is gone.
            Err(Errno::NOTSOCK | Errno::NOTCONN | Errno::BADF | Errno::SRCH | Errno::INVAL) => {
                Ok(None)
            }
            Err(error) => Err(Unseen(error)),
        }
    }
}

impl Sockets for CallSocket<'_> {
    fn end(&self, side: SocketSide) -> Seen<Option<End>> {
        let Some((at, length)) = self.given(side)? else {
            return self.own(side);
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(MOST);
        let mut bytes = [0; MOST];
        let bytes = self.read(at, bytes.get_mut(..length).unwrap_or(&mut []))?;
        Ok(bytes.and_then(parse))
    }
}

/// An address as a call gives it: `struct sockaddr_in`, `sockaddr_in6` and `sockaddr_un`.
fn parse(bytes: &[u8]) -> Option<End> {
    let array = |at: usize| -> Option<[u8; 2]> { bytes.get(at..at + 2)?.try_into().ok() };
    let family = u32::from(u16::from_ne_bytes(array(0)?));
    let port = || Some(u32::from(u16::from_be_bytes(array(2)?)));
    let end = |address, port| End {
        endpoint: Endpoint {
            address,
            port,
            family,
        },
        name: Vec::new(),
    };
    match family {
        FAMILY_V4 => {
            let address = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
            Some(end([0, Endpoint::mapped(address)], port()?))
        }
        FAMILY_V6 => {
            let word =
                |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
            Some(end([word(8)?, word(16)?], port()?))
        }
        FAMILY_UNIX => Some(unix(bytes.get(2..)?)),
        // It takes a connection away, and leads to none.
        0 => None,
        _ => Some(End {
            endpoint: Endpoint {
                family: FAMILY_OTHER,
                ..Endpoint::NONE
            },
            name: Vec::new(),
        }),
    }
}

/// A unix socket's end by its `sun_path`.
fn unix(path: &[u8]) -> End {
    let name = match path.split_first() {
        Some((0, name)) if !name.is_empty() => [b"@", name].concat(),
        _ => path.split(|byte| *byte == 0).next().unwrap_or(&[]).to_vec(),
    };
    End {
        endpoint: Endpoint {
            family: FAMILY_UNIX,
            ..Endpoint::NONE
        },
        name,
    }
}

/// An address as the kernel tells it; [`None`] for an end that is not bound.
fn end_of(address: SocketAddrAny) -> Option<End> {
    if let Ok(v4) = SocketAddrV4::try_from(address.clone()) {
        let endpoint = Endpoint {
            address: [0, Endpoint::mapped(v4.ip().to_bits())],
            port: v4.port().into(),
            family: FAMILY_V4,
        };
        let name = Vec::new();
        return (endpoint.port != 0).then_some(End { endpoint, name });
    }
    if let Ok(v6) = SocketAddrV6::try_from(address.clone()) {
        let bits = v6.ip().to_bits();
        let endpoint = Endpoint {
            address: [(bits >> 64) as u64, bits as u64],
            port: v6.port().into(),
            family: FAMILY_V6,
        };
        let name = Vec::new();
        return (endpoint.port != 0).then_some(End { endpoint, name });
    }
    if let Ok(name) = SocketAddrUnix::try_from(address) {
        let path = name.path_bytes().unwrap_or_default();
        return Some(match name.abstract_name() {
            Some(name) => unix(&[b"\0", name].concat()),
            None => unix(path),
        });
    }
    None
}

/// Whether a rule is about the socket of a call; `names` are the patterns of its tests of unix sockets, in their order.
pub fn hold(rule: &WireRule, names: &[WireGlob], sockets: &Looked<impl Sockets>) -> Seen<bool> {
    let mut names = names.iter();
    if_all_are_seen(|seen| {
        is_about_sockets(rule, |test| {
            let name = test.is_unix().then(|| names.next()).flatten();
            seen(sockets.matches(test, name))
        })
    })
}

/// The socket of one call, and what was looked at so far, each end at most once.
#[derive(Debug)]
pub struct Looked<S> {
    sockets: S,
    ends: [OnceCell<Seen<Option<End>>>; 2],
}

impl<S: Sockets> Looked<S> {
    /// Nothing yet.
    pub fn new(sockets: S) -> Self {
        Self {
            sockets,
            ends: [OnceCell::new(), OnceCell::new()],
        }
    }

    /// Whether the end is what the test names; [`None`] where there is none.
    fn matches(&self, test: &WireSocketTest, name: Option<&WireGlob>) -> Seen<Option<bool>> {
        let [peer, own] = &self.ends;
        let (cell, side) = if test.side == SocketSide::Own as u32 {
            (own, SocketSide::Own)
        } else {
            (peer, SocketSide::Peer)
        };
        let end = cell.get_or_init(|| self.sockets.end(side));
        let end = end.as_ref().map_err(|error| *error)?;
        Ok(end.as_ref().map(|end| {
            let is_called = |glob: &WireGlob| {
                let mut all = glob.alternatives.iter();
                all.any(|alternative| is_named(glob, *alternative, &end.name))
            };
            test.is_met(&end.endpoint) && name.is_none_or(is_called)
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::rule::lower::lower;
    use crate::rule::{RuleText, compile};
    use crate::syscall::by_name;

    struct Fake(Option<End>);

    impl Sockets for Fake {
        fn end(&self, _: SocketSide) -> Seen<Option<End>> {
            Ok(self.0.clone())
        }
    }

    fn is_about(rule: &str, end: Option<End>) -> bool {
        let rule = format!("connect({rule})=EIO");
        let lowered = lower(&compile(&[RuleText::new(rule)]).unwrap().rules[0]).unwrap();
        hold(&lowered.wire, &lowered.globs, &Looked::new(Fake(end))).unwrap()
    }

    fn v4(address: [u8; 4], port: u16) -> Vec<u8> {
        let mut bytes = vec![2, 0];
        bytes.extend(port.to_be_bytes());
        bytes.extend(address);
        bytes.extend([0; 8]);
        bytes
    }

    fn v6(address: &str, port: u16) -> Vec<u8> {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        let mut bytes = vec![10, 0];
        bytes.extend(port.to_be_bytes());
        bytes.extend([1, 2, 3, 4]);
        bytes.extend(address.octets());
        bytes.extend([0; 4]);
        bytes
    }

    fn un(path: &[u8]) -> Vec<u8> {
        [&[1, 0], path].concat()
    }

    #[test]
    fn ends_are_compared_as_the_reference_says() {
        let (seven, mapped) = (v4([10, 0, 0, 7], 5432), v6("::ffff:10.0.0.7", 5432));
        let far = v6("2001:db8::5", 443);
        for (rule, bytes, holds) in [
            ("peer=10.0.0.7", &seven, true),
            ("peer=10.0.0.7", &mapped, true),
            ("peer=10.0.0.7:5432", &mapped, true),
            ("peer=10.0.0.7:5433", &seven, false),
            ("peer=10.0.0.0/8", &seven, true),
            ("peer=10.0.0.0/29", &seven, true),
            ("peer=10.0.0.0/30", &seven, false),
            ("peer=0.0.0.0/0", &far, false),
            ("peer!=10.0.0.7", &far, true),
            ("peer!=10.0.0.7", &seven, false),
            ("peer=:443", &far, true),
            ("peer=:443", &seven, false),
            ("peer=2001:db8::/32", &far, true),
            ("peer=[2001:db8::/32]:443", &far, true),
            ("peer=[2001:db8::/32]:80", &far, false),
            ("peer=2001:db8::4/127", &far, true),
            ("peer=2001:db8::4/128", &far, false),
            ("peer=::/0", &far, true),
            ("peer=::/0", &seven, false),
            ("peer=unix:**", &seven, false),
            ("peer!=unix:**", &seven, true),
            (
                "peer=unix:/run/db/*.sock",
                &un(b"/run/db/a.sock\0garbage"),
                true,
            ),
            ("peer=unix:*.sock", &un(b"/run/db/a.sock"), true),
            ("peer=unix:*.sock", &un(b"/run/db/a.sock.old"), false),
            ("peer=unix:@db", &un(b"\0db"), true),
            ("peer=unix:@db", &un(b"db\0"), false),
            ("peer=10.0.0.7", &un(b"/a\0"), false),
            ("peer=10.0.0.0/8,peer=:5432", &seven, true),
            ("peer=10.0.0.0/8,peer!=:5432", &seven, false),
        ] {
            assert_eq!(is_about(rule, parse(bytes)), holds, "{rule} {bytes:?}");
        }
        for rule in ["peer=10.0.0.7", "peer!=10.0.0.7", "peer!=unix:**"] {
            assert!(!is_about(rule, None), "{rule}");
            assert!(!is_about(rule, parse(&[0, 0, 1, 2, 3, 4, 5, 6])), "{rule}");
        }
        assert!(is_about("peer!=10.0.0.7", parse(&[16, 0, 0, 0])));
        for short in 0..8 {
            assert_eq!(parse(&seven[..short]), None);
        }
    }

    /// A call of this process's own.
    fn end(call: &str, args: [u64; 6], side: SocketSide) -> Option<End> {
        let call = by_name(call)[0].id().into();
        CallSocket::of(std::process::id(), call, &args)
            .end(side)
            .unwrap()
    }

    #[test]
    fn sockets_are_asked_and_what_a_call_gives_comes_first() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let fd = |socket: i32| socket as u64;
        let of = |socket: i32, call: &str, side| end(call, [fd(socket), 0, 0, 0, 0, 0], side);
        let local = parse(&v4([127, 0, 0, 1], port));
        assert_eq!(of(stream.as_raw_fd(), "read", SocketSide::Peer), local);
        assert_eq!(of(listener.as_raw_fd(), "listen", SocketSide::Own), local);
        assert_eq!(of(listener.as_raw_fd(), "accept", SocketSide::Peer), None);
        let pipe = std::io::pipe().unwrap();
        assert_eq!(of(pipe.0.as_raw_fd(), "read", SocketSide::Peer), None);
        assert_eq!(of(-1, "read", SocketSide::Peer), None);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(of(udp.as_raw_fd(), "recvfrom", SocketSide::Peer), None);
        let other = v4([10, 0, 0, 7], 5432);
        let at = other.as_ptr() as u64;
        let args = [fd(udp.as_raw_fd()), 0, 0, 0, at, 16];
        assert_eq!(end("sendto", args, SocketSide::Peer), parse(&other));
        let args = [fd(stream.as_raw_fd()), at, 16, 0, 0, 0];
        assert_eq!(end("connect", args, SocketSide::Peer), parse(&other));
        assert_eq!(end("bind", args, SocketSide::Own), parse(&other));
        assert_eq!(end("bind", args, SocketSide::Peer), local);
        let message: [u64; 2] = [at, 16];
        let args = [fd(udp.as_raw_fd()), message.as_ptr() as u64, 0, 0, 0, 0];
        assert_eq!(end("sendmsg", args, SocketSide::Peer), parse(&other));
        assert_eq!(
            end("connect", [3, 8, 16, 0, 0, 0], SocketSide::Peer),
            None,
            "EFAULT"
        );
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let unix = UnixListener::bind(&path).unwrap();
        let own = of(unix.as_raw_fd(), "accept", SocketSide::Own).unwrap();
        assert_eq!(own.name, path.as_os_str().as_encoded_bytes());
    }
}
