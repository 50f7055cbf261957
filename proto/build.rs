//! Compiles the protocol files with protox, so that no system protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=farshore");
    let files = protox::compile(
        [
            "farshore/v1/orchestrator.proto",
            "farshore/v1/fleet.proto",
            "farshore/v1/replication.proto",
            "farshore/v1/site.proto",
        ],
        ["."],
    )?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("farshore.v1.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::MessageCodec")
        .compile_fds(files)?;
    Ok(())
}
