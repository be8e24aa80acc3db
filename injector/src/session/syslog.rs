//! The host's own record: who armed what on which target, and when it was healed (syslog(3); the
//! format of its datagrams is RFC 3164's). Where no daemon listens, the kernel's log takes the line
//! (kernel Documentation/ABI/testing/dev-kmsg).

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Facility user (1), severity notice (5).
const PRIORITY: u8 = 8 + 5;

/// Where lines go: the daemon's socket, or else the kernel's log.
#[derive(Clone, Debug)]
pub struct Syslog<'p> {
    socket: &'p Path,
    kernel: &'p Path,
}

impl Default for Syslog<'_> {
    fn default() -> Self {
        Self {
            socket: Path::new("/dev/log"),
            kernel: Path::new("/dev/kmsg"),
        }
    }
}

impl Syslog<'_> {
    /// Sends one line. Control characters are blanked, so that what the user wrote stays one line.
    pub fn send(&self, message: &str) -> std::io::Result<()> {
        let message: String = message
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(900)
            .collect();
        let line = format!("<{PRIORITY}>finject[{}]: {message}", std::process::id());
        let to_daemon = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to(line.as_bytes(), self.socket)
        });
        if to_daemon.is_err() {
            let mut kernel = OpenOptions::new().write(true).open(self.kernel)?;
            // A line without its end is kept open for more, and shown only once another one comes
            // (vprintk_store of kernel/printk/printk.c).
            kernel.write_all(format!("{line}\n").as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reaches_the_daemon_as_one_line() {
        let directory = std::env::temp_dir().join(format!("finject-syslog-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let socket = directory.join("log");
        let daemon = UnixDatagram::bind(&socket).unwrap();
        let syslog = Syslog {
            socket: &socket,
            kernel: Path::new("/nonexistent"),
        };
        syslog.send("armed: fsync=EIO\nforged line").unwrap();
        let mut buffer = [0; 256];
        let length = daemon.recv(&mut buffer).unwrap();
        let line = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(line.starts_with("<13>finject["), "{line}");
        assert!(line.ends_with("armed: fsync=EIO forged line"), "{line}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn without_a_daemon_the_kernels_log_takes_it() {
        let directory = std::env::temp_dir().join(format!("finject-kmsg-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let kernel = directory.join("kmsg");
        std::fs::write(&kernel, "").unwrap();
        let syslog = Syslog {
            socket: Path::new("/nonexistent"),
            kernel: &kernel,
        };
        syslog.send("healed").unwrap();
        assert!(
            std::fs::read_to_string(&kernel)
                .unwrap()
                .ends_with("healed\n")
        );
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
