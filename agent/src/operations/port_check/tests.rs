use super::*;

fn port(address: Option<[u8; 4]>, number: u16) -> HostPort {
    HostPort { protocol: Protocol::Tcp, address: address.map(IpAddr::from), port: number }
}

#[test]
fn addresses_are_read_as_the_kernel_writes_them() {
    if cfg!(target_endian = "little") {
        assert_eq!(in_memory("0100007F"), Some([127, 0, 0, 1].into()));
        assert_eq!(in_memory("00000000000000000000000001000000"), Some("::1".parse().expect("an address")));
        assert_eq!(in_memory("0000000000000000FFFF00000100007F"), Some([127, 0, 0, 1].into()));
    }
    assert_eq!(in_memory("01"), None);
}

#[test]
fn a_port_that_a_program_has_is_refused_with_its_name() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let number = listener.local_addr().expect("it is bound").port();
    let taken = port(Some([127, 0, 0, 1]), number);
    let error = check_unused(taken).expect_err("it is in use").to_string();
    let me = format!("process {}", std::process::id());
    assert!(error.contains(&format!("127.0.0.1:{number}/tcp")) && error.contains(&me), "{error}");
    assert!(matches!(check_unused(port(None, number)), Err(PortError::InUse { .. })));
    drop(listener);
    assert_eq!(check_unused(taken), Ok(()));
    let elsewhere = port(Some([192, 0, 2, 77]), number);
    assert_eq!(check_unused(elsewhere), Err(PortError::NotHere(elsewhere)));
}

#[test]
fn what_a_program_leaves_for_a_minute_keeps_no_port() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    let mut client = std::net::TcpStream::connect(at).expect("it listens");
    let (mut server, _) = listener.accept().expect("somebody came");
    // Who closes first has the connection for another minute (TIME-WAIT, RFC 9293, section 3.6).
    server.write_all(b"bye").expect("it is open");
    drop((server, listener));
    client.read_to_end(&mut Vec::new()).expect("it ends");
    drop(client);
    assert_eq!(check_unused(port(Some([127, 0, 0, 1]), at.port())), Ok(()));
}
#[test]
fn versions_of_ip_are_two_hosts_as_far_as_ports_are_concerned() {
    let listener = std::net::TcpListener::bind(("::1", 0)).expect("a free port");
    let number = listener.local_addr().expect("it is bound").port();
    let at = |text: &str| HostPort { address: Some(text.parse().expect("an address")), ..port(None, number) };
    assert!(matches!(check_unused(at("::")), Err(PortError::InUse { .. })));
    assert!(matches!(check_unused(port(None, number)), Err(PortError::InUse { .. })));
    assert_eq!(check_unused(at("0.0.0.0")), Ok(()));
    let error = check_unused(at("::")).expect_err("it is in use").to_string();
    assert!(error.contains(&format!("[::]:{number}/tcp")) && error.contains("process"), "{error}");
}
