//! Signals by number and name (`asm-generic/signal.h`, signal(7)).

use std::fmt;

/// A signal, 1 to 64. Real-time ones are counted from the kernel's own first, 32, as strace does:
/// `SIGRT5` is 37 (the C library keeps 32 and 33 to itself, so that its `SIGRTMIN` is `SIGRT2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

impl Signal {
    /// SIGKILL, which no program can catch.
    pub const KILL: Self = Self(9);
    /// SIGSTOP, which no program can catch.
    pub const STOP: Self = Self(19);
    const FIRST_REAL_TIME: u8 = 32;
    const LAST: u8 = 64;

    /// Takes a number from 1 to 64.
    pub fn new(number: u64) -> Option<Self> {
        u8::try_from(number)
            .ok()
            .filter(|n| (1..=Self::LAST).contains(n))
            .map(Self)
    }

    /// Looks a name up: `SIGTERM`, a second name of the same number, `SIGRT5`.
    pub fn by_name(name: &str) -> Option<Self> {
        if let Some(n) = name.strip_prefix("SIGRT") {
            let canonical = n == "0" || !n.starts_with('0');
            let n: u8 = n
                .parse()
                .ok()
                .filter(|_| canonical && !n.starts_with('+'))?;
            return Self::new(u64::from(n) + u64::from(Self::FIRST_REAL_TIME));
        }
        let name = ALIASES
            .iter()
            .find(|(alias, _)| *alias == name)
            .map_or(name, |(_, name)| name);
        (1..)
            .zip(SIGNALS)
            .find(|(_, known)| **known == name)
            .map(|(number, _)| Self(number))
    }

    /// The number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Whether a program may have a handler for it.
    pub fn can_be_caught(self) -> bool {
        self != Self::KILL && self != Self::STOP
    }

    /// Every name but the real-time ones.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SIGNALS
            .iter()
            .copied()
            .chain(ALIASES.iter().map(|(alias, _)| *alias))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNALS.get(usize::from(self.0) - 1) {
            Some(name) => f.write_str(name),
            None => write!(f, "SIGRT{}", self.0 - Self::FIRST_REAL_TIME),
        }
    }
}

/// Second names, with the first name of the same number.
const ALIASES: &[(&str, &str)] = &[
    ("SIGCLD", "SIGCHLD"),
    ("SIGIOT", "SIGABRT"),
    ("SIGPOLL", "SIGIO"),
];

/// Names in the order of numbers, from 1.
#[rustfmt::skip]
const SIGNALS: &[&str] = &[
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_libc() {
        for (name, number) in [
            ("SIGHUP", libc::SIGHUP),
            ("SIGKILL", libc::SIGKILL),
            ("SIGSTOP", libc::SIGSTOP),
            ("SIGPOLL", libc::SIGPOLL),
            ("SIGSYS", libc::SIGSYS),
        ] {
            let found = Signal::by_name(name).map(|s| i32::from(s.number()));
            assert_eq!(found, Some(number), "{name}");
        }
        assert_eq!(Signal::by_name("SIGRT5").map(Signal::number), Some(37));
        assert_eq!(Signal::by_name("SIGRT33"), None);
        assert_eq!(Signal::by_name("SIGRT05"), None);
    }

    #[test]
    fn every_number_prints_as_a_name_that_reads_back() {
        for number in 1..=64 {
            let signal = Signal::new(number).unwrap();
            assert_eq!(Signal::by_name(&signal.to_string()), Some(signal));
        }
        assert_eq!(Signal::new(0), None);
        assert_eq!(Signal::new(65), None);
    }
}
