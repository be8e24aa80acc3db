//! Errnos of Linux by number and name, as `asm-generic/errno-base.h` and `errno.h` define them
//! (x86 takes those unchanged), and the codes that never reach a program.

use std::fmt;

/// An error number that a call may return to a program: 1 to 4095 without 512 to 531.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(u16);

/// Why a number is no [`Errno`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErrnoError {
    /// Zero, or above the kernel's `MAX_ERRNO`.
    #[error("an errno is a number from 1 to 4095")]
    OutOfRange,
    /// 512 to 531 (`include/linux/errno.h`): the kernel uses them inside itself, and restarts or
    /// interrupts the call; a program that is shown one breaks.
    #[error("512 to 531 are the kernel's own codes, which no program is ever shown")]
    Internal,
}

impl Errno {
    /// Takes a number.
    ///
    /// # Errors
    /// Where a program can never see it.
    pub fn new(number: u64) -> Result<Self, ErrnoError> {
        match u16::try_from(number) {
            Ok(512..=531) => Err(ErrnoError::Internal),
            Ok(number @ 1..=4095) => Ok(Self(number)),
            _ => Err(ErrnoError::OutOfRange),
        }
    }

    /// Looks a name up: `EIO`, or another name of the same number (`EWOULDBLOCK`).
    pub fn by_name(name: &str) -> Option<Self> {
        let name = ALIASES
            .iter()
            .find(|(alias, _)| *alias == name)
            .map_or(name, |(_, name)| name);
        ERRNOS
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(number, _)| Self(*number))
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The name, where Linux has one.
    pub fn name(self) -> Option<&'static str> {
        ERRNOS
            .iter()
            .find(|(number, _)| *number == self.0)
            .map(|(_, name)| *name)
    }

    /// Every name, other names of the same number included.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ERRNOS
            .iter()
            .map(|(_, name)| *name)
            .chain(ALIASES.iter().map(|(alias, _)| *alias))
    }
}

impl fmt::Display for Errno {
    /// As rules say it: `EIO`, or `error:200` where there is no name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error:{}", self.0),
        }
    }
}

/// Second names, with the first name of the same number.
#[rustfmt::skip]
const ALIASES: &[(&str, &str)] = &[
    ("EDEADLOCK", "EDEADLK"),
    ("ENOTSUP", "EOPNOTSUPP"),
    ("EWOULDBLOCK", "EAGAIN"),
];

