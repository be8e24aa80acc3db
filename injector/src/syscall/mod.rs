//! What finject knows of system calls, as data: numbers and names of each ABI, the kernel's entry
//! points, arguments, classes, roles of arguments (descriptor, path, length, address), errnos,
//! signals, named flags, and which calls may not be replaced. Nothing here asks the running kernel.
//!
//! `table_*.rs` are written by `cargo xtask catalog`; another architecture is one more table and
//! one more [`Abi`]. Everything else is kept by hand and checked against the tables by tests.

mod abi;
mod catalog;
mod class;
mod errno;
mod flags;
mod library;
mod replace;
mod roles;
mod signal;
mod table_i386;
mod table_x86_64;

pub use self::{
    abi::{Abi, CallId, Sysno},
    catalog::{Arg, ArgKind, Syscall, all, arg_width, by_id, by_name, names},
    class::Class,
    errno::{Errno, ErrnoError},
    flags::{FlagError, flag_names, flag_value},
    library::{LibraryName, library_name},
    replace::Replace,
    roles::{AddressArg, DataArg, DataPlace, Direction, Follow, PathArg, PathRole, Roles, roles},
    signal::Signal,
};
