//! Compiles the protobuf files with protox, so that no `protoc` has to be installed.

#![forbid(unsafe_code)]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["overlay/v1/control.proto", "overlay/v1/peer.proto", "overlay/v1/record.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure()
        .btree_map(".")
        // The field names are the stable keys of `overlayctl -o json`.
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .compile_fds(descriptors)?;
    Ok(())
}
