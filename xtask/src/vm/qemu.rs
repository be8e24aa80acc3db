//! The emulator: its command line, its sockets, and its end.

use super::Boot;
use anyhow::Context as _;
use std::ffi::OsString;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running emulator, killed when dropped.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The process.
    pub(crate) child: Child,
    /// The kernel's console.
    pub(crate) console: UnixStream,
    /// What the job writes to standard output and to standard error.
    pub(crate) streams: [UnixStream; 2],
    /// The words spoken with guest.sh.
    pub(crate) control: UnixStream,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only when it has ended and been waited for, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CHANNELS: [&str; 4] = ["console", "stdout", "stderr", "control"];

/// Starts the emulator; `directory` is for the sockets and `initrd` lies anywhere.
///
/// # Errors
/// When it cannot be run, or ends at once.
pub(crate) fn start(boot: &Boot, initrd: &Path, directory: &Path) -> anyhow::Result<Machine> {
    let listeners = CHANNELS
        .map(|name| UnixListener::bind(directory.join(name)).context("cannot make a socket"));
    let mut command = tied_to_us("qemu-system-x86_64");
    command.args(arguments(boot, initrd, directory));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context(
        "cannot run qemu-system-x86_64: apt-get install qemu-system-x86, or `cargo xtask setup`",
    )?;
    let mut accepted = Vec::new();
    for listener in listeners {
        match listener.and_then(|listener| accept(&listener, &mut child)) {
            Ok(stream) => accepted.push(stream),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        }
    }
    match <[UnixStream; 4]>::try_from(accepted) {
        Ok([console, stdout, stderr, control]) => Ok(Machine {
            child,
            console,
            streams: [stdout, stderr],
            control,
        }),
        Err(_) => anyhow::bail!("the emulator did not open its channels"),
    }
}

/// A command that is killed when we are, however we end, where util-linux is at hand to arrange it.
fn tied_to_us(program: &str) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if setpriv.exists() {
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL", program]);
        command
    } else {
        Command::new(program)
    }
}

/// Waits for the emulator to connect, or to end without having done so.
fn accept(listener: &UnixListener, child: &mut Child) -> anyhow::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if child.try_wait()?.is_some() {
            let mut text = String::new();
            if let Some(stderr) = child.stderr.as_mut() {
                std::io::Read::read_to_string(stderr, &mut text)?;
            }
            anyhow::bail!("the emulator did not start: {}", text.trim());
        }
        anyhow::ensure!(Instant::now() < deadline, "the emulator does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn arguments(boot: &Boot, initrd: &Path, directory: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    // The hardware's own virtualisation is never used: it is not everywhere, and hangs where it is nested.
    add(&[
        "-machine", "q35", "-cpu", "max", "-display", "none", "-monitor", "none",
    ]);
    add(&[
        "-no-reboot",
        "-nic",
        "none",
        "-m",
        &boot.memory_mb.to_string(),
    ]);
    if boot.icount {
        add(&[
            "-accel",
            "tcg,thread=single",
            "-icount",
            "shift=0,sleep=off",
            "-smp",
            "1",
        ]);
    } else {
        add(&["-accel", "tcg,thread=multi", "-smp", &boot.smp.to_string()]);
    }
    add(&["-virtfs", &share(Path::new("/"), "hostroot", true)]);
    if let Some(out) = &boot.out {
        add(&["-virtfs", &share(out, "out", false)]);
    }
    for name in CHANNELS {
        let path = escaped(&directory.join(name));
        add(&["-chardev", &format!("socket,id={name},path={path}")]);
    }
    add(&["-serial", "chardev:console", "-device", "virtio-serial-pci"]);
    for (port, name) in CHANNELS.iter().enumerate().skip(1) {
        add(&[
            "-device",
            &format!("virtserialport,chardev={name},nr={port},name=finject.{name}"),
        ]);
    }
    add(&[
        "-append",
        format!("console=ttyS0 quiet panic=-1 oops=panic {}", boot.append).trim_end(),
    ]);
    arguments.extend(["-kernel".into(), boot.kernel.clone().into_os_string()]);
    arguments.extend(["-initrd".into(), initrd.as_os_str().to_owned()]);
    arguments
}

/// A directory of the host in the guest. Without `remap`, inode numbers of the host's several file systems collide.
fn share(path: &Path, tag: &str, readonly: bool) -> String {
    let readonly = if readonly { "on" } else { "off" };
    format!(
        "local,path={},mount_tag={tag},security_model=none,readonly={readonly},multidevs=remap",
        escaped(path)
    )
}

/// A path in an option's value, where a comma is written twice.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::{arguments, escaped};
    use crate::vm::Boot;
    use std::path::Path;

    fn words(boot: &Boot) -> String {
        let words = arguments(boot, Path::new("/i"), Path::new("/d"));
        words
            .iter()
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_machine_is_emulated_and_its_root_read_only() {
        let mut boot = Boot::new("/k", ["true"]);
        let ordinary = words(&boot);
        assert!(
            ordinary.contains("-accel tcg,thread=multi -smp 2"),
            "{ordinary}"
        );
        assert!(
            ordinary.contains(
                "path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap"
            )
        );
        assert!(!ordinary.contains("readonly=off") && !ordinary.contains("kvm"));
        boot.icount = true;
        boot.out = Some("/o,x".into());
        boot.append = "preempt=full".to_owned();
        let counted = words(&boot);
        assert!(counted.contains("-accel tcg,thread=single -icount shift=0,sleep=off -smp 1"));
        assert!(counted.contains("path=/o,,x,mount_tag=out,security_model=none,readonly=off"));
        assert!(
            counted.contains(
                "-append console=ttyS0 quiet panic=-1 oops=panic preempt=full -kernel /k"
            )
        );
    }

    #[test]
    fn a_comma_in_a_path_is_doubled() {
        assert_eq!(escaped(Path::new("/a,b")), "/a,,b");
    }
}
