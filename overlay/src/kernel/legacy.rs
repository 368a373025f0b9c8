//! The tables of the old `iptables` on the host: only whether there is one that filters.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::netns::{Netns, NetnsError};

/// What lists the tables in the namespace of the thread that opens it (`net/ipv4/netfilter/ip_tables.c`). The files are there in all
/// namespaces or in none: in none while the module is not loaded.
const LISTS: [&str; 2] = ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// Bytes: a list has five short names at most.
const MAX_LIST: usize = 256;

/// The lists, kept open: an open list stays the one of the namespace that it was opened in, whoever reads it. So a look needs no
/// thread that enters the namespace, but once when the module has been loaded.
#[derive(Default)]
pub(super) struct Lists([Option<File>; 2]);

impl Lists {
    /// Is there a table of the old kind that filters?
    pub(super) async fn has_filter(&mut self, host: &Arc<Netns>) -> Result<bool, NetnsError> {
        let mut found = false;
        for (path, list) in LISTS.into_iter().zip(&mut self.0) {
            if list.is_none() && Path::new(path).exists() {
                // A module that is unloaded meanwhile takes the file along.
                *list = host.run_off(move || File::open(path)).await?.ok();
            }
            match list.as_ref().map(names_filter) {
                Some(Ok(named)) => found |= named,
                // The module was unloaded.
                Some(Err(_)) => *list = None,
                None => {}
            }
        }
        Ok(found)
    }
}

/// It is read from memory: nothing is waited for.
fn names_filter(list: &File) -> io::Result<bool> {
    let mut text = [0; MAX_LIST];
    let len = list.read_at(&mut text, 0)?;
    Ok(text[..len].split(|byte| *byte == b'\n').any(|table| table == b"filter"))
}
