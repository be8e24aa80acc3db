//! The ends of the socket that a call is about, for rules that name them: as the call gives an address, and else as the
//! kernel's socket has them. Walked without a lock, as files are.

use injector_common::limits::MAX_RULES;
use injector_common::socket::{
    FAMILY_NONE, FAMILY_OTHER, FAMILY_UNIX, FAMILY_V4, FAMILY_V6, SocketSide,
};
use injector_common::{AddressKind, ArgKinds, DataKind, Endpoint, WireRule, is_about_sockets};

use crate::data::{is_socket, open_file, read_user};
use crate::facts::{self, Task};
use crate::files::{FAILS, PASSES, UNSEEN, descriptor};
use crate::maps;

/// What comes of a rule's tests of the socket of the calling thread's call.
#[inline(never)]
pub fn hold(index: u32, compat: u32, nr: u32) -> u32 {
    let shared = maps::shared();
    // SAFETY: the mapped memory, the index below its length; a rule does not change once it was in force.
    let rule: &WireRule = unsafe { &(*shared).rules[index as usize & (MAX_RULES - 1)] };
    let mut unseen = 0;
    let holds = is_about_sockets(rule, |test| {
        let mut end = Endpoint::NONE;
        let found = find(test.side, compat, nr, &mut end);
        unseen |= found;
        (end.family != FAMILY_NONE).then(|| test.is_met(&end))
    });
    if unseen != 0 {
        UNSEEN
    } else if holds {
        PASSES
    } else {
        FAILS
    }
}

/// Writes an end down; 1 where it cannot be told, else 0.
#[inline(never)]
fn find(side: u32, compat: u32, nr: u32, end: &mut Endpoint) -> u32 {
    let kinds = maps::kinds_of(compat != 0, nr);
    match given(side, compat != 0, kinds) {
        Given::At(address) => read_address(address, end),
        Given::Nowhere => {
            own(side, compat, nr, end);
            0
        }
        Given::Unseen => 1,
    }
}

/// Where a call gives an address.
enum Given {
    Nowhere,
    At(u64),
    /// It cannot be read where.
    Unseen,
}

#[inline(always)]
fn given(side: u32, compat: bool, kinds: ArgKinds) -> Given {
    let args = Task::current().regs().args(compat);
    let is_peer = side == SocketSide::Peer as u32;
    let address = match kinds.address() {
        AddressKind::PeerInSecond if is_peer => args[1],
        AddressKind::OwnInSecond if !is_peer => args[1],
        AddressKind::PeerInFifth if is_peer => args[4],
        // `msg_name`, with which a message begins.
        AddressKind::None
            if is_peer && kinds.sends() && matches!(kinds.data(), DataKind::Message) =>
        {
            let name = if compat {
                read_user::<u32>(args[1]).map(u64::from)
            } else {
                read_user::<u64>(args[1])
            };
            match name {
                Some(name) => name,
                None => return Given::Unseen,
            }
        }
        _ => 0,
    };
    if address == 0 {
        Given::Nowhere
    } else {
        Given::At(address)
    }
}

/// An address in the caller's memory; 1 where it cannot be read.
#[inline(never)]
fn read_address(at: u64, end: &mut Endpoint) -> u32 {
    let Some(family) = read_user::<u16>(at) else {
        return 1;
    };
    let port = read_user::<u16>(at + 2).unwrap_or(0);
    end.port = u16::from_be(port).into();
    match u32::from(family) {
        FAMILY_V4 => {
            let address = read_user::<u32>(at + 4).unwrap_or(0);
            end.address[1] = Endpoint::mapped(u32::from_be(address));
            end.family = FAMILY_V4;
        }
        FAMILY_V6 => {
            end.address[0] = u64::from_be(read_user::<u64>(at + 8).unwrap_or(0));
            end.address[1] = u64::from_be(read_user::<u64>(at + 16).unwrap_or(0));
            end.family = FAMILY_V6;
        }
        FAMILY_UNIX => end.family = FAMILY_UNIX,
        // It takes a connection away, and leads to none.
        0 => {}
        _ => end.family = FAMILY_OTHER,
    }
    0
}

/// What the socket of the call's descriptor has.
#[inline(never)]
fn own(side: u32, compat: u32, nr: u32, end: &mut Endpoint) -> u32 {
    let file = open_file(descriptor(compat, nr));
    if !is_socket(file) {
        return 0;
    }
    let is_peer = side == SocketSide::Peer as u32;
    let socket: u64 = facts::read(file, maps::off_private());
    let sock: u64 = facts::read(socket as *const u8, maps::off_socket_sock());
    let sock = sock as *const u8;
    let family: u16 = facts::read(sock, maps::off_sock_family());
    // The other port lies as it is on the wire, the own one as a number (include/net/sock.h).
    let port: u16 = if is_peer {
        u16::from_be(facts::read(sock, maps::off_sock_peer_port()))
    } else {
        facts::read(sock, maps::off_sock_port())
    };
    let offset = |peer: u32, own: u32| if is_peer { peer } else { own };
    end.port = port.into();
    match u32::from(family) {
        FAMILY_V4 if port != 0 => {
            let at = offset(maps::off_sock_peer(), maps::off_sock_own());
            let address: u32 = facts::read(sock, at);
            end.address[1] = Endpoint::mapped(u32::from_be(address));
            end.family = FAMILY_V4;
        }
        FAMILY_V6 if port != 0 => {
            let at = offset(maps::off_sock_peer6(), maps::off_sock_own6());
            end.address[0] = u64::from_be(facts::read(sock, at));
            end.address[1] = u64::from_be(facts::read(sock, at + 8));
            end.family = FAMILY_V6;
        }
        FAMILY_UNIX => {
            let at = offset(maps::off_unix_peer(), maps::off_unix_address());
            let other: u64 = facts::read(sock, at);
            if other != 0 {
                end.family = FAMILY_UNIX;
            }
        }
        _ => {}
    }
    0
}
