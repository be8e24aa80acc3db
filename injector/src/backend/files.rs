//! Which files a call refers to, and whether they are those that a rule is about (doc/rules.md, `path=`): for backends
//! that look at calls from outside the kernel.

use std::cell::OnceCell;

use injector_common::glob::{BEGINS_ANYWHERE, BEGINS_AT_ROOT, WireAlternative};
use injector_common::{FileSide, WireGlob, WirePathTest, WireRule, is_about_files};

use super::memory::CallSlot;
use crate::sys::process::read_memory;
use crate::syscall::{Follow, PathArg, PathRole, by_id};
use crate::target::view::{Base, File, Identity, Seen, Unseen, View, Way, if_all_are_seen};

/// A file that a call refers to, by a descriptor or by its only name where it has no side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sided {
    /// Which one.
    pub side: FileSide,
    /// The file.
    pub file: File,
}

/// What is looked at of the files of one call.
pub trait Files {
    /// Those that the call refers to.
    fn of_call(&self) -> Seen<Vec<Sided>>;

    /// The program that the caller executes.
    fn executable(&self) -> Seen<Option<File>>;

    /// Which file an absolute name is, its links followed.
    fn identity(&self, name: &[u8]) -> Seen<Option<Identity>>;

    /// Which file lies at a path by which it is known.
    fn at(&self, path: &[u8]) -> Seen<Option<Identity>>;
}

/// A call without files.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl Files for NoFiles {
    fn of_call(&self) -> Seen<Vec<Sided>> {
        Ok(Vec::new())
    }

    fn executable(&self) -> Seen<Option<File>> {
        Ok(None)
    }

    fn identity(&self, _: &[u8]) -> Seen<Option<Identity>> {
        Ok(None)
    }

    fn at(&self, _: &[u8]) -> Seen<Option<Identity>> {
        Ok(None)
    }
}

/// A call's files as its caller sees them.
#[derive(Debug)]
pub struct CallFiles<'a> {
    view: View,
    call: CallSlot,
    args: &'a [u64; 6],
}

/// The longest name, its end included (include/uapi/linux/limits.h, `PATH_MAX`).
const PATH_MAX: usize = 4096;
const PAGE: u64 = 4096;
/// `AT_EMPTY_PATH` of include/uapi/linux/fcntl.h.
const AT_EMPTY_PATH: u64 = 0x1000;
/// `RESOLVE_IN_ROOT` of include/uapi/linux/openat2.h.
const RESOLVE_IN_ROOT: u64 = 0x10;
/// `O_NOFOLLOW` of include/uapi/asm-generic/fcntl.h: its flags are open's, and no `AT_*`.
const O_NOFOLLOW: u32 = 0o400_000;

impl<'a> CallFiles<'a> {
    /// Of a thread of a process.
    pub fn of(tgid: u32, tid: u32, call: CallSlot, args: &'a [u64; 6]) -> Self {
        let view = View::of(tgid, tid);
        Self { view, call, args }
    }

    fn arg(&self, number: u8) -> u64 {
        let arg = self.args.get(usize::from(number).wrapping_sub(1));
        arg.copied().unwrap_or(0)
    }

    fn pointer(&self, number: u8) -> u64 {
        let mask = if self.call.compat {
            u32::MAX.into()
        } else {
            u64::MAX
        };
        self.arg(number) & mask
    }

