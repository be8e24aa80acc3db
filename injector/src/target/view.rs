//! The files of another process as that process sees them: resolved as the kernel would for it, in its mount namespace
//! and under its root, and called as they are known now. Every name is walked anew, a component at a time where links
//! stand in it, since the kernel's own walk would start a link to `/` at finject's root, and go through /proc/self to
//! finject's files. No descriptor outlives a question.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Statx, StatxFlags, fstat,
    fstatfs, openat, openat2, readlinkat, statx,
};
use rustix::io::Errno;

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The path by which it is known now, from the process's root; a file that the process sees though it lies outside of
    /// its root has the path that finject sees. Of a file that is not there yet, that which it would have.
    pub path: Vec<u8>,
    /// Which file it is; [`None`] for one that is not there yet.
    pub identity: Option<Identity>,
}

/// What tells a file from every other one, by whatever name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: (u32, u32),
    inode: u64,
}

impl Identity {
    fn of(found: &Statx) -> Self {
        Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
        }
    }
}

/// The files of a process cannot be looked at, and what a rule says of them cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its files cannot be looked at: {0}")]
pub struct Unseen(pub Errno);

/// What is asked: an answer, or that there is none to have.
pub type Seen<T> = Result<T, Unseen>;

/// What is said of several answers, none of which is to be missing. `says` takes each as it comes, and what it says where one was
/// missing is not told.
pub fn if_all_are_seen<T>(
    says: impl FnOnce(&mut dyn FnMut(Seen<Option<T>>) -> Option<T>) -> bool,
) -> Seen<bool> {
    let mut missing = None;
    let said = says(&mut |answer| {
        answer.unwrap_or_else(|unseen| {
            missing = Some(unseen);
            None
        })
    });
    missing.map_or(Ok(said), Err)
}

/// Where a relative name starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// At the current directory.
    Current,
    /// At the directory of a descriptor.
    Descriptor(i32),
}

/// How a name is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// A link as its last name is followed.
    pub is_followed: bool,
    /// The directory where it starts is the root (`RESOLVE_IN_ROOT` of openat2(2)).
    pub is_within: bool,
}

impl Way {
    /// As most calls walk.
    pub const FOLLOWED: Self = Self {
        is_followed: true,
        is_within: false,
    };
}

/// `AT_FDCWD` of include/uapi/linux/fcntl.h.
const AT_FDCWD: i32 = -100;

impl Base {
    /// What the directory argument of an `*at` call means.
    pub fn of(argument: u64) -> Self {
        match argument as i32 {
            AT_FDCWD => Self::Current,
            fd => Self::Descriptor(fd),
        }
    }
}

/// Links on the way to one file: with more the kernel gives ELOOP (include/linux/namei.h, `MAXSYMLINKS`).
const MOST_LINKS: u32 = 40;

/// What the kernel appends to the path of a file whose name is gone (fs/d_path.c).
const DELETED: &[u8] = b" (deleted)";

/// What a thread sees.
#[derive(Clone, Copy, Debug)]
pub struct View {
    tgid: u32,
    tid: u32,
}

/// How a walk ends.
enum Walked {
    /// At a file.
    At(OwnedFd),
    /// At a directory that has no such name: it, and what is left.
    Missing(OwnedFd, Vec<u8>),
}

/// A failed walk. Mostly the process's own call fails as well, and refers to no file; the rest is finject's own trouble.
fn lost_on_the_way<T>(error: Errno) -> Seen<Option<T>> {
    match error {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Err(Unseen(error)),
        _ => Ok(None),
    }
}

/// A question after a file that is asked for by a pattern: whether it is another one is not known where it cannot be asked.
fn not_there(error: Errno) -> Seen<Option<Identity>> {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::SRCH => Ok(None),
        _ => Err(Unseen(error)),
    }
}

/// The same of what /proc shows of the process, where finject may have no business.
fn hidden<T>(error: Errno) -> Seen<Option<T>> {
    match error {
        Errno::ACCESS | Errno::PERM => Err(Unseen(error)),
        _ => lost_on_the_way(error),
    }
}

impl View {
    /// Of a thread of a process.
    pub fn of(tgid: u32, tid: u32) -> Self {
        Self { tgid, tid }
    }

    /// The thread.
    pub fn tid(self) -> u32 {
        self.tid
    }

    /// The file of a descriptor; [`None`] for one that is not open, and for what has no path: pipes, sockets and such.
    pub fn descriptor(self, fd: i32) -> Seen<Option<File>> {
        if fd < 0 {
            return Ok(None);
        }
        self.of_link(&self.proc(&format!("fd/{fd}")))
    }

    /// The program that it executes.
    pub fn executable(self) -> Seen<Option<File>> {
        self.of_link(&self.proc("exe"))
    }

