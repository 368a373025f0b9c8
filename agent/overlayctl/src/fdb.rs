//! `overlayctl fdb`.

use overlay_proto::v1::NetworkRef;

use crate::client::Client;
use crate::output::{Failure, Format, or_dash, print};

pub async fn run(network: String, client: &Client, format: Format) -> Result<(), Failure> {
    let rows = client.connect().await?.list_fdb(NetworkRef { network }).await?.into_inner().rows;
    let header = ["MAC", "ADDRESS", "NAME", "HOST", "VTEP", "VNI", "IN KERNEL"];
    let cells = rows.iter().map(|r| {
        let vtep = if r.vtep.is_empty() { "(here)".to_owned() } else { r.vtep.clone() };
        let (name, host) = (or_dash(r.name.clone()), or_dash(r.host.clone()));
        [r.mac.clone(), or_dash(r.addresses.join(" ")), name, host, vtep, r.vni.to_string(), r.kernel.clone()]
    });
    print(format, &rows, header, cells)
}
