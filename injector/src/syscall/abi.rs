//! The ways into the kernel, and the number of a call in one of them.

use std::fmt;

/// A way of calling the kernel with its own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Abi {
    /// 64-bit x86 (`syscall`). Its variant x32 is not supported.
    X86_64,
    /// 32-bit x86 (`int 0x80`, `sysenter`) under a 64-bit kernel.
    I386,
}

impl Abi {
    /// Every ABI, the native one first.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::I386];
    /// The ABI of ordinary programs: what a bare number in a rule means.
    pub const NATIVE: Self = Self::X86_64;

    /// Width of a register, a `long` and a pointer, in bits.
    pub fn word_bits(self) -> u8 {
        match self {
            Self::X86_64 => 64,
            Self::I386 => 32,
        }
    }
}

impl fmt::Display for Abi {
    /// As rules say it: `64` or `32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.word_bits().fmt(f)
    }
}

/// The number of a call in some ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sysno(pub u16);

impl fmt::Display for Sysno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One call of one ABI. Prints as `fsync`, or `fsync@32` outside the native ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    /// The way in.
    pub abi: Abi,
    /// The number there.
    pub nr: Sysno,
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match super::by_id(*self) {
            Some(call) => f.write_str(call.name())?,
            None => self.nr.fmt(f)?,
        }
        if self.abi != Abi::NATIVE {
            write!(f, "@{}", self.abi)?;
        }
        Ok(())
    }
}