    /// A name in the caller's memory; [`None`] where there is none to read.
    fn text(&self, mut at: u64) -> Seen<Option<Vec<u8>>> {
        let mut text = Vec::new();
        while text.len() < PATH_MAX {
            // What lies behind the page may not be there.
            let mut page = vec![0; (PAGE - at % PAGE) as usize];
            if let Err(error) = read_memory(self.view.tid(), at, &mut page) {
                return match error.errno() {
                    // The call fails by itself, or its thread is gone.
                    libc::EFAULT | libc::ESRCH => Ok(None),
                    errno => Err(Unseen(rustix::io::Errno::from_raw_os_error(errno))),
                };
            }
            if let Some(end) = page.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(page.get(..end).unwrap_or(&[]));
                return Ok(Some(text).filter(|text| text.len() < PATH_MAX));
            }
            text.append(&mut page);
            at = at.wrapping_add(PAGE - at % PAGE);
        }
        Ok(None)
    }

    /// How a name is walked.
    fn way(&self, follow: Follow) -> Seen<Way> {
        let has = |arg, flag: u32| self.arg(arg) & u64::from(flag) != 0;
        let is_followed = match follow {
            Follow::Always | Follow::AlwaysOrFile => true,
            Follow::Never => false,
            Follow::Unless { arg, flag } => !has(arg, flag),
            Follow::If { arg, flag } => has(arg, flag),
            Follow::How { arg } => {
                // `flags` and `resolve` of `struct open_how`; where it cannot be read, the call fails by itself.
                let mut how = [0; 24];
                let read = read_memory(self.view.tid(), self.pointer(arg), &mut how);
                let word = |at: usize| {
                    let bytes = how.get(at..at + 8).and_then(|word| word.try_into().ok());
                    bytes.map_or(0, u64::from_le_bytes)
                };
                return match read.map_err(|error| error.errno()) {
                    Ok(()) => Ok(Way {
                        is_followed: word(0) & u64::from(O_NOFOLLOW) == 0,
                        is_within: word(16) & RESOLVE_IN_ROOT != 0,
                    }),
                    Err(libc::EFAULT | libc::ESRCH) => Ok(Way::FOLLOWED),
                    Err(errno) => Err(Unseen(rustix::io::Errno::from_raw_os_error(errno))),
                };
            }
        };
        Ok(Way {
            is_followed,
            ..Way::FOLLOWED
        })
    }

    /// The file that a name means, of which `parent` is where a link's text starts that has yet to be made.
    fn named(&self, path: &PathArg, parent: Option<&File>) -> Seen<Option<File>> {
        let base = path.dirfd.map(|dirfd| Base::of(self.arg(dirfd)));
        let pointer = self.pointer(path.name);
        let name = if pointer == 0 {
            Vec::new()
        } else {
            match self.text(pointer)? {
                Some(name) => name,
                None => return Ok(None),
            }
        };
        let way = self.way(path.follow)?;
        if !name.is_empty() {
            let name = match parent {
                Some(parent) if !name.starts_with(b"/") => {
                    let end = parent.path.iter().rposition(|byte| *byte == b'/');
                    let mut from = parent.path.get(..=end.unwrap_or(0)).unwrap_or(&[]).to_vec();
                    from.extend_from_slice(&name);
                    from
                }
                _ => name,
            };
            return self.view.named(&name, base.unwrap_or(Base::Current), way);
        }
        // The descriptor's own file, for calls that may say so.
        let is_meant = match path.follow {
            Follow::Unless {
                flag: O_NOFOLLOW, ..
            }
            | Follow::Always
            | Follow::How { .. } => false,
            Follow::AlwaysOrFile => pointer == 0,
            Follow::Unless { arg, .. } | Follow::If { arg, .. } => {
                pointer == 0 || self.arg(arg) & AT_EMPTY_PATH != 0
            }
            Follow::Never => true,
        };
        match base {
            Some(Base::Descriptor(fd)) if is_meant => self.view.descriptor(fd),
            Some(Base::Current) if is_meant && pointer != 0 => {
                self.view.named(b".", Base::Current, Way::FOLLOWED)
            }
            _ => Ok(None),
        }
    }
}

impl Files for CallFiles<'_> {
    fn of_call(&self) -> Seen<Vec<Sided>> {
        let Some(known) = by_id(self.call.into()) else {
            return Ok(Vec::new());
        };
        let roles = known.roles();
        let mut files = Vec::new();
        for fd in roles.fds {
            let file = self.view.descriptor(self.arg(*fd) as i32)?;
            files.extend(file.map(|file| Sided {
                side: FileSide::Any,
                file,
            }));
        }
        let makes_link = known.name().starts_with("symlink");
        // The second name first: the text of a link starts where the link will be.
        let mut link = None;
        for path in roles.paths.iter().rev() {
            let side = match path.role {
                PathRole::Only => FileSide::Any,
                PathRole::From => FileSide::From,
                PathRole::To => FileSide::To,
            };
            let parent = link.as_ref().filter(|_| path.role == PathRole::From);
            if makes_link && path.role == PathRole::From && parent.is_none() {
                continue;
            }
            if let Some(file) = self.named(path, parent)? {
                if makes_link && path.role == PathRole::To {
                    link = Some(file.clone());
                }
                files.push(Sided { side, file });
            }
        }
        Ok(files)
    }

    fn executable(&self) -> Seen<Option<File>> {
        self.view.executable()
    }

    fn identity(&self, name: &[u8]) -> Seen<Option<Identity>> {
        self.view.identity(name)
    }

    fn at(&self, path: &[u8]) -> Seen<Option<Identity>> {
        self.view.at(path)
    }
}

/// Whether a rule is about the files of a call.
pub fn hold(rule: &WireRule, globs: &[WireGlob], files: &Looked<impl Files>) -> Seen<bool> {
    if_all_are_seen(|seen| {
        is_about_files(rule, |index, test| {
            let glob = globs.get(index)?;
            seen(files.matches(*test, glob))
        })
    })
}

