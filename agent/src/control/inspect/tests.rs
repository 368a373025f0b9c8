use overlay::model::id::NetworkId;

use super::*;
use crate::state::store::tests::attachment;

#[test]
fn the_elements_of_an_endpoint_are_found_among_those_of_others() {
    let attachment = attachment(1, NetworkId::from_bytes([1; 16]));
    let own = attachment.endpoint.addresses[0].address;
    let rules = format!(
        "table inet overlay {{\n\tmap published {{\n\t\ttype a : b\n\t\telements = {{ tcp . 8088 : {own} . 80, tcp . 9 : {own}1 . 80,\n\t\t\t     udp . 53 : {own} . 53 }}\n\t}}\n}}\n"
    );
    let expected = [format!("map published: tcp . 8088 : {own} . 80"), format!("map published: udp . 53 : {own} . 53")];
    assert_eq!(rules_about(&rules, &attachment), expected);
}
