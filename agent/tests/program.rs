//! `overlayd` as people and scripts start it: what it prints when it can't start, and how it ends.

#![forbid(unsafe_code)]

use std::process::{Command, Output};

const OVERLAYD: &str = env!("CARGO_BIN_EXE_overlayd");

fn output(arguments: &[&str]) -> Output {
    Command::new(OVERLAYD).args(arguments).output().expect("the program can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_wrong_flag_is_told_in_one_line() {
    for (arguments, words) in [
        (["--port", "banana"], ["overlayd:", "banana", "--port"]),
        (["--no-such", "flag"], ["overlayd:", "--no-such", "--help"]),
    ] {
        let out = output(&arguments);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert_eq!((said.lines().count(), out.stdout.len()), (1, 0), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

#[test]
fn a_wrong_variable_is_told_by_its_name_and_with_what_would_be_right() {
    for (variable, value, words) in [
        ("OVERLAYD_PORT", "abc", ["OVERLAYD_PORT", "`abc`", "1 to 65535"]),
        ("OVERLAYD_VXLAN_PORT", "99999", ["OVERLAYD_VXLAN_PORT", "`99999`", "1 to 65535"]),
        ("OVERLAYD_LOG", "info=loud", ["OVERLAYD_LOG", "`info=loud`", "`debug`"]),
    ] {
        let out = Command::new(OVERLAYD).env(variable, value).output().expect("the program can be started");
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert_eq!((said.lines().count(), out.stdout.len()), (1, 0), "{said}");
        let said = said.replace('\'', "`");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    let out = Command::new(OVERLAYD).env("OVERLAYD_PORT", "1").args(["--port", "99999"]).output();
    let said = text(&out.expect("the program can be started").stderr);
    assert!(said.contains("--port") && !said.contains("OVERLAYD_PORT"), "it was the flag: {said}");
}
