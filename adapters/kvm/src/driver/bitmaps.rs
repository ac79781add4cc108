//! What is known of a disk's changes lies in its file, and outlives what libvirt knows of it: a server that
//! has come from another host, or was made known anew, has none of the checkpoints that those bitmaps are
//! of. Nobody would ever use them again, and each write goes on costing for each. So they are taken away
//! when the next checkpoint begins.

use adapters_libvirt::{Connection, Domain};
use commands::ports::DriverFault;
use serde::Deserialize;
use serde_json::json;

use super::snapshot::{ask, unexpected};
use crate::storage::directory::Disk;

/// A part of what QEMU says of a file that it has open.
#[derive(Deserialize)]
struct Node {
    #[serde(rename = "node-name")]
    name: String,
    drv: String,
    file: String,
    #[serde(rename = "dirty-bitmaps", default)]
    bitmaps: Vec<Bitmap>,
}

#[derive(Deserialize)]
struct Bitmap {
    #[serde(default)]
    name: String,
}

/// Takes away the bitmaps of a disk that begin so, and that are of no checkpoint that is known.
pub(super) async fn forget(
    wire: &Connection,
    domain: &Domain,
    disk: &Disk,
    (begin, known): (&str, &[String]),
) -> Result<(), DriverFault> {
    let query = json!({"execute": "query-named-block-nodes", "arguments": {"flat": true}});
    let nodes = ask(wire, domain, query).await?;
    let nodes: Vec<Node> = serde_json::from_value(nodes).map_err(unexpected)?;
    let path = disk.path.display().to_string();
    let Some(node) = nodes.into_iter().find(|node| node.drv == "qcow2" && node.file == path) else {
        return Ok(());
    };
    let left = node.bitmaps.iter().map(|bitmap| &bitmap.name);
    for name in left.filter(|name| name.starts_with(begin) && !known.contains(name)) {
        let arguments = json!({"node": node.name, "name": name});
        ask(wire, domain, json!({"execute": "block-dirty-bitmap-remove", "arguments": arguments}))
            .await?;
    }
    Ok(())
}
