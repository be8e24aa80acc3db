//! What a rule asks of a call's arguments (`fd=`, `argN`): a test for each predicate, and how the
//! kernel reads the registers of each call. An argument is compared at its own width and sign, so
//! that what a caller leaves in the upper half of a register does not matter, and `-100` means the
//! same in an `int` as in a `long`.

use crate::limits::MAX_TESTS;
use crate::rule::WireRule;

/// The width and sign of each of a call's arguments, which of them is its descriptor, how they describe the
/// data that it moves, and which is a socket's address: four bits for each argument from the first on, then three for the
/// descriptor's number, three for the data, and two for the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct ArgKinds(pub u32);

/// Where the number of the descriptor's argument stands.
const DESCRIPTOR: u32 = 24;
/// Where it is told how the call's data is described.
const DATA: u32 = 27;
/// Its bit for data that the call sends out.
const SENDS: u32 = 1 << 29;
/// Where it is told which argument is an address.
const ADDRESS: u32 = 30;
const SIGNED: u32 = 4;
/// An unsigned number of 32 bits, which is what the kernel takes descriptors for (`fget(unsigned int)`
/// in include/linux/file.h), whatever the call declares.
const UINT: u32 = 2;

impl ArgKinds {
    /// A call without arguments.
    pub const NONE: Self = Self(0);

    /// Adds an argument (1 to 6) of that many bits (16, 32 or 64).
    #[must_use]
    pub const fn with(self, arg: u32, bits: u32, signed: bool) -> Self {
        let width = match bits {
            16 => 1,
            32 => 2,
            _ => 3,
        };
        let kind = if signed { width | SIGNED } else { width };
        Self(self.0 | kind << (4 * (arg.wrapping_sub(1) & 7)))
    }

    /// The width in bits of the argument with that index (from 0), 8 where the call does not have it.
    pub const fn bits(self, index: usize) -> u32 {
        8 << (self.0 >> (4 * (index as u32 & 7)) & 3)
    }

    /// Says how the call's data is described, and whether it sends it out.
    #[must_use]
    pub const fn with_data(self, kind: DataKind, sends: bool) -> Self {
        Self(self.0 | (kind as u32) << DATA | if sends { SENDS } else { 0 })
    }

    /// How the call's data is described.
    #[inline(always)]
    pub const fn data(self) -> DataKind {
        match self.0 >> DATA & 3 {
            1 => DataKind::Buffer,
            2 => DataKind::Vector,
            3 => DataKind::Message,
            _ => DataKind::None,
        }
    }

    /// Whether the call sends its data out.
    pub const fn sends(self) -> bool {
        self.0 & SENDS != 0
    }

    /// Says which argument is a socket's address, and of which end.
    #[must_use]
    pub const fn with_address(self, kind: AddressKind) -> Self {
        Self(self.0 | (kind as u32) << ADDRESS)
    }

    /// Which argument is a socket's address, and of which end.
    #[inline(always)]
    pub const fn address(self) -> AddressKind {
        match self.0 >> ADDRESS {
            1 => AddressKind::PeerInSecond,
            2 => AddressKind::OwnInSecond,
            3 => AddressKind::PeerInFifth,
            _ => AddressKind::None,
        }
    }

    /// Which argument (1 to 6) is the call's descriptor; 0 where it has none.
    #[inline(always)]
    pub const fn descriptor(self) -> u32 {
        self.0 >> DESCRIPTOR & 7
    }

    /// Says which argument (1 to 6) is the call's descriptor.
    #[must_use]
    pub const fn with_descriptor(self, arg: u32) -> Self {
        Self(self.0 | (arg & 7) << DESCRIPTOR)
    }
}

/// How the second argument of a call describes the data that it moves, and the third how much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DataKind {
    /// The call moves none.
    None = 0,
    /// A pointer, and a length in bytes.
    Buffer = 1,
    /// An array of `struct iovec`, and their number.
    Vector = 2,
    /// A `struct msghdr`.
    Message = 3,
}

