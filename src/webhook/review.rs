//! An admission review and its answer (admission.k8s.io/v1): pure.

use crate::inject::{self, Wanted};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

const API: &str = "admission.k8s.io/v1";
/// On the pod: flags of its own, as a list of JSON, such as `["--env=NETRA_HTTP_PORTS=8080"]`. They go
/// before the webhook's.
const OWN_FLAGS: &str = "netra.io/inject-flags";
/// Kubernetes shows no more of a warning.
const WARNING_MAX: usize = 240;

/// The answer to a review, and a line about it for the log. Whatever is wrong with the pod, it is
/// allowed; an error is for what is no review.
pub(super) fn answer(body: &[u8], wanted: &Wanted) -> Result<(String, String), String> {
    let review: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if review["apiVersion"] != API || review["kind"] != "AdmissionReview" {
        return Err(format!("not an AdmissionReview of {API}"));
    }
    let request = &review["request"];
    let uid = request["uid"].as_str().filter(|uid| !uid.is_empty());
    let uid = uid.ok_or("the review has no request with a uid")?;
    let mut response = json!({"uid": uid, "allowed": true});
    let (patch, said, warnings) = decide(request, wanted);
    if let Some(patch) = patch {
        response["patchType"] = "JSONPatch".into();
        response["patch"] = STANDARD.encode(patch.to_string()).into();
    }
    if !warnings.is_empty() {
        let short = |text: String| text.chars().take(WARNING_MAX).collect::<String>();
        response["warnings"] = warnings.into_iter().map(short).collect();
    }
    let answer = json!({"apiVersion": API, "kind": "AdmissionReview", "response": response});
    let namespace = request["namespace"].as_str().unwrap_or("-");
    Ok((answer.to_string(), format!("{namespace}: {said}")))
}

/// The patch, what was done, and what the one who made the pod should hear.
fn decide(request: &Value, wanted: &Wanted) -> (Option<Value>, String, Vec<String>) {
    let pod = &request["object"];
    let is_new_pod = pod["kind"] == "Pod"
        && request["operation"] == "CREATE"
        && request["subResource"].as_str().unwrap_or_default().is_empty();
    if !is_new_pod {
        return (None, "not a new pod: left alone".into(), Vec::new());
    }
    let passes = |why: String| {
        let said = format!("{}: left alone: {why}", name(pod));
        (None, said, vec![format!("netra: this pod has no sidecar: {why}")])
    };
    let wanted = match flags(pod, wanted) {
        Ok(wanted) => wanted,
        Err(why) => return passes(why),
    };
    match inject::into_pod(&pod.to_string(), &wanted) {
        Ok(inject::Outcome::Made { text, warnings }) => {
            let Ok(made) = serde_json::from_str::<Value>(&text) else {
                return passes("what was made of it is no JSON".into());
            };
            let warnings =
                warnings.into_iter().map(|warning| format!("netra: {warning}")).collect();
            (Some(patch(&made)), format!("{}: injected", name(pod)), warnings)
        }
        // Nobody is to be told what they asked for.
        Ok(inject::Outcome::Skipped(why)) => {
            (None, format!("{}: left alone: {why}", name(pod)), Vec::new())
        }
        Err(why) => passes(why),
    }
}

/// `add` puts a member in the place of one that is there (RFC 6902, section 4.1).
fn patch(made: &Value) -> Value {
    json!([
        {"op": "add", "path": "/metadata/annotations", "value": made["metadata"]["annotations"]},
        {"op": "replace", "path": "/spec", "value": made["spec"]},
    ])
}

fn flags(pod: &Value, wanted: &Wanted) -> Result<Wanted, String> {
    let own = match pod["metadata"]["annotations"][OWN_FLAGS].as_str() {
        Some(text) => Wanted::from_json(text).map_err(|why| format!("{OWN_FLAGS}: {why}"))?,
        None => Wanted::default(),
    };
    Ok(own.or(wanted.clone()).named(&workload(pod)))
}

/// Pods of a deployment are called after it, a hash, and a number of their own.
fn workload(pod: &Value) -> String {
    let metadata = &pod["metadata"];
    let name = name(pod).trim_end_matches('-');
    let owner = metadata["ownerReferences"][0]["name"].as_str().unwrap_or(name);
    let hash = metadata["labels"]["pod-template-hash"].as_str().unwrap_or_default();
    let stem = owner.strip_suffix(hash).and_then(|stem| stem.strip_suffix('-'));
    stem.filter(|_| !hash.is_empty()).unwrap_or(owner).to_owned()
}

