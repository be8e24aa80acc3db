//! Socket addresses that a rule names: a network with or without a port, a port alone, or the
//! path of a unix socket.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use super::glob::Glob;

/// What the address of a socket is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressPattern {
    /// IPv4 or IPv6. A v4 network also matches v4-mapped v6 addresses.
    Ip {
        /// The addresses; `None` for any.
        net: Option<IpNet>,
        /// The port; `None` for any. Never both `None`.
        port: Option<u16>,
    },
    /// A unix socket by its path; an abstract one by its name after `@`.
    Unix(Glob),
}

/// Addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpNet {
    base: IpAddr,
    len: u8,
}

impl IpNet {
    /// Takes an address and the length of the prefix, at most 32 or 128; bits after the prefix
    /// must be zero (`None` otherwise).
    pub fn new(base: IpAddr, len: u8) -> Option<Self> {
        (len <= Self::max_len(base) && Self::masked(base, len) == base)
            .then_some(Self { base, len })
    }

    /// The length of a whole address.
    pub fn max_len(base: IpAddr) -> u8 {
        if base.is_ipv4() { 32 } else { 128 }
    }

    /// The address with the bits after the prefix cleared.
    pub fn masked(base: IpAddr, len: u8) -> IpAddr {
        match base {
            IpAddr::V4(v4) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(len.min(32)))
                    .unwrap_or(0);
                IpAddr::from((v4.to_bits() & mask).to_be_bytes())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(len.min(128)))
                    .unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        }
    }

    /// Whether they are IPv4 addresses.
    pub fn is_v4(self) -> bool {
        self.base.is_ipv4()
    }

    /// The address as 128 bits, an IPv4 one as IPv6 maps it, and which of them all addresses share.
    pub fn bits(self) -> (u128, u128) {
        let (bits, len) = match self.base {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().to_bits(), self.len.saturating_add(96)),
            IpAddr::V6(v6) => (v6.to_bits(), self.len),
        };
        let mask = u128::MAX
            .checked_shl(128 - u32::from(len.min(128)))
            .unwrap_or(0);
        (bits, mask)
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.base.fmt(f)?;
        if self.len == Self::max_len(self.base) {
            Ok(())
        } else {
            write!(f, "/{}", self.len)
        }
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(glob) => write!(f, "unix:{}", glob.as_str()),
            Self::Ip { net, port } => {
                match net {
                    Some(net) if net.base.is_ipv6() && port.is_some() => write!(f, "[{net}]")?,
                    Some(net) => net.fmt(f)?,
                    None => {}
                }
                match port {
                    Some(port) => write!(f, ":{port}"),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_their_prefix_says() {
        for (base, len, address, expected) in [
            ("10.0.0.0", 8, "10.1.2.3", true),
            ("10.0.0.0", 8, "11.1.2.3", false),
            ("10.0.0.7", 32, "::ffff:10.0.0.7", true),
            ("0.0.0.0", 0, "255.1.1.1", true),
            ("0.0.0.0", 0, "2001:db8::1", false),
            ("2001:db8::", 32, "2001:db8:1::5", true),
            ("::", 0, "2001:db8::1", true),
        ] {
            let net = IpNet::new(base.parse().unwrap(), len).unwrap();
            let address: IpAddr = address.parse().unwrap();
            let address = match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
                IpAddr::V6(v6) => v6.to_bits(),
            };
            let (bits, mask) = net.bits();
            assert_eq!((address ^ bits) & mask == 0, expected, "{net} {address}");
        }
        for text in ["10.0.0.0/8", "10.0.0.7", "2001:db8::/32", "::1"] {
            let (base, len) = text.split_once('/').unwrap_or((text, ""));
            let base: IpAddr = base.parse().unwrap();
            let whole = if base.is_ipv6() { 128 } else { 32 };
            let net = IpNet::new(base, len.parse().unwrap_or(whole));
            let shown = |port| AddressPattern::Ip { net, port }.to_string();
            let bracketed = if base.is_ipv6() {
                format!("[{text}]:80")
            } else {
                format!("{text}:80")
            };
            assert_eq!((shown(None), shown(Some(80))), (text.to_owned(), bracketed));
        }
        assert_eq!(IpNet::new("10.0.0.1".parse().unwrap(), 8), None);
        assert_eq!(IpNet::new("10.0.0.0".parse().unwrap(), 33), None);
    }
}