/// Which argument of a call points to a socket's address, whose length is in the one behind it. `sendmsg` has one within the
/// message, see [`DataKind::Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AddressKind {
    /// None.
    None = 0,
    /// The second, of the other end: `connect`.
    PeerInSecond = 1,
    /// The second, of the socket's own: `bind`.
    OwnInSecond = 2,
    /// The fifth, of the other end, and there may be none: `sendto`.
    PeerInFifth = 3,
}

/// The argument is below the value.
pub const OP_LESS: u32 = 1;
/// It is the value.
pub const OP_EQUAL: u32 = 1 << 1;
/// It is above the value.
pub const OP_GREATER: u32 = 1 << 2;
/// It has one of the value's bits.
pub const OP_ANY_BIT: u32 = 1 << 3;
/// Not a way to hold: the value is a negative number, in two's complement.
pub const OP_NEGATIVE: u32 = 1 << 4;

/// [`WireTest::arg`] of the descriptor, whichever argument that is.
pub const ARG_DESCRIPTOR: u32 = 0;

/// One predicate on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WireTest {
    /// With what the argument is compared: -2^63 to 2^64 - 1, see [`OP_NEGATIVE`].
    pub value: u64,
    /// Which argument, 1 to 6, or [`ARG_DESCRIPTOR`].
    pub arg: u32,
    /// The `OP_*` bits: it holds where one of them does. 0 for no test.
    pub op: u32,
}

impl WireTest {
    /// No test: what stands behind the last one.
    pub const NONE: Self = Self {
        value: 0,
        arg: 0,
        op: 0,
    };

    /// The index (from 0) and the kind of the argument that it is about; [`None`] where the call does
    /// not have it.
    #[inline(always)]
    const fn place(&self, kinds: ArgKinds) -> Option<(usize, u32)> {
        let of_descriptor = self.arg == ARG_DESCRIPTOR;
        let arg = if of_descriptor {
            kinds.descriptor()
        } else {
            self.arg
        };
        let index = arg.wrapping_sub(1) & 7;
        if index >= 6 {
            return None;
        }
        let kind = kinds.0 >> (4 * index) & 7;
        if kind == 0 {
            return None;
        }
        Some((index as usize, if of_descriptor { UINT } else { kind }))
    }

    /// The index (from 0) of the argument that it is about; [`None`] where the call does not have it.
    pub const fn index(&self, kinds: ArgKinds) -> Option<usize> {
        match self.place(kinds) {
            Some((index, _)) => Some(index),
            None => None,
        }
    }

    /// Whether it holds. A test of an argument that the call does not have never does. A value that
    /// fits the argument's width with or without a sign is taken for the number that has the same
    /// bits there; one that fits neither way is beyond all that the argument can be.
    #[inline(always)]
    pub const fn holds(&self, kinds: ArgKinds, args: &[u64; 6]) -> bool {
        let Some((index, kind)) = self.place(kinds) else {
            return false;
        };
        let bits = 8 << (kind & 3);
        // Both moved to the top, the sign turned round: then they compare as plain numbers.
        let shift = 64 - bits;
        let turned = if kind & SIGNED != 0 { 1 << 63 } else { 0 };
        let (found, wanted) = (args[index] << shift, self.value << shift);
        let beyond = if self.op & OP_NEGATIVE != 0 {
            (self.value as i64) >> (bits - 1) != -1
        } else {
            self.value >> (bits - 1) >> 1 != 0
        };
        let order = if beyond {
            if self.op & OP_NEGATIVE != 0 {
                OP_GREATER
            } else {
                OP_LESS
            }
        } else if found == wanted {
            OP_EQUAL
        } else if found ^ turned < wanted ^ turned {
            OP_LESS
        } else {
            OP_GREATER
        };
        let shared = if found & wanted != 0 { OP_ANY_BIT } else { 0 };
        self.op & (order | shared) != 0
    }
}

/// Whether all tests of a rule hold.
#[inline(always)]
pub fn all_hold(rule: &WireRule, kinds: ArgKinds, args: &[u64; 6]) -> bool {
    let mut index = 0;
    while index < MAX_TESTS {
        let test = &rule.tests[index];
        if test.op == 0 {
            return true;
        }
        if !test.holds(kinds, args) {
            return false;
        }
        index += 1;
    }
    true
}

const _: () = assert!(size_of::<WireTest>() == 16);
