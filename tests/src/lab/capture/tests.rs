use super::*;

/// An outer frame to UDP `port` around `inner`, with VNI 0x000102.
fn outer(port: u16, inner: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45]);
    frame.extend([0; 8]);
    frame.push(17);
    frame.extend([0; 10]);
    frame.extend([0xc0, 0x00]);
    frame.extend(port.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend([8, 0, 0, 0, 0x00, 0x01, 0x02, 0]);
    frame.extend(inner);
    frame
}

fn inner(to: u8, ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![to; 6];
    frame.extend([2; 6]);
    frame.extend(ethertype);
    frame.extend(payload);
    frame
}

#[test]
fn the_inner_frame_and_its_vni_are_found() {
    let ping = inner(2, [8, 0], &[0x45]);
    assert_eq!(decapsulate(&outer(4789, &ping), 4789), Some((0x102, &ping[..])));
    assert_eq!(decapsulate(&outer(4790, &ping), 4789), None);
    assert_eq!(decapsulate(&outer(4789, &ping)[..40], 4789), None);
}

#[test]
fn frames_are_told_apart_by_what_they_are() {
    let mut solicitation = vec![0; 41];
    (solicitation[6], solicitation[40]) = (58, 135);
    assert_eq!(classify(&inner(0xff, [8, 6], &[])), Inner::Arp);
    assert_eq!(classify(&inner(2, [8, 6], &[])), Inner::Arp);
    assert_eq!(classify(&inner(0x33, [0x86, 0xdd], &solicitation)), Inner::NeighbourDiscovery);
    assert_eq!(classify(&inner(0xff, [8, 0], &[])), Inner::Group);
    assert_eq!(classify(&inner(2, [8, 0], &[])), Inner::Unicast);
}

#[test]
fn a_pcap_file_is_split_into_frames() {
    let mut pcap = Vec::from(0xa1b2_c3d4_u32.to_ne_bytes());
    pcap.extend([0; 20]);
    for frame in [&b"one"[..], b"three"] {
        let length = u32::try_from(frame.len()).expect("short").to_ne_bytes();
        pcap.extend([0; 8]);
        pcap.extend(length);
        pcap.extend(length);
        pcap.extend(frame);
    }
    assert_eq!(frames(&pcap), Some(vec![&b"one"[..], b"three"]));
    assert_eq!(frames(&pcap[..pcap.len() - 1]), None);
}
