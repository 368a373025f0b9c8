//! What an operator or a runtime asks for: networks, endpoints, links and ports, each checked, made durable, and brought to the kernel.

pub mod attach;
pub mod links;
pub mod network;
mod port_check;
