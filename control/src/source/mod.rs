//! Where the world is read: a directory, etcd, or Kubernetes.

pub(crate) mod directory;
pub(crate) mod etcd;
pub(crate) mod kubernetes;

use crate::world::World;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long it has to be quiet before what changed is told, and how long that may take.
const QUIET: Duration = Duration::from_millis(50);
const AT_MOST: Duration = Duration::from_millis(250);

/// How a source tells what it knows. It tells all of it each time; its place in a queue of one is
/// taken by what is newer.
pub(crate) type Tell = mpsc::Sender<World>;

/// YAML of one or many documents, or of a list, as JSON.
///
/// # Errors
/// It is no YAML; the message says where.
pub(crate) fn documents(text: &str) -> Result<Vec<serde_json::Value>, String> {
    let values: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(text).map_err(|why| why.to_string())?;
    let mut documents = Vec::new();
    for value in values {
        match value.get("items").and_then(|items| items.as_array()) {
            Some(items) => documents.extend(items.iter().cloned()),
            None if value.is_null() => {}
            None => documents.push(value),
        }
    }
    Ok(documents)
}
