//! What the program `labtool` does inside the lab's hosts. The lab itself only starts and stops it.

#[expect(unsafe_code, reason = "packet sockets: `bind`, `recvfrom` and `getsockopt` with types that nix lacks")]
pub mod capture;
#[expect(unsafe_code, reason = "`set_var`, while there is one thread")]
pub mod enter;
pub mod flow;
pub mod host;
pub mod names;
#[expect(unsafe_code, reason = "a raw socket, which the standard library can't open")]
pub mod sctp;
pub mod stream;
pub mod visit;
