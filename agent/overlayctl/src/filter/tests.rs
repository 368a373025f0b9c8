use super::*;

fn network(name: &str, driver: &str, labels: &[(&str, &str)], endpoints: u32) -> NetworkInfo {
    NetworkInfo {
        id: format!("{name}0123"),
        name: name.to_owned(),
        driver: driver.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        endpoints,
        created: 1_000_000_000,
        ..NetworkInfo::default()
    }
}

fn meant(filters: &[&str]) -> Vec<String> {
    let filters: Vec<Filter> = filters.iter().map(|text| text.parse().expect("a filter")).collect();
    let all = [
        network("ab", "vxlan", &[("tier", "web"), ("old", "")], 0),
        network("bc", "bridge", &[("tier", "db")], 1),
        network("cd", "vxlan", &[], 2),
    ];
    all.iter().filter(|network| is_meant(network, &filters)).map(|network| network.name.clone()).collect()
}

#[test]
fn a_filter_means_what_it_means_in_docker() {
    for (filters, networks) in [
        (&[][..], &["ab", "bc", "cd"][..]),
        (&["label=tier"], &["ab", "bc"]),
        (&["label=tier=db"], &["bc"]),
        (&["label=old="], &["ab"]),
        (&["label!=tier"], &["cd"]),
        (&["label!=tier=db"], &["ab", "cd"]),
        (&["driver=vxlan"], &["ab", "cd"]),
        (&["name=b"], &["ab", "bc"]),
        (&["id=bc"], &["bc"]),
        (&["scope=local"], &["bc"]),
        (&["dangling=true"], &["ab"]),
        (&["dangling=false"], &["bc", "cd"]),
        (&["until=2001-09-10T00:00:00Z"], &["ab", "bc", "cd"]),
        (&["until=2001-09-08T00:00:00Z"], &[]),
        (&["until=24h"], &["ab", "bc", "cd"]),
        // Of one kind either, of several kinds all; and all labels.
        (&["name=ab", "name=cd"], &["ab", "cd"]),
        (&["driver=vxlan", "dangling=false"], &["cd"]),
        (&["label=tier", "label=old"], &["ab"]),
    ] {
        assert_eq!(meant(filters), networks, "{filters:?}");
    }
}

#[test]
fn a_filter_that_is_none_is_told_with_what_there_is() {
    for (text, words) in [
        ("web", &["`web`", "KIND=VALUE"][..]),
        ("colour=red", &["`colour`", "label", "until"]),
        ("scope=swarm", &["`swarm`", "global", "local"]),
        ("dangling=maybe", &["`maybe`", "true or false"]),
        ("until=soon", &["`soon`", "24h"]),
    ] {
        let error = text.parse::<Filter>().expect_err(text);
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}
