use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::Parser;

use super::*;

/// As `overlayd` has them.
#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    options: Options,
}

/// A directory with a good key in it, which goes with its test.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("overlay-config-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory can be made");
        let files = Self(dir);
        files.write("key", &ClusterKey::generate().expect("randomness").to_string());
        files
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("it can be written");
        path
    }

    /// What is asked for by these flags, besides a name, an address and the key.
    fn flags(&self, more: &[&str]) -> Options {
        let key = self.0.join("key").display().to_string();
        options(&[&["--name", "alpha", "--address", "192.0.2.1", "--cluster-key-file", &key], more].concat())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options(flags: &[&str]) -> Options {
    Flags::try_parse_from([&["overlayd"], flags].concat()).expect("good flags").options
}

/// One line that has all of these words in it.
fn assert_line(error: &ConfigError, words: &[&str]) {
    let line = error.to_string();
    assert!(!line.contains('\n'), "more than a line: {line}");
    for word in words {
        assert!(line.contains(word), "no `{word}` in: {line}");
    }
}

#[test]
fn what_is_not_said_goes_without_saying() {
    let files = Files::new();
    let config = files.flags(&[]).check().expect("enough is said");
    assert_eq!((config.name.as_str(), config.address), ("alpha", IpAddr::from([192, 0, 2, 1])));
    assert_eq!((config.port, config.vxlan_port, config.join.len()), (7946, 4789, 0));
    let dirs = (config.state_dir.as_path(), config.run_dir.as_path(), config.resolv_conf.as_path());
    let usual = ["/var/lib/overlayd", "/run/overlayd", "/etc/resolv.conf"].map(Path::new);
    assert_eq!(dirs, (usual[0], usual[1], usual[2]));
    assert_eq!(config.gossip_interval.as_millis(), 250);
}

#[test]
fn a_flag_goes_before_the_file_and_the_file_before_the_rest() {
    let files = Files::new();
    let file = files.write(
        "config.toml",
        "name = \"beta\"\nport = 1\nvxlan-port = 2\njoin = [\"192.0.2.9:7946\"]\nstate-dir = \"/s\"\nrun-dir = \"/r\"\n\
         resolv-conf = \"/c\"\ngossip-interval-ms = 500\naddress = \"192.0.2.2\"\ncluster-key-file = \"/nowhere\"\n",
    );
    let config = files.flags(&["--port", "3", "--run-dir", "/run/x"]).or_file(Some(&file)).and_then(Options::check);
    let config = config.expect("all is well");
    assert_eq!((config.name.as_str(), config.address), ("alpha", IpAddr::from([192, 0, 2, 1])), "flags");
    assert_eq!((config.port, config.run_dir), (3, "/run/x".into()), "flags");
    assert_eq!((config.vxlan_port, config.join), (2, vec![([192, 0, 2, 9], 7946).into()]), "file");
    assert_eq!((config.state_dir, config.resolv_conf), ("/s".into(), "/c".into()), "file");
    assert_eq!(config.gossip_interval.as_millis(), 500, "file");
}

#[test]
fn hosts_to_join_are_given_several_times_or_with_commas_and_replace_those_of_the_file() {
    let files = Files::new();
    let file = files.write("config.toml", "join = [\"192.0.2.9:7946\"]");
    let flags = ["--join", "192.0.2.3:1,192.0.2.4:2", "--join", "192.0.2.5:3"];
    let config = files.flags(&flags).or_file(Some(&file)).and_then(Options::check).expect("all is well");
    let hosts: Vec<String> = config.join.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["192.0.2.3:1", "192.0.2.4:2", "192.0.2.5:3"]);
}

#[test]
fn the_environment_says_the_same_as_each_flag() {
    use clap::CommandFactory;
    for argument in Flags::command().get_arguments().filter(|a| !matches!(a.get_id().as_str(), "help" | "version")) {
        let flag = argument.get_long().expect("each has a long name");
        let variable = format!("OVERLAYD_{}", flag.replace('-', "_").to_uppercase());
        assert_eq!(argument.get_env().and_then(|e| e.to_str()), Some(variable.as_str()), "--{flag}");
    }
}

#[test]
fn a_variable_that_is_set_to_nothing_says_nothing() {
    let files = Files::new();
    let config = Options { join: vec![String::new()], ..files.flags(&[]) }.check().expect("nothing is no host");
    assert_eq!(config.join, []);
}

