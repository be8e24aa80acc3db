//! `--background`: a finject of its own, in a session of its own, that goes on when the one that the user has started
//! returns, and when its shell ends. It is told that faults are in force by a line on its standard output.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use serde_json::json;

use super::exit::Exit;
use super::{print_err, print_out};
use crate::sys::process::{PollFd, poll_fds};

/// The option by which it is started.
pub(super) const DETACHED: &str = "detached";
/// How long faults are in force where nothing is said: whoever forgets them is not left with them.
const DURATION: &str = "10m";

/// Hands on what there is to read; whether more may come.
fn relay(from: &mut impl Read) -> bool {
    let mut some = [0; 4096];
    match from.read(&mut some) {
        Ok(0) | Err(_) => false,
        Ok(read) => {
            print_err(&String::from_utf8_lossy(&some[..read]));
            true
        }
    }
}

/// Waits until faults are in force, and hands on what is said meanwhile; whether they are.
fn is_armed(mut told: impl Read + AsFd, mut said: impl Read + AsFd) -> anyhow::Result<bool> {
    let mut is_saying = true;
    loop {
        let mut fds = vec![PollFd::readable(told.as_fd())];
        if is_saying {
            fds.push(PollFd::readable(said.as_fd()));
        }
        poll_fds(&mut fds, -1)?;
        if fds.get(1).is_some_and(PollFd::is_ready) {
            is_saying = relay(&mut said);
            continue;
        }
        if fds[0].is_ready() {
            let armed = told.read(&mut [0; 64])? != 0;
            while is_saying && poll_fds(&mut [PollFd::readable(said.as_fd())], 0)? > 0 {
                is_saying = relay(&mut said);
            }
            return Ok(armed);
        }
    }
}

fn mirrored(status: ExitStatus) -> Exit {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    match code.and_then(|code| u8::try_from(code).ok()) {
        Some(0) => Exit::Done,
        Some(code) => Exit::Mirrored(code),
        None => Exit::Failed,
    }
}

/// Starts it with the same arguments, and returns once faults are in force.
pub(super) fn run(has_duration: bool, json: bool) -> anyhow::Result<Exit> {
    let mut command = Command::new("/proc/self/exe");
    let arguments = std::env::args_os().skip(1);
    command
        .args(arguments.filter(|argument| argument != OsStr::new("--background")))
        .arg(format!("--{DETACHED}"));
    if !has_duration {
        command.args(["--duration", DURATION]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (told, said) = (child.stdout.take(), child.stderr.take());
    let is_armed = match (told, said) {
        (Some(told), Some(said)) => is_armed(told, said)?,
        _ => false,
    };
    if !is_armed {
        return Ok(mirrored(child.wait()?));
    }
    let session = child.id();
    print_out(&if json {
        format!("{:#}\n", json!({ "session": session.to_string() }))
    } else {
        format!(
            "session {session}: finject ctl status shows it, finject ctl stop heals and ends it\n"
        )
    });
    Ok(Exit::Done)
}
