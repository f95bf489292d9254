//! Compiles the protos without a protoc on the machine.

fn main() -> anyhow::Result<()> {
    let protos = [
        "margay/v1/bgp.proto",
        "margay/v1/dataplane.proto",
        "margay/v1/node.proto",
        "margay/v1/report.proto",
    ];
    let descriptors = protox::compile(protos, ["proto"])?;
    tonic_prost_build::configure()
        // `margayctl -o json` prints the messages under the names of the protos.
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
