//! The words: values that are parsed once and never wrong afterwards.
//!
//! Nothing here decides anything. Everything else in this crate is a function of these values.

pub mod addr;
pub mod difference;
pub mod endpoint;
pub mod host;
pub mod id;
pub mod intent;
pub mod lease;
pub mod links;
pub mod member;
pub mod network;
pub mod pool;
pub mod publish;
pub mod record;
