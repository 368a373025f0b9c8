use super::*;
use overlay::operations::attach::difference;

fn id(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 16])
}

fn as_id(number: u8, name: &str) -> EndpointSpec {
    EndpointSpec { id: Some(id(number)), ..wanted(name) }
}

/// The commit that all is as of, and the endpoints.
fn kept(host: &Host) -> (u64, BTreeMap<EndpointId, Arc<Attachment>>) {
    let committed = host.state.committed.borrow();
    (committed.commit, committed.state.intents.attachments.clone())
}

#[tokio::test]
async fn the_same_request_under_the_same_id_has_the_same_answer_and_changes_nothing() {
    let Some((host, attacher)) = with_network().await else { return };
    let first = attacher.attach(&as_id(1, "web")).await.expect("nothing speaks against it");
    assert_eq!(first.endpoint.id, id(1));
    let before = kept(&host);
    // Also if it says what it was given the first time.
    let (addresses, mac) = (BTreeSet::from([first.endpoint.addresses[0].address]), Some(first.endpoint.mac));
    for again in [as_id(1, "web"), as_id(1, "WEB"), EndpointSpec { addresses, mac, ..as_id(1, "web") }] {
        assert_eq!(attacher.attach(&again).await.expect("it is there"), first);
        assert_eq!(kept(&host), before);
    }
    // Without an id it is another request.
    let error = attacher.attach(&wanted("web")).await.expect_err("the name is in use");
    assert_line(&error, &["name `web`", "in use"]);
}

#[tokio::test]
async fn the_same_id_with_another_request_is_refused_with_what_differs() {
    let Some((host, attacher)) = with_network().await else { return };
    attacher.attach(&as_id(1, "web")).await.expect("nothing speaks against it");
    let before = kept(&host);
    let cases = [
        (as_id(1, "other"), "another name"),
        (EndpointSpec { aliases: [label("w")].into(), ..as_id(1, "web") }, "another set of aliases"),
        (EndpointSpec { ifname: Some("ovtest1".parse().expect("a name")), ..as_id(1, "web") }, "another interface"),
        (EndpointSpec { addresses: [ip(99)].into(), ..as_id(1, "web") }, "another address"),
        (EndpointSpec { mac: Some(Mac::of_address(ip(99))), ..as_id(1, "web") }, "another MAC"),
    ];
    for (request, differs) in cases {
        let error = attacher.attach(&request).await.expect_err(differs);
        let id = id(1).to_string();
        assert_line(
            &error,
            &[&id, "in use", "`net`", "`web`", "host `alpha`", differs, "repeat the request as it was"],
        );
        assert_eq!(kept(&host), before, "{differs}");
    }
}

#[test]
fn a_namespace_is_the_same_by_its_number_whatever_its_path() {
    let (_, network) = cluster();
    let netns = NetnsRef { path: "/run/netns/web".into(), cookie: 7 };
    let there = Attachment {
        endpoint: endpoint(&network, 9, "web"),
        netns,
        ifname: wanted("web").ifname.expect("it is given"),
        metric: Priority::default().metric(),
        published: BTreeMap::new(),
    };
    let differs = |path: &str, cookie| {
        let netns = NetnsRef { path: path.into(), cookie };
        difference(&there, Some(&network), &wanted("web"), &netns)
    };
    assert_eq!((differs("/run/netns/web", 7), differs("/proc/42/ns/net", 7)), (None, None));
    assert_eq!(differs("/run/netns/web", 8), Some("network namespace"));
    let elsewhere = EndpointSpec { network: "other".to_owned(), ..wanted("web") };
    assert_eq!(difference(&there, Some(&network), &elsewhere, &there.netns), Some("network"));
}

#[tokio::test]
async fn what_a_network_is_called_by_now_does_not_hide_what_is_attached() {
    let Some((host, mut attacher)) = with_network().await else { return };
    let first = attacher.attach(&as_id(1, "web")).await.expect("nothing speaks against it");
    let before = kept(&host);
    let cluster = Arc::clone(&host.seen.borrow().cluster);
    let own = first.endpoint.network;
    // Since two parts of the cluster have found each other the name means the network of the other one.
    let mut clash = (*cluster).clone();
    let rival = Network { id: NetworkId::from_bytes([77; 16]), created: 0, ..clash.networks[&own].network.clone() };
    let view = overlay::cluster::NetworkView::new(&rival);
    clash.networks.insert(view.network.id, view.into());
    Arc::make_mut(clash.networks.get_mut(&own).expect("it is there")).shadowed = true;
    // Or the network is deleted, and the name means nothing.
    let mut deleted = (*cluster).clone();
    deleted.networks.clear();
    let shown = clash.networks[&own].shown_name();
    for (cluster, called) in [(clash.clone(), "net"), (clash, &*shown), (deleted, "net")] {
        let (_seen, theirs) = watch::channel(ClusterView { cluster: Arc::new(cluster), ..ClusterView::default() });
        attacher.seen = theirs;
        let again = EndpointSpec { network: called.to_owned(), ..as_id(1, "web") };
        assert_eq!(attacher.attach(&again).await.expect("it is there"), first, "{called}");
        assert_eq!(kept(&host), before);
    }
    assert_eq!(attacher.detach_as("net", &label("web"), id(1)).await.expect("it is there"), Some(first));
}