    /// The file of a name, whether it is there yet or not; [`None`] where the directory that it would lie in cannot be.
    pub fn named(self, name: &[u8], base: Base, way: Way) -> Seen<Option<File>> {
        if name.is_empty() {
            return Ok(None);
        }
        let mut root = match self.root() {
            Ok(root) => root,
            Err(error) => return hidden(error),
        };
        let start = match base {
            _ if name.starts_with(b"/") && !way.is_within => {
                root.try_clone().map_err(|_| Unseen(Errno::MFILE))?
            }
            Base::Current => match open_link(&self.proc("cwd")) {
                Ok(start) => start,
                Err(error) => return hidden(error),
            },
            Base::Descriptor(fd) => match open_link(&self.proc(&format!("fd/{fd}"))) {
                Ok(start) => start,
                Err(error) => return hidden(error),
            },
        };
        if way.is_within {
            root = start.try_clone().map_err(|_| Unseen(Errno::MFILE))?;
        }
        match self.walk(root.as_fd(), start, name, way.is_followed) {
            Ok(Walked::At(file)) => self.known(&file),
            Ok(Walked::Missing(parent, rest)) => {
                let names = rest.split(|byte| *byte == b'/');
                let names: Vec<&[u8]> = names.filter(|name| !matches!(*name, b"" | b".")).collect();
                if names.contains(&&b".."[..]) {
                    return Ok(None);
                }
                let Some(File { mut path, .. }) = self.known(&parent)? else {
                    return Ok(None);
                };
                for name in names {
                    if path != b"/" {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name);
                }
                Ok(Some(File {
                    path,
                    identity: None,
                }))
            }
            Err(error) => lost_on_the_way(error),
        }
    }

    /// Which file an absolute name is, its links followed; [`None`] where it is none.
    pub fn identity(self, path: &[u8]) -> Seen<Option<Identity>> {
        let root = match self.root() {
            Ok(root) => root,
            Err(error) => return hidden(error),
        };
        let start = root.try_clone().map_err(|_| Unseen(Errno::MFILE))?;
        let walked = self.walk(root.as_fd(), start, path, true);
        let found = walked.and_then(|walked| match walked {
            Walked::At(file) => identity_of(file.as_fd()).map(Some),
            Walked::Missing(..) => Ok(None),
        });
        found.or_else(not_there)
    }

