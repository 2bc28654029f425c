//! Compiles the `.proto` files with protox, so that no `protoc` is needed.

/// Bulk ciphertext: `Bytes`, so that a message is a slice of the frame it came in.
const BULK: [&str; 2] = [".weightvault.v1.FetchUnitsResponse.data", ".weightvault.v1.UploadUnitRequest.data"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["v1/types", "v1/vault", "v1/provision", "v1/audit", "v1/keeper_link", "agent/v1/agent"]
        .map(|name| format!("weightvault/{name}.proto"));
    println!("cargo:rerun-if-changed=weightvault");
    let descriptors = protox::compile(files, ["."])?;
    let mut config = tonic_prost_build::configure();
    for field in BULK {
        config = config.bytes(field);
    }
    config.compile_fds(descriptors)?;
    Ok(())
}
