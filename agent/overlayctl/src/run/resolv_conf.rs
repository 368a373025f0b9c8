//! The resolv.conf of a command in a network (resolv.conf(5)).

/// That of the host, with `server` for its nameservers: a name means in the container what it means on the host.
///
/// `ndots:0` unless the host says otherwise, as with Docker: the names of a network have no dots, and are not to be looked for in the
/// domains of the host first.
pub(super) fn in_network(host: &str, server: &str) -> String {
    // Of several the last one counts; `domain` is the old word for it, and `.` for no domain.
    let mut search: Vec<&str> = Vec::new();
    let mut options: Vec<&str> = Vec::new();
    let mut others = String::new();
    for line in host.lines() {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["search", domains @ ..] if !domains.is_empty() => search = domains.to_vec(),
            ["domain", domain, ..] => search = vec![domain],
            ["options", more @ ..] => options.extend(more),
            [] | ["search" | "domain" | "nameserver", ..] => {}
            [comment, ..] if comment.starts_with(['#', ';']) => {}
            [_, ..] => others.extend([line, "\n"]),
        }
    }
    search.retain(|domain| *domain != ".");
    let ndots = |option: &&str| option.strip_prefix("ndots:").map(str::parse::<u8>);
    options.retain(|option| ndots(option).is_none_or(|number| number.is_ok()));
    if !options.iter().any(|option| ndots(option).is_some()) {
        options.push("ndots:0");
    }
    let search = if search.is_empty() { String::new() } else { format!("search {}\n", search.join(" ")) };
    format!("# Written by overlayctl run.\nnameserver {server}\n{search}options {}\n{others}", options.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(host: &str) -> Vec<String> {
        let text = in_network(host, "169.254.53.53");
        text.lines().skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn search_and_options_are_the_hosts_and_the_nameserver_is_ours() {
        let host = "# by NetworkManager\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch corp.example example\n\
                    options edns0 trust-ad\noptions timeout:2\nsortlist 130.155.160.0\n";
        let expected = [
            "nameserver 169.254.53.53",
            "search corp.example example",
            "options edns0 trust-ad timeout:2 ndots:0",
            "sortlist 130.155.160.0",
        ];
        assert_eq!(written(host), expected);
    }

    #[test]
    fn the_last_search_counts_and_ndots_stays_what_it_was() {
        let host = "search a.example b.example\ndomain c.example ignored\noptions ndots:2\n";
        assert_eq!(written(host), ["nameserver 169.254.53.53", "search c.example", "options ndots:2"]);
        let host = "search a.example\nsearch\ndomain\noptions ndots:many edns0\n";
        assert_eq!(written(host), ["nameserver 169.254.53.53", "search a.example", "options edns0 ndots:0"]);
    }

    #[test]
    fn a_host_that_says_nothing_adds_nothing() {
        for host in ["", "search .\n", "search\n", "options\n", "; nothing\n"] {
            assert_eq!(written(host), ["nameserver 169.254.53.53", "options ndots:0"], "{host:?}");
        }
    }
}