    /// The process's own directory of a procfs, or its thread's: by the number that it has in its own pid namespace, of which
    /// the procfs that it sees mostly is.
    fn own_directory(self, proc: &OwnedFd, of_thread: bool) -> Result<OwnedFd, Errno> {
        let number = |id: u32| {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("NSpid:"))?;
            line.split_ascii_whitespace()
                .next_back()?
                .parse::<u32>()
                .ok()
        };
        let tgid = number(self.tgid).ok_or(Errno::SRCH)?;
        let name = if of_thread {
            format!("{tgid}/task/{}", number(self.tid).ok_or(Errno::SRCH)?)
        } else {
            tgid.to_string()
        };
        open_in(proc, name.as_bytes(), OFlags::DIRECTORY)
    }

    fn proc(self, rest: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/task/{}/{rest}", self.tgid, self.tid))
    }

    fn root(self) -> Result<OwnedFd, Errno> {
        open_link(&self.proc("root"))
    }

    /// The file behind one of the links of /proc that are no names.
    fn of_link(self, link: &Path) -> Seen<Option<File>> {
        let file = match open_link(link) {
            Ok(file) => file,
            Err(error) => return hidden(error),
        };
        self.known(&file)
    }

    /// By which path a file is known.
    fn known(self, file: &OwnedFd) -> Seen<Option<File>> {
        // Whoever serves the file may not tell everybody: then it is known by its path alone.
        let identity = identity_of(file.as_fd()).ok();
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = match readlinkat(CWD, own, Vec::new()) {
            Ok(link) => link.into_bytes(),
            Err(error) => return lost_on_the_way(error),
        };
        if link.first() != Some(&b'/') {
            return Ok(None); // `pipe:[1]` and such.
        }
        let root = match readlinkat(CWD, self.proc("root"), Vec::new()) {
            Ok(root) => root.into_bytes(),
            Err(error) => return hidden(error),
        };
        let mut path = below(&root, link);
        if let Some(before) = path.strip_suffix(DELETED)
            && (identity.is_none() || !matches!(self.at(&path), Ok(at) if at == identity))
        {
            // Files of the kernel's own have a name that never was in a directory: `/memfd:x`.
            let has_no_name = before.starts_with(b"/memfd:") || before.starts_with(b"/SYSV");
            let is_special = matches!(
                before,
                b"/dev/zero" | b"/[aio]" | b"/anon_hugepage" | b"/secretmem"
            );
            if has_no_name || is_special {
                return Ok(None);
            }
            path.truncate(before.len());
        }
        Ok(Some(File { path, identity }))
    }

    /// Which file lies at a path as it is known, without links.
    pub fn at(self, path: &[u8]) -> Seen<Option<Identity>> {
        let root = match self.root() {
            Ok(root) => root,
            Err(error) => return hidden(error),
        };
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        if relative.is_empty() {
            return identity_of(root.as_fd()).map(Some).or_else(not_there);
        }
        let found = statx(
            &root,
            OsStr::from_bytes(relative),
            AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC,
            StatxFlags::INO,
        );
        found
            .map(|found| Some(Identity::of(&found)))
            .or_else(not_there)
    }

    fn walk(
        self,
        root: BorrowedFd<'_>,
        start: OwnedFd,
        name: &[u8],
        follow: bool,
    ) -> Result<Walked, Errno> {
        // Without links and `..` the kernel's own walk is the same, and one call. A link at the end that is not followed
        // is no link to it.
        if !name.split(|byte| *byte == b'/').any(|name| name == b"..") {
            let names = name.iter().position(|byte| *byte != b'/');
            let relative = names.and_then(|at| name.get(at..)).unwrap_or(b".");
            let flags = if follow {
                OFlags::empty()
            } else {
                OFlags::NOFOLLOW
            };
            let found = openat2(
                &start,
                OsStr::from_bytes(relative),
                flags | OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
            );
            if let Ok(found) = found {
                return Ok(Walked::At(found));
            }
        }
        self.walk_slowly(root, start, name, follow)
    }

    fn walk_slowly(
        self,
        root: BorrowedFd<'_>,
        start: OwnedFd,
        name: &[u8],
        follow: bool,
    ) -> Result<Walked, Errno> {
        let mut at = start;
        let mut links = 0;
        // A slash behind the last name asks for a directory, and so for what a link leads to.
        let is_directory = name.ends_with(b"/") || name.ends_with(b"/.");
        let follow = follow || is_directory;
        let mut left: VecDeque<Vec<u8>> = names_of(name).collect();
        while let Some(name) = left.pop_front() {
            if name == b".." {
                if place_of(at.as_fd())? != place_of(root)? {
                    at = open_in(&at, b"..", OFlags::DIRECTORY)?;
                }
                continue;
            }
            let next = match open_in(&at, &name, OFlags::NOFOLLOW) {
                Ok(next) => next,
                Err(Errno::NOENT) => {
                    left.push_front(name);
                    let rest: Vec<Vec<u8>> = left.into();
                    return Ok(Walked::Missing(at, rest.join(&b'/')));
                }
                Err(error) => return Err(error),
            };
            if left.is_empty() && !follow {
                return Ok(Walked::At(next));
            }
            let text = match readlinkat(&next, c"", Vec::new()) {
                Ok(text) => text,
                Err(Errno::NOENT | Errno::INVAL) => {
                    at = next; // It is no link.
                    continue;
                }
                Err(error) => return Err(error),
            };
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            let text = text.into_bytes();
            if fstatfs(&next)?.f_type == PROC_SUPER_MAGIC {
                match (name.as_slice(), text.starts_with(b"self/")) {
                    (b"self", _) => at = self.own_directory(&at, false)?,
                    (b"thread-self", _) => at = self.own_directory(&at, true)?,
                    // /proc/mounts and its like.
                    (_, true) => prepend(&mut left, &text),
                    // One that is no name: it leads to the file itself.
                    (_, false) => at = open_in(&at, &name, OFlags::empty())?,
                }
                continue;
            }
            if text.starts_with(b"/") {
                at = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
            }
            prepend(&mut left, &text);
        }
        if is_directory && FileType::from_raw_mode(fstat(&at)?.st_mode) != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        Ok(Walked::At(at))
    }
}

fn names_of(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    let names = path.split(|byte| *byte == b'/');
    names
        .filter(|name| !matches!(*name, b"" | b"."))
        .map(<[u8]>::to_vec)
}

fn prepend(left: &mut VecDeque<Vec<u8>>, text: &[u8]) {
    for name in names_of(text).rev() {
        left.push_front(name);
    }
}

fn open_link(link: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn open_in(directory: &OwnedFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
    openat(directory, OsStr::from_bytes(name), flags, Mode::empty())
}

/// A directory, told from the same one by another mount.
fn place_of(directory: BorrowedFd<'_>) -> Result<(Identity, u64), Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let mount = statx(directory, c"", flags, StatxFlags::MNT_ID)?;
    Ok((identity_of(directory)?, mount.stx_mnt_id))
}

fn identity_of(file: BorrowedFd<'_>) -> Result<Identity, Errno> {
    // What the kernel knows already is enough: to ask a server for it would wait for it, and it may be the target itself.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = statx(file, c"", flags, StatxFlags::INO)?;
    Ok(Identity::of(&found))
}

/// A path as it is from that root; one that does not lie below it as it is.
fn below(root: &[u8], path: Vec<u8>) -> Vec<u8> {
    if root == b"/" {
        return path;
    }
    match path.strip_prefix(root) {
        Some(b"") => b"/".to_vec(),
        Some(rest) if rest.starts_with(b"/") || rest == DELETED => rest.to_vec(),
        _ => path,
    }
}
