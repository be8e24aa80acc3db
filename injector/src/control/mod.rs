//! Control of a session while it runs: requests and replies over a unix socket of the session's own, one
//! JSON object a line. Knows how they travel and who may ask; what they do is the session's matter.

pub mod client;
pub mod message;
pub mod place;
pub mod server;

pub use client::Client;
pub use message::{Reply, Request};
pub use server::Server;

/// What went wrong between a session and whoever controls it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The directory of the sockets belongs to somebody else, or others may write to it.
    #[error("{path} is not this user's alone")]
    NotOwn {
        /// The directory.
        path: std::path::PathBuf,
    },
    /// A file or a socket.
    #[error("{path}")]
    Io {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The other side is another user's.
    #[error("the session at {path} is user {uid}'s")]
    OtherUser {
        /// The socket.
        path: std::path::PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// The session does not answer: it is stopped, or hangs.
    #[error("the session does not answer")]
    Silent,
    /// The session has ended, without an answer.
    #[error("the session ended without an answer")]
    Ended,
    /// What came is no reply.
    #[error("the session's answer is not understood")]
    NotAReply(#[source] serde_json::Error),
    /// A call.
    #[error(transparent)]
    Sys(#[from] crate::sys::SysError),
}
