//! Which calls may be answered in the kernel's place, and why some may not.

/// Whether finject may put a result of its own in the place of a call's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Before and after the call.
    Always,
    /// Only after it has run: skipped, the call would leave something behind.
    NeverBefore {
        /// What would happen.
        reason: &'static str,
        /// What to write instead.
        hint: &'static str,
    },
    /// Neither before nor after.
    Never {
        /// What would happen.
        reason: &'static str,
    },
}

impl Replace {
    /// The rule for the call of that name.
    pub fn of(name: &str) -> Self {
        RULES
            .iter()
            .find(|(known, _)| *known == name)
            .map_or(Self::Always, |(_, rule)| *rule)
    }
}

const ENDS: Replace = Replace::Never {
    reason: "it does not return; a thread that goes on past it runs code that was never meant to run",
};
const RETURNS_FROM_HANDLER: Replace = Replace::Never {
    reason: "it restores the registers from before a signal handler; skipped, the thread runs into garbage",
};
const KERNEL_PROBE: Replace = Replace::Never {
    reason: "the kernel's own trampoline calls it to return from a probed function, never the program",
};
const LEAKS_DESCRIPTOR: Replace = Replace::NeverBefore {
    reason: "skipped, it would leave the descriptor open for ever, which no failing kernel does",
    hint: "`after:EIO` closes it and reports the error, as a real kernel does",
};
const LOSES_IMAGE: Replace = Replace::NeverBefore {
    reason: "the program that should start would be lost without a trace",
    hint: "to make programs fail to start, fail the opening of the file: `%open(path=/usr/bin/*)=ENOENT`",
};

/// Calls not listed may always be replaced.
const RULES: &[(&str, Replace)] = &[
    ("exit", ENDS),
    ("exit_group", ENDS),
    ("rt_sigreturn", RETURNS_FROM_HANDLER),
    ("sigreturn", RETURNS_FROM_HANDLER),
    (
        "restart_syscall",
        Replace::Never {
            reason: "the kernel makes the program call it to go on with an interrupted call; its result is that call's",
        },
    ),
    ("uretprobe", KERNEL_PROBE),
    ("uprobe", KERNEL_PROBE),
    ("close", LEAKS_DESCRIPTOR),
    ("close_range", LEAKS_DESCRIPTOR),
    ("execve", LOSES_IMAGE),
    ("execveat", LOSES_IMAGE),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscall::by_name;

    #[test]
    fn the_listed_calls_exist() {
        for (name, _) in RULES {
            // uprobe is newer than the tables; it is listed for the kernel that has it.
            assert!(*name == "uprobe" || !by_name(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn what_is_not_listed_may_be_replaced() {
        assert_eq!(Replace::of("fsync"), Replace::Always);
        assert!(matches!(Replace::of("exit_group"), Replace::Never { .. }));
        assert!(matches!(Replace::of("close"), Replace::NeverBefore { .. }));
    }
}
