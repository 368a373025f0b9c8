use std::num::NonZeroI32;

use netlink_packet_core::ErrorMessage;
use nix::errno::Errno;

use super::*;

fn said(errno: Errno) -> rtnetlink::Error {
    let mut message = ErrorMessage::default();
    message.code = NonZeroI32::new(-(errno as i32));
    rtnetlink::Error::NetlinkError(message)
}

#[test]
fn a_kernel_without_vxlan_is_told_from_one_that_refuses() {
    let told = no_device(said(Errno::EOPNOTSUPP)).to_string();
    assert!(told.contains("no VXLAN") && told.contains("modprobe vxlan"), "{told}");
    assert!(!no_device(said(Errno::EPERM)).to_string().contains("modprobe"));
}
