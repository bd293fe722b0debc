//! The validating webhook: says no at `kubectl apply`. Pure.

use crate::{
    scope::{Index, Names},
    vet,
    world::{Document, World},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers a review (`admission.k8s.io/v1`): with the answer, whether the object is good.
///
/// # Errors
/// It is no review; the message says what is missing.
pub(crate) fn review(body: &[u8], world: &World, names: &Names) -> Result<(String, bool), String> {
    let review: Value = serde_json::from_slice(body).map_err(|why| format!("no JSON: {why}"))?;
    let request = review.get("request").ok_or("no AdmissionReview: `request` is missing")?;
    let uid = request.get("uid").and_then(Value::as_str).ok_or("`request.uid` is missing")?;
    let is_gone = request.get("operation").and_then(Value::as_str) == Some("DELETE");
    let wrong = match request.get("object").filter(|_| !is_gone) {
        None | Some(Value::Null) => Vec::new(),
        Some(object) => judge(object, request, world, names),
    };
    let is_good = wrong.is_empty();
    let mut response = json!({"uid": uid, "allowed": is_good});
    if !is_good {
        response["status"] = json!({"code": 422, "message": wrong.join("; ")});
    }
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
    });
    Ok((answer.to_string(), is_good))
}

/// What would be wrong if the object stood among the others.
fn judge(object: &Value, request: &Value, world: &World, names: &Names) -> Vec<String> {
    let mut object = object.clone();
    // Of a new object the namespace may stand beside it only.
    if let Some(namespace) = request.get("namespace").filter(|it| it.is_string())
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.entry("namespace").or_insert(namespace.clone());
    }
    let Some(document) = Document::new("the object", object) else {
        return vec!["kind or metadata.name is missing".to_owned()];
    };
    let mut world = world.clone();
    world.documents.retain(|it| {
        (&it.kind, &it.namespace, &it.name) != (&document.kind, &document.namespace, &document.name)
    });
    let namespace = document.namespace.clone();
    world.documents.push(Arc::new(document));
    let parts = Index::of(&world, names).select(&world, &namespace, names).parts(names);
    let errors = vet::errors(&parts, &namespace);
    errors.into_iter().filter(|(place, _)| place == "the object").map(|(_, why)| why).collect()
}