#[tokio::test]
async fn an_id_of_an_endpoint_that_drains_elsewhere_is_refused_too() {
    let Some((_host, mut attacher)) = with_network().await else { return };
    let (mut cluster, _) = cluster();
    cluster.networks.clear();
    let (_seen, theirs) = watch::channel(ClusterView { cluster: Arc::new(cluster), ..ClusterView::default() });
    attacher.seen = theirs;
    let error = attacher.attach(&as_id(3, "web")).await.expect_err("it is there");
    assert_line(&error, &["`web-beta`", "host `beta`", "another host"]);
}

#[tokio::test]
async fn an_id_of_another_host_is_refused_with_where_it_is() {
    let Some((host, mut attacher)) = with_network().await else { return };
    let (cluster, _) = cluster();
    let (_seen, theirs) = watch::channel(ClusterView { cluster: Arc::new(cluster), ..ClusterView::default() });
    attacher.seen = theirs;
    // `web-beta`, on host `beta`.
    let error = attacher.attach(&as_id(3, "web")).await.expect_err("it is there");
    assert_line(&error, &["`web-beta`", "host `beta`", "another host"]);
    let error = attacher.detach_as("net", &label("web-beta"), id(3)).await.expect_err("it is there");
    assert_line(&error, &["`web-beta`", "host `beta`", "another host"]);
    assert!(kept(&host).1.is_empty());
}

/// Without the lock both would find the id free, and the one that writes last would take the other's place.
#[tokio::test]
async fn of_different_requests_with_one_id_at_the_same_time_one_is_refused() {
    let Some((host, attacher)) = with_network().await else { return };
    let all = futures::future::join_all(["web", "api", "db"].map(|name| {
        let attacher = attacher.clone();
        async move { attacher.attach(&as_id(1, name)).await }
    }));
    let (granted, refused): (Vec<_>, Vec<_>) = all.await.into_iter().partition(Result::is_ok);
    let granted: Vec<Arc<Attachment>> = granted.into_iter().flatten().collect();
    assert_eq!((granted.len(), refused.len()), (1, 2), "{granted:?} {refused:?}");
    for error in refused.into_iter().filter_map(Result::err) {
        assert_line(&error, &["in use", "another name"]);
    }
    assert_eq!(kept(&host).1, [(id(1), granted[0].clone())].into());
}

#[tokio::test]
async fn requests_with_one_id_at_the_same_time_have_one_answer() {
    let Some((host, attacher)) = with_network().await else { return };
    let all = futures::future::join_all((0..4).map(|_| {
        let attacher = attacher.clone();
        async move { attacher.attach(&as_id(1, "web")).await }
    }));
    let all: Vec<Arc<Attachment>> = all.await.into_iter().map(|one| one.expect("it is one request")).collect();
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    assert_eq!((kept(&host).1.len(), bound(&attacher)), (1, vec![id(1)]));
    let turn = tokio::time::timeout(std::time::Duration::from_secs(1), attacher.lock.take(Work::Endpoint(id(1)))).await;
    assert!(turn.is_ok(), "somebody still has the turn");
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_let_go_of_under_its_id_as_often_as_one_likes() {
    let Some((host, attacher)) = with_network().await else { return };
    let web = label("web");
    let first = attacher.attach(&as_id(1, "web")).await.expect("nothing speaks against it");
    let error = attacher.detach_as("net", &label("other"), id(1)).await.expect_err("it has another name");
    assert_line(&error, &["`web`", "another name"]);
    let error = attacher.detach_as("nte", &web, id(1)).await.expect_err("it is in another network");
    assert_line(&error, &["`web`", "another network"]);
    assert_eq!(attacher.detach_as("net", &web, id(1)).await.expect("it is there"), Some(first));
    // The name means another one by now, which is not meant.
    let second = attacher.attach(&as_id(2, "web")).await.expect("the name is free");
    for network in ["net", "nte"] {
        assert_eq!(attacher.detach_as(network, &web, id(1)).await.expect("it is gone"), None);
    }
    assert_eq!(kept(&host).1, [(id(2), second)].into());
    // And the id is free again.
    attacher.detach("net", &web).await.expect("it is there");
    attacher.attach(&as_id(1, "web")).await.expect("nothing speaks against it");
}

#[tokio::test]
async fn ids_that_begin_alike_are_told_apart_before_their_interfaces_are_not() {
    let Some((host, attacher)) = with_network().await else { return };
    attacher.attach(&as_id(1, "web")).await.expect("nothing speaks against it");
    let mut alike = [1; 16];
    alike[15] = 2;
    let alike = EndpointSpec {
        id: Some(EndpointId::from_bytes(alike)),
        ifname: Some("ovtest1".parse().expect("a name")),
        ..wanted("two")
    };
    let error = attacher.attach(&alike).await.expect_err("their interfaces would have the same name");
    assert_line(&error, &["begins like", "`web`", "choose another id"]);
    assert_eq!((kept(&host).1.len(), bound(&attacher)), (1, vec![id(1)]), "nothing is left behind");
}
