//! The oracle: looks at the kernel, each second, whether an address is live twice.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::container::Container;
use super::host::Place;
use crate::eventually::pass;

const EACH: Duration = Duration::from_secs(1);

/// Network, name and place of each container.
type Places = Arc<Mutex<Vec<(String, String, Place)>>>;

/// Watches containers in the background.
#[derive(Debug)]
pub struct Oracle {
    places: Places,
    stop: Arc<AtomicBool>,
    watch: JoinHandle<anyhow::Result<usize>>,
}

impl Oracle {
    /// Starts to watch. Containers are given with the network that they are in: the kernel does not know its name.
    ///
    /// # Errors
    /// When one of them is not attached.
    pub fn watch(containers: &[&Container]) -> anyhow::Result<Self> {
        let (places, stop) = (Places::default(), Arc::new(AtomicBool::new(false)));
        for container in containers {
            add(&places, container)?;
        }
        let watch = thread::spawn({
            let (places, stop) = (Arc::clone(&places), Arc::clone(&stop));
            move || watch(&places, &stop)
        });
        Ok(Self { places, stop, watch })
    }

    /// One more to watch.
    ///
    /// # Errors
    /// When it is not attached.
    pub fn also(&self, container: &Container) -> anyhow::Result<()> {
        add(&self.places, container)
    }

    /// Ends the watch; how many times it looked, which is at least once.
    ///
    /// # Errors
    /// When an address was live twice.
    pub fn stop(self) -> anyhow::Result<usize> {
        self.stop.store(true, Ordering::SeqCst);
        self.watch.join().map_err(|_| anyhow::anyhow!("the oracle died"))?
    }
}

fn add(places: &Places, container: &Container) -> anyhow::Result<()> {
    let (network, _) = container.endpoint.as_ref().context("the container is not attached")?;
    let mut places = places.lock().unwrap_or_else(PoisonError::into_inner);
    // A container that was removed and made anew is in the place of the one before it, which is looked at once.
    if !places.iter().any(|(of, _, place)| of == network && place == container.place()) {
        places.push((network.clone(), container.name().to_owned(), container.place().clone()));
    }
    Ok(())
}

fn watch(places: &Places, stop: &AtomicBool) -> anyhow::Result<usize> {
    let mut looks = 0;
    loop {
        let began = Instant::now();
        let places = places.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut live: BTreeMap<(&str, IpAddr), &str> = BTreeMap::new();
        for (network, container, place) in &places {
            // A container whose host crashed, or that was removed, has no addresses.
            let Ok(done) = place.try_sh("ip -j address show up scope global") else { continue };
            let Ok(interfaces) = done.json() else { continue };
            for address in addresses(&interfaces) {
                if let Some(other) = live.insert((network, address), container) {
                    bail!("{address} of network {network} is live in {other} and in {container}");
                }
            }
        }
        looks += 1;
        while began.elapsed() < EACH && !stop.load(Ordering::SeqCst) {
            pass(Duration::from_millis(20));
        }
        if stop.load(Ordering::SeqCst) {
            return Ok(looks);
        }
    }
}

fn addresses(interfaces: &Value) -> Vec<IpAddr> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let infos = list(interfaces).into_iter().flat_map(|interface| list(&interface["addr_info"]));
    infos.filter_map(|info| info["local"].as_str()?.parse().ok()).collect()
}