fn name(pod: &Value) -> &str {
    let metadata = &pod["metadata"];
    let name = |key: &str| metadata[key].as_str().filter(|name| !name.is_empty());
    name("name").or(name("generateName")).unwrap_or("unnamed")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the API server of 1.31 sends it for a pod of a ReplicaSet.
    const REVIEW: &str = include_str!("review.json");

    fn ask(change: impl FnOnce(&mut Value)) -> Value {
        let mut review: Value = serde_json::from_str(REVIEW).unwrap();
        change(&mut review);
        let (answer, _) = answer(review.to_string().as_bytes(), &Wanted::default()).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    fn patched(answer: &Value) -> Vec<Value> {
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        let patch = STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap();
        serde_json::from_slice(&patch).unwrap()
    }

    #[test]
    fn a_new_pod_gets_what_inject_gives() {
        let answer = ask(|_| {});
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&json!(API), &json!("AdmissionReview"))
        );
        let review: Value = serde_json::from_str(REVIEW).unwrap();
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        assert_eq!(answer["response"]["allowed"], true);
        let patch = patched(&answer);
        assert_eq!(patch[0]["path"], "/metadata/annotations");
        // What was there stays.
        assert_eq!(patch[0]["value"]["kubectl.kubernetes.io/restartedAt"], "2026-11-30T09:00:00Z");
        assert_eq!(patch[0]["value"]["netra.io/injected"], env!("CARGO_PKG_VERSION"));
        let spec = &patch[1]["value"];
        let names: Vec<_> =
            spec["initContainers"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
        assert_eq!(names, ["netra-init", "netra"]);
        assert_eq!(spec["containers"], review["request"]["object"]["spec"]["containers"]);
        assert_eq!(spec["tolerations"], review["request"]["object"]["spec"]["tolerations"]);
        let env = spec["initContainers"][1]["env"].as_array().unwrap();
        let service = env.iter().find(|it| it["name"] == "NETRA_SERVICE_NAME").unwrap();
        assert_eq!(service["value"], "shop");
    }

    #[test]
    fn flags_of_the_pod_go_before_those_of_the_webhook() {
        let flags = r#"["--env=NETRA_HTTP_PORTS=8080", "--service-name=till"]"#;
        let answer = ask(|review| {
            review["request"]["object"]["metadata"]["annotations"][OWN_FLAGS] = flags.into();
        });
        let text = patched(&answer)[1].to_string();
        assert!(text.contains(r#""value":"till""#) && text.contains("NETRA_HTTP_PORTS"), "{text}");
        let answer = ask(|review| {
            review["request"]["object"]["metadata"]["annotations"][OWN_FLAGS] = "[\"--no\"]".into();
        });
        assert_eq!(answer["response"]["allowed"], true);
        assert!(answer["response"]["warnings"][0].as_str().unwrap().contains(OWN_FLAGS));
    }

    /// Fail-open is not for the API server alone.
    #[test]
    fn whatever_is_not_for_us_passes_as_it_is() {
        type Change = fn(&mut Value);
        let cases: [Change; 6] = [
            |it| it["request"]["operation"] = "UPDATE".into(),
            |it| it["request"]["subResource"] = "ephemeralcontainers".into(),
            |it| it["request"]["object"]["kind"] = "Deployment".into(),
            |it| it["request"]["object"]["spec"]["hostNetwork"] = true.into(),
            |it| {
                it["request"]["object"]["metadata"]["annotations"]["netra.io/inject"] =
                    "disabled".into();
            },
            |it| {
                it["request"]["object"]["metadata"]["annotations"]["netra.io/injected"] =
                    "0".into();
            },
        ];
        for change in cases {
            let answer = ask(change);
            assert_eq!(answer["response"]["allowed"], true, "{answer}");
            assert!(answer["response"].get("patch").is_none(), "{answer}");
        }
        let answer = ask(|it| it["request"]["object"]["spec"] = json!({}));
        assert_eq!(answer["response"]["allowed"], true);
        assert!(answer["response"]["warnings"][0].is_string(), "{answer}");
    }

    #[test]
    fn what_is_no_review_is_refused() {
        for body in ["", "{}", "[]", r#"{"apiVersion": "admission.k8s.io/v1beta1"}"#] {
            assert!(answer(body.as_bytes(), &Wanted::default()).is_err(), "{body}");
        }
        let no_uid = json!({"apiVersion": API, "kind": "AdmissionReview", "request": {}});
        assert!(answer(no_uid.to_string().as_bytes(), &Wanted::default()).is_err());
    }
}
