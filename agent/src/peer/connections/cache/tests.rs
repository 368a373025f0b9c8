use super::*;

fn host(number: u8) -> HostId {
    HostId::from_bytes([number; 16])
}

fn route(number: u8) -> Route {
    Route { host: host(number), to: ([192, 0, 2, number], 7946).into(), from: None }
}

#[tokio::test(start_paused = true)]
async fn a_value_is_found_by_its_whole_route_only() {
    let (mut cache, now) = (Cache::new(4), Instant::now());
    let number = cache.insert(route(1), "a", now);
    assert_eq!(cache.get(route(1), now), Some((number, "a")));
    let moved = Route { to: ([192, 0, 2, 9], 7946).into(), ..route(1) };
    assert_eq!(cache.get(moved, now), None, "the host is at another address");
    let renumbered = Route { from: Some([192, 0, 2, 8].into()), ..route(1) };
    assert_eq!(cache.get(renumbered, now), None, "this host is at another address");
    assert_eq!(cache.get(route(2), now), None);
}

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_goes_when_there_are_too_many() {
    let mut cache = Cache::new(3);
    for number in [1, 2, 3] {
        cache.insert(route(number), number, Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(cache.get(route(1), Instant::now()).is_some(), "used again");
    cache.insert(route(4), 4, Instant::now());
    let left: Vec<u8> = [1, 2, 3, 4].into_iter().filter(|n| cache.get(route(*n), Instant::now()).is_some()).collect();
    assert_eq!(left, [1, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn one_that_failed_is_removed_but_not_its_successor() {
    let (mut cache, now) = (Cache::new(4), Instant::now());
    let failed = cache.insert(route(1), "failed", now);
    let number = cache.insert(route(1), "new", now);
    cache.remove(host(1), failed);
    assert_eq!(cache.get(route(1), now), Some((number, "new")));
    cache.remove(host(1), number);
    assert_eq!(cache.get(route(1), now), None);
}

#[tokio::test(start_paused = true)]
async fn idle_ones_and_those_with_a_stale_route_are_dropped() {
    let (mut cache, idle) = (Cache::new(4), Duration::from_secs(60));
    cache.insert(route(1), (), Instant::now());
    tokio::time::advance(Duration::from_secs(59)).await;
    let later = Instant::now();
    cache.insert(route(2), (), later);
    cache.insert(route(3), (), later);
    cache.retain((later, idle), |_| true);
    assert_eq!(cache.least_recent_use(), Some(later - Duration::from_secs(59)));
    cache.retain((later + Duration::from_secs(1), idle), |route| route.host != host(3));
    assert_eq!(cache.get(route(1), later), None, "idle");
    assert_eq!(cache.get(route(3), later), None, "its host is gone");
    assert!(cache.get(route(2), later).is_some());
}
