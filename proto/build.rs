//! Compiles the `.proto` files with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["types", "vault", "provision", "audit", "keeper_link"]
        .map(|name| format!("weightvault/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=weightvault");
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().bytes(".weightvault.v1.FetchUnitsResponse.data").compile_fds(descriptors)?;
    Ok(())
}
