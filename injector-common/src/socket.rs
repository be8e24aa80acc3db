//! What a rule asks of a socket's ends (`peer=`, `addr=`): addresses of both families as 128 bits, an IPv4 one as IPv6 maps it
//! (RFC 4291, section 2.5.5.2), so that one comparison under a mask does for all.

use crate::limits::MAX_SOCKET_TESTS;
use crate::rule::WireRule;

/// No address: a socket that is not connected, or not bound, or what is no socket.
pub const FAMILY_NONE: u32 = 0;
/// `AF_UNIX`.
pub const FAMILY_UNIX: u32 = 1;
/// `AF_INET`.
pub const FAMILY_V4: u32 = 2;
/// `AF_INET6`.
pub const FAMILY_V6: u32 = 10;
/// Of another family, which no pattern names.
pub const FAMILY_OTHER: u32 = u32::MAX;

/// Which end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SocketSide {
    /// The other one.
    Peer = 0,
    /// The socket's own.
    Own = 1,
}

/// An end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint {
    /// The address, its first 64 bits first.
    pub address: [u64; 2],
    /// The port.
    pub port: u32,
    /// One of `FAMILY_*`.
    pub family: u32,
}

impl Endpoint {
    /// None.
    pub const NONE: Self = Self {
        address: [0; 2],
        port: 0,
        family: FAMILY_NONE,
    };

    /// The last 64 bits of an IPv4 address.
    #[inline(always)]
    pub const fn mapped(address: u32) -> u64 {
        0xffff << 32 | address as u64
    }
}

/// One predicate on an end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WireSocketTest {
    /// The address, where the mask has bits.
    pub address: [u64; 2],
    /// The bits that are compared.
    pub mask: [u64; 2],
    /// The port; 0 for any.
    pub port: u32,
    /// The family: [`FAMILY_NONE`] for either of the two with ports, [`FAMILY_V6`] for that one,
    /// [`FAMILY_UNIX`] for a name, whose pattern stands behind those of the rule's tests of files.
    pub family: u32,
    /// A [`SocketSide`] as its number.
    pub side: u32,
    /// One of `SOCKET_*`; 0 for no test.
    pub op: u32,
}

/// The end is that.
pub const SOCKET_IS: u32 = 1;
/// There is such an end, and it is not that.
pub const SOCKET_IS_NOT: u32 = 2;

impl WireSocketTest {
    /// No test: what stands behind the last one.
    pub const NONE: Self = Self {
        address: [0; 2],
        mask: [0; 2],
        port: 0,
        family: FAMILY_NONE,
        side: 0,
        op: 0,
    };

    /// Whether it is about a unix socket's name.
    pub const fn is_unix(&self) -> bool {
        self.op != 0 && self.family == FAMILY_UNIX
    }

    /// Whether an end is what the test names; of a unix socket's it says only that it has one.
    #[inline(always)]
    pub const fn is_met(&self, end: &Endpoint) -> bool {
        if self.family == FAMILY_UNIX {
            return end.family == FAMILY_UNIX;
        }
        let is_family =
            end.family == FAMILY_V6 || (end.family == FAMILY_V4 && self.family == FAMILY_NONE);
        let differs = (end.address[0] ^ self.address[0]) & self.mask[0]
            | (end.address[1] ^ self.address[1]) & self.mask[1];
        is_family && differs == 0 && (self.port == 0 || self.port == end.port)
    }
}

/// Whether all tests of a rule's sockets hold; `matches` says of one test whether the end is what it names, and [`None`] where
/// there is no such end.
#[inline(always)]
pub fn is_about_sockets(
    rule: &WireRule,
    mut matches: impl FnMut(&WireSocketTest) -> Option<bool>,
) -> bool {
    let mut index = 0;
    while index < MAX_SOCKET_TESTS {
        let test = &rule.sockets[index];
        if test.op != 0 && matches(test) != Some(test.op == SOCKET_IS) {
            return false;
        }
        index += 1;
    }
    true
}

const _: () = assert!(size_of::<WireSocketTest>() == 48);
const _: () = assert!(size_of::<Endpoint>() == 24);