#[test]
fn a_wrong_value_is_told_with_its_flag_and_what_would_be_right() {
    let files = Files::new();
    let cases: [(&[&str], &[&str]); 18] = [
        (&["--vxlan-port", "7946"], &["--vxlan-port", "`7946`", "--port", "4789"]),
        (&["--port", "4789"], &["--vxlan-port", "`4789`", "another one"]),
        (&["--name", "no spaces"], &["--name", "`no spaces`", "1 to 63 letters"]),
        (&["--name", ""], &["--name", "1 to 63 letters"]),
        (&["--address", "host1"], &["--address", "`host1`", "not an IP address"]),
        (&["--address", "::1"], &["--address", "`::1`", "other hosts can reach"]),
        (&["--address", "fe80::1"], &["--address", "`fe80::1`", "other hosts can reach"]),
        (&["--address", "::ffff:192.0.2.1"], &["--address", "other hosts can reach"]),
        (&["--join", "[::ffff:192.0.2.2]:7946"], &["--join", "address and port of another host"]),
        (&["--join", "192.0.2.2:0"], &["--join", "address and port of another host"]),
        (&["--join", "[2001:db8::1]:7946"], &["--join", "[2001:db8::1]:7946", "one version of IP"]),
        (&["--address", "2001:db8::1", "--join", "192.0.2.1:7946"], &["--join", "192.0.2.1:7946", "2001:db8::1"]),
        (&["--address", "0.0.0.0"], &["--address", "`0.0.0.0`", "reach"]),
        (&["--address", "127.0.0.1"], &["--address", "`127.0.0.1`", "reach"]),
        (&["--address", "224.0.0.1"], &["--address", "`224.0.0.1`", "reach"]),
        (&["--join", "192.0.2.1"], &["--join", "`192.0.2.1`", "IP:PORT"]),
        (&["--gossip-interval-ms", "10"], &["--gossip-interval-ms", "`10`", "200 to 500"]),
        (&["--gossip-interval-ms", "501"], &["--gossip-interval-ms", "`501`", "200 to 500"]),
    ];
    for (wrong, words) in cases {
        let key = files.0.join("key").display().to_string();
        let base = [("--name", "alpha"), ("--address", "192.0.2.1"), ("--cluster-key-file", key.as_str())];
        let others = base.iter().filter(|(flag, _)| *flag != wrong[0]).flat_map(|(flag, value)| [*flag, *value]);
        let flags: Vec<&str> = others.chain(wrong.iter().copied()).collect();
        assert_line(&options(&flags).check().expect_err("it is wrong"), words);
    }
}

#[test]
fn a_port_is_one_that_there_is() {
    for (flag, value) in [("--port", "0"), ("--port", "99999"), ("--vxlan-port", "-1"), ("--vxlan-port", "abc")] {
        let error = Flags::try_parse_from(["overlayd".to_owned(), format!("{flag}={value}")]).expect_err(value);
        let said = error.to_string();
        assert!([flag, value, "1 to 65535"].iter().all(|word| said.contains(word)), "{said}");
    }
    let files = Files::new();
    let file = files.write("config.toml", "vxlan-port = 0");
    let error = files.flags(&[]).or_file(Some(&file)).and_then(Options::check).expect_err("of the file too");
    assert_line(&error, &["--vxlan-port", "`0`", "1 to 65535"]);
}

#[test]
fn a_key_that_others_can_read_is_noticed() {
    let files = Files::new();
    for (mode, readable) in [(0o600, false), (0o640, true), (0o604, true)] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(files.0.join("key"), permissions).expect("it is ours");
        let config = files.flags(&[]).check().expect("all is well");
        assert_eq!(config.key_is_readable_by_others, readable, "{mode:o}");
        assert_eq!(config.key_file, files.0.join("key"));
    }
}

#[test]
fn what_can_not_be_guessed_is_asked_for() {
    let files = Files::new();
    let key = files.0.join("key").display().to_string();
    let no_address = options(&["--name", "alpha", "--cluster-key-file", &key]).check().expect_err("no address");
    assert_line(&no_address, &["--address is missing"]);
    let no_key = options(&["--name", "alpha", "--address", "192.0.2.1"]).check().expect_err("no key");
    assert_line(&no_key, &["--cluster-key-file is missing", "overlayctl cluster keygen"]);
}

#[test]
fn a_file_that_is_not_understood_is_told_with_its_line() {
    let files = Files::new();
    let cases: [(&str, &[&str]); 4] = [
        ("name = \"a\"\nnmae = \"b\"\n", &["line 2", "nmae", "name"]),
        ("# nothing\n\nport = \"many\"\n", &["line 3", "u16"]),
        ("port = 70000\n", &["line 1", "70000"]),
        ("name = \n", &["line 1"]),
    ];
    for (text, words) in cases {
        let path = files.write("config.toml", text);
        let error = files.flags(&[]).or_file(Some(&path)).expect_err(text);
        assert_line(&error, &["configuration file", &path.display().to_string()]);
        assert_line(&error, words);
    }
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let files = Files::new();
    let path = files.0.join("none.toml");
    let error = files.flags(&[]).or_file(Some(&path)).expect_err("there is none");
    assert!(matches!(error, ConfigError::File { .. }), "{error}");
    assert_line(&error, &["can't read", &path.display().to_string(), "no such file", "--config"]);
    // What is printed has the cause in it, once.
    let printed = format!("{:#}", anyhow::Error::new(error));
    assert_eq!(printed.matches("no such file").count(), 1, "{printed}");
}

#[test]
fn a_key_that_is_none_is_told_with_its_file_and_nothing_of_the_secret() {
    let files = Files::new();
    let good = ClusterKey::generate().expect("randomness").to_string();
    let short = good.get(..20).expect("a part of it");
    let cases = [("", "empty"), (short, "too short"), ("not base64 !", "not base64"), ("AAAA\nBBBB\n", "2 lines")];
    for (text, word) in cases {
        let path = files.write("bad-key", text);
        let shown = path.display().to_string();
        let error = Options { cluster_key_file: Some(path), ..files.flags(&[]) }.check().expect_err(word);
        assert_line(&error, &["cluster key file", &shown, word, "overlayctl cluster keygen"]);
        assert!(text.is_empty() || !error.to_string().contains(text), "{error}");
    }
    let none = files.0.join("no-key");
    let shown = none.display().to_string();
    let error = Options { cluster_key_file: Some(none), ..files.flags(&[]) }.check().expect_err("there is none");
    assert_line(&error, &[&shown, "no such file", "overlayctl cluster keygen"]);
    let shown = files.0.display().to_string();
    let error = Options { cluster_key_file: Some(files.0.clone()), ..files.flags(&[]) }.check().expect_err("no file");
    assert_line(&error, &[&shown, "directory", "overlayctl cluster keygen"]);
    assert!(!error.to_string().contains("os error"), "{error}");
}
