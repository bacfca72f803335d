//! Compiles the protobuf packages with protox, so that no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost_reflect::{DescriptorPool, prost::Message};

fn main() -> Result<(), Box<dyn Error>> {
    let files =
        ["proto/sluicegate/v1/forwarding.proto", "proto/sluicegate/v1/node.proto", "proto/sluicegate/v1/offload.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(&out, descriptors.encode_to_vec())?;

    let mut config = tonic_prost_build::Config::new();
    for message in DescriptorPool::from_file_descriptor_set(descriptors.clone())?.all_messages() {
        let name = message.full_name();
        config.type_attribute(name, "#[derive(::prost_reflect::ReflectMessage)]");
        config.type_attribute(
            name,
            format!("#[prost_reflect(descriptor_pool = \"crate::DESCRIPTORS\", message_name = \"{name}\")]"),
        );
    }
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