#[rustfmt::skip]
const ERRNOS: &[(u16, &str)] = &[
    (1, "EPERM"),
    (2, "ENOENT"),
    (3, "ESRCH"),
    (4, "EINTR"),
    (5, "EIO"),
    (6, "ENXIO"),
    (7, "E2BIG"),
    (8, "ENOEXEC"),
    (9, "EBADF"),
    (10, "ECHILD"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (14, "EFAULT"),
    (15, "ENOTBLK"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (18, "EXDEV"),
    (19, "ENODEV"),
    (20, "ENOTDIR"),
    (21, "EISDIR"),
    (22, "EINVAL"),
    (23, "ENFILE"),
    (24, "EMFILE"),
    (25, "ENOTTY"),
    (26, "ETXTBSY"),
    (27, "EFBIG"),
    (28, "ENOSPC"),
    (29, "ESPIPE"),
    (30, "EROFS"),
    (31, "EMLINK"),
    (32, "EPIPE"),
    (33, "EDOM"),
    (34, "ERANGE"),
    (35, "EDEADLK"),
    (36, "ENAMETOOLONG"),
    (37, "ENOLCK"),
    (38, "ENOSYS"),
    (39, "ENOTEMPTY"),
    (40, "ELOOP"),
    (42, "ENOMSG"),
    (43, "EIDRM"),
    (44, "ECHRNG"),
    (45, "EL2NSYNC"),
    (46, "EL3HLT"),
    (47, "EL3RST"),
    (48, "ELNRNG"),
    (49, "EUNATCH"),
    (50, "ENOCSI"),
    (51, "EL2HLT"),
    (52, "EBADE"),
    (53, "EBADR"),
    (54, "EXFULL"),
    (55, "ENOANO"),
    (56, "EBADRQC"),
    (57, "EBADSLT"),
    (59, "EBFONT"),
    (60, "ENOSTR"),
    (61, "ENODATA"),
    (62, "ETIME"),
    (63, "ENOSR"),
    (64, "ENONET"),
    (65, "ENOPKG"),
    (66, "EREMOTE"),
    (67, "ENOLINK"),
    (68, "EADV"),
    (69, "ESRMNT"),
    (70, "ECOMM"),
    (71, "EPROTO"),
    (72, "EMULTIHOP"),
    (73, "EDOTDOT"),
    (74, "EBADMSG"),
    (75, "EOVERFLOW"),
    (76, "ENOTUNIQ"),
    (77, "EBADFD"),
    (78, "EREMCHG"),
    (79, "ELIBACC"),
    (80, "ELIBBAD"),
    (81, "ELIBSCN"),
    (82, "ELIBMAX"),
    (83, "ELIBEXEC"),
    (84, "EILSEQ"),
    (85, "ERESTART"),
    (86, "ESTRPIPE"),
    (87, "EUSERS"),
    (88, "ENOTSOCK"),
    (89, "EDESTADDRREQ"),
    (90, "EMSGSIZE"),
    (91, "EPROTOTYPE"),
    (92, "ENOPROTOOPT"),
    (93, "EPROTONOSUPPORT"),
    (94, "ESOCKTNOSUPPORT"),
    (95, "EOPNOTSUPP"),
    (96, "EPFNOSUPPORT"),
    (97, "EAFNOSUPPORT"),
    (98, "EADDRINUSE"),
    (99, "EADDRNOTAVAIL"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (102, "ENETRESET"),
    (103, "ECONNABORTED"),
    (104, "ECONNRESET"),
    (105, "ENOBUFS"),
    (106, "EISCONN"),
    (107, "ENOTCONN"),
    (108, "ESHUTDOWN"),
    (109, "ETOOMANYREFS"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
    (112, "EHOSTDOWN"),
    (113, "EHOSTUNREACH"),
    (114, "EALREADY"),
    (115, "EINPROGRESS"),
    (116, "ESTALE"),
    (117, "EUCLEAN"),
    (118, "ENOTNAM"),
    (119, "ENAVAIL"),
    (120, "EISNAM"),
    (121, "EREMOTEIO"),
    (122, "EDQUOT"),
    (123, "ENOMEDIUM"),
    (124, "EMEDIUMTYPE"),
    (125, "ECANCELED"),
    (126, "ENOKEY"),
    (127, "EKEYEXPIRED"),
    (128, "EKEYREVOKED"),
    (129, "EKEYREJECTED"),
    (130, "EOWNERDEAD"),
    (131, "ENOTRECOVERABLE"),
    (132, "ERFKILL"),
    (133, "EHWPOISON"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_libc() {
        for (name, number) in [
            ("EPERM", libc::EPERM),
            ("EIO", libc::EIO),
            ("ENOSPC", libc::ENOSPC),
            ("EWOULDBLOCK", libc::EWOULDBLOCK),
            ("ENOTSUP", libc::ENOTSUP),
            ("EDEADLOCK", libc::EDEADLOCK),
            ("EDQUOT", libc::EDQUOT),
            ("EHWPOISON", libc::EHWPOISON),
        ] {
            assert_eq!(
                Errno::by_name(name).map(|e| i32::from(e.number())),
                Some(number),
                "{name}"
            );
        }
        assert!(ERRNOS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn every_name_prints_back_as_the_first_of_its_number() {
        for name in Errno::names() {
            let errno = Errno::by_name(name).unwrap();
            assert_eq!(Errno::by_name(&errno.to_string()), Some(errno), "{name}");
        }
        assert_eq!(Errno::new(200).unwrap().to_string(), "error:200");
    }

    #[test]
    fn what_no_program_sees_is_refused() {
        for (number, expected) in [
            (0, Err(ErrnoError::OutOfRange)),
            (4096, Err(ErrnoError::OutOfRange)),
            (65537, Err(ErrnoError::OutOfRange)),
            (512, Err(ErrnoError::Internal)),
            (531, Err(ErrnoError::Internal)),
            (511, Ok(511)),
            (532, Ok(532)),
            (4095, Ok(4095)),
        ] {
            assert_eq!(Errno::new(number).map(Errno::number), expected, "{number}");
        }
    }
}
