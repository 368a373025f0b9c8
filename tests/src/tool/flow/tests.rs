use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn counts_lost_and_doubled_packets_by_number() {
    let sent = [ms(0), ms(1), ms(2), ms(3), ms(4)];
    let arrivals = [(0, ms(1)), (3, ms(5)), (0, ms(6))];
    let report = report(&sent, 0, &arrivals);
    assert_eq!((report.sent, report.received, report.lost, report.doubled), (5, 2, 3, 1));
    assert_eq!(report.gaps, [(1, 2), (4, 4)]);
}

#[test]
fn an_echo_of_a_packet_that_was_never_sent_is_ignored() {
    let report = report(&[ms(0)], 0, &[(0, ms(1)), (7, ms(1))]);
    assert_eq!((report.received, report.lost), (1, 0));
}

#[test]
fn a_flow_over_loopback_loses_nothing_and_notices_a_dead_end() {
    let echo = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let to = echo.local_addr().expect("bound");
    thread::spawn(move || {
        let mut buffer = [0; 64];
        // Leaves out number 5: a tool that cannot count losses would not be noticed otherwise.
        while let Ok((length, from)) = echo.recv_from(&mut buffer) {
            if buffer.get(..8) != Some(&5_u64.to_be_bytes()) {
                _ = echo.send_to(buffer.get(..length).unwrap_or_default(), from);
            }
        }
    });
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let (start, stop) = (Instant::now(), AtomicBool::new(false));
    let reader = {
        let socket = socket.try_clone().expect("clone");
        thread::spawn(move || collect(&socket, start))
    };
    let (sent, refused) = thread::scope(|scope| {
        let pump = scope.spawn(|| pump(&socket, to, 1000, start, &stop));
        while start.elapsed() < ms(100) {
            thread::yield_now();
        }
        stop.store(true, Ordering::SeqCst);
        pump.join().expect("pump")
    });
    let arrivals = reader.join().expect("reader").expect("collected");
    let report = report(&sent, refused, &arrivals);
    assert_eq!(report.gaps, [(5, 5)], "{report:?}");
}