/// The files of one call, and what was looked at so far, each at most once.
#[derive(Debug)]
pub struct Looked<F> {
    files: F,
    of_call: OnceCell<Seen<Vec<Sided>>>,
    executable: OnceCell<Seen<Option<File>>>,
}

impl<F: Files> Looked<F> {
    /// Nothing yet.
    pub fn new(files: F) -> Self {
        Self {
            files,
            of_call: OnceCell::new(),
            executable: OnceCell::new(),
        }
    }

    /// Whether some file that the test is about matches; [`None`] where there is none.
    fn matches(&self, test: WirePathTest, glob: &WireGlob) -> Seen<Option<bool>> {
        let is = |side: FileSide| test.side == side as u32;
        if is(FileSide::Executable) {
            let file = self.executable.get_or_init(|| self.files.executable());
            let file = file.as_ref().map_err(|error| *error)?;
            let matched = file.as_ref().map(|file| self.is_matched(glob, file));
            return matched.transpose();
        }
        let all = self.of_call.get_or_init(|| self.files.of_call());
        let all = all.as_ref().map_err(|error| *error)?;
        let meant = all
            .iter()
            .filter(|sided| is(FileSide::Any) || is(sided.side));
        let mut found = None;
        for sided in meant {
            if self.is_matched(glob, &sided.file)? {
                return Ok(Some(true));
            }
            found = Some(false);
        }
        Ok(found)
    }

    /// Whether a pattern matches a file: by its path as it is known; by being the file that a plain pattern names; or by
    /// lying as the pattern says below the directory that it begins with, by whatever name that is known here.
    fn is_matched(&self, glob: &WireGlob, file: &File) -> Seen<bool> {
        let path = file.path.as_slice();
        let all = glob.alternatives;
        if all
            .iter()
            .any(|alternative| is_named(glob, *alternative, path))
        {
            return Ok(true);
        }
        for alternative in all {
            if self.is_the_one(glob, alternative, file)?
                || self.is_below(glob, alternative, path)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_the_one(&self, glob: &WireGlob, alternative: WireAlternative, file: &File) -> Seen<bool> {
        if !alternative.is_plain() || file.identity.is_none() {
            return Ok(false);
        }
        let name = literal(glob, alternative, alternative.parts);
        Ok(self.files.identity(&name)? == file.identity)
    }

    /// Of the root nothing is asked: it has no other name.
    fn is_below(&self, glob: &WireGlob, alternative: WireAlternative, path: &[u8]) -> Seen<bool> {
        if alternative.begins != BEGINS_AT_ROOT || alternative.directory() == 0 {
            return Ok(false);
        }
        let mut directory = None;
        let mut states = glob.begin(alternative);
        for (start, name) in names_of(path).rev() {
            states = glob.step(alternative, states, name);
            if !alternative.is_at_directory(states) {
                continue;
            }
            let wanted = if let Some(wanted) = directory {
                wanted
            } else {
                let name = literal(glob, alternative, alternative.directory());
                *directory.insert(self.files.identity(&name)?)
            };
            if wanted.is_none() {
                return Ok(false);
            }
            if self.files.at(path.get(..start - 1).unwrap_or(&[]))? == wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The names of a path, from the root down, with where each starts.
fn names_of(path: &[u8]) -> impl DoubleEndedIterator<Item = (usize, &[u8])> {
    let mut at = 0;
    let names: Vec<_> = path
        .split(|byte| *byte == b'/')
        .map(|name| {
            let start = at;
            at += name.len() + 1;
            (start, name)
        })
        .filter(|(_, name)| !name.is_empty())
        .collect();
    names.into_iter()
}

/// Whether an alternative matches a path by its names alone.
pub(super) fn is_named(glob: &WireGlob, alternative: WireAlternative, path: &[u8]) -> bool {
    let mut states = glob.begin(alternative);
    let mut is_met = false;
    for (_, name) in names_of(path).rev() {
        is_met |= alternative.is_through(states);
        states = glob.step(alternative, states, name);
    }
    let is_through = alternative.is_through(states);
    match alternative.begins {
        BEGINS_AT_ROOT => is_through,
        BEGINS_ANYWHERE => is_met || is_through,
        _ => false,
    }
}

/// The upmost plain names of an alternative, as a path.
fn literal(glob: &WireGlob, alternative: WireAlternative, names: u16) -> Vec<u8> {
    let mut path = Vec::new();
    for index in (alternative.parts.saturating_sub(names)..alternative.parts).rev() {
        path.push(b'/');
        let tokens = glob.tokens_of(glob.part(alternative, index.into()));
        path.extend(tokens.iter().map(|token| (*token & 0xff) as u8));
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}
