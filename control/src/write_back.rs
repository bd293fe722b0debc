//! Status into the documents of a cluster, by one replica at a time.

use crate::{
    lease::Candidate,
    office::Office,
    status::{Doings, statuses},
    world::Document,
};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// Between two rounds, in which also the lease is renewed.
const ROUND: Duration = Duration::from_secs(5);
/// Documents that are written in a round, at most; the others wait for the next.
const WRITES_MAX: usize = 100;

/// What was written into a document, and the time that stands in it.
type Written = HashMap<String, (Value, String)>;

/// Writes for as long as the runtime lives. `name` is this replica's.
pub(crate) async fn write(client: Client, office: Arc<Office>, name: String) {
    let mut candidate = Candidate::new(&client, name.clone());
    let (mut doings, mut written) = (Doings::default(), Written::new());
    let mut said = String::new();
    loop {
        let mut wrong = String::new();
        match candidate.take().await {
            Ok(leads) => {
                office.counts.leads.store(leads.into(), Relaxed);
                match leads {
                    true => wrong = round(&client, &office, &name, &mut doings, &mut written).await,
                    // Another may write meanwhile.
                    false => written.clear(),
                }
            }
            Err(why) => {
                office.counts.leads.store(0, Relaxed);
                wrong = format!("the lease: {why}");
            }
        }
        if wrong != said && !wrong.is_empty() {
            eprintln!("netra-control: status is not written: {wrong}");
        }
        said = wrong;
        tokio::time::sleep(ROUND).await;
    }
}

/// Writes what is not written yet; says what went wrong last.
async fn round(
    client: &Client,
    office: &Office,
    name: &str,
    doings: &mut Doings,
    written: &mut Written,
) -> String {
    let world = office.world.borrow().clone();
    if world.generation == 0 {
        return String::new();
    }
    doings.look(&world, &office.names).await;
    let statuses = statuses(office, doings, name);
    written.retain(|place, _| statuses.contains_key(place));
    let (mut count, mut wrong) = (0, String::new());
    for (place, (document, status)) in statuses {
        let before = written.get(&place);
        if before.is_some_and(|(it, _)| *it == status) || !is_ours(&document) {
            continue;
        }
        if count == WRITES_MAX {
            break;
        }
        count += 1;
        // It counts from when the condition became another, not from when it was written.
        let word = |it: &Value| it["conditions"][0]["status"].clone();
        let same = before.filter(|(it, _)| word(it) == word(&status));
        let time = same.map_or_else(now, |(_, time)| time.clone());
        match put(client, &document, &status, &time).await {
            Ok(()) => {
                office.counts.written.fetch_add(1, Relaxed);
                written.insert(place, (status, time));
            }
            // It is gone, and the watch will say so.
            Err(kube::Error::Api(it)) if it.code == 404 => {}
            Err(why) => {
                office.counts.not_written.fetch_add(1, Relaxed);
                wrong = format!("{place}: {why}");
            }
        }
    }
    wrong
}

fn now() -> String {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string()
}

/// The status of Istio's kinds is Istio's.
fn is_ours(document: &Document) -> bool {
    let version = document.value["apiVersion"].as_str().unwrap_or_default();
    let group = version.split('/').next().unwrap_or_default();
    group == "netra.io" || group.ends_with(".aeraki.io")
}

async fn put(
    client: &Client,
    document: &Document,
    status: &Value,
    time: &str,
) -> Result<(), kube::Error> {
    let version = document.value["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &document.kind));
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &document.namespace, &resource);
    let mut status = status.clone();
    status["conditions"][0]["lastTransitionTime"] = time.into();
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(&document.name, &PatchParams::default(), &patch).await.map(drop)
}
