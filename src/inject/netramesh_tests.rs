use super::generator::Generator;
use super::inject_tests::{args, inject, reports};
use super::*;

/// netramesh's own example, with the names of its images and its command.
const NETRAMESH: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: till
spec:
  template:
    metadata:
      labels:
        app: till
    spec:
      initContainers:
      # The rules.
      - name: netra-init
        image: lookyan/netra-init:master
        env:
        - {name: OUTBOUND_INTERCEPT_PORTS, value: \"*\"} # all
        securityContext:
          capabilities:
            add:
            - NET_ADMIN
      - name: migrate
      containers:
      # The shop.
      - name: app
        image: shop:1
      # The mesh.
      - command:
          - \"sh\"
          - \"-c\"
          - \"./main --service-name ${POD_NAMESPACE}.$(echo ${POD_NAME} | sed -e 's/-[a-z0-9]*-[a-z0-9]*$//g')\"
        env:
        - name: POD_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        - name: JAEGER_AGENT_HOST
          value: \"jaeger-agent\"  # near
        - name: NETRA_HTTP_PORTS
          value: \"80,8890\"
        image: lookyan/netra-sidecar:master
        name: netra-sidecar
        securityContext:
          privileged: true
          runAsUser: 1337
      # Behind.
      - name: other
---
kind: Pod
spec:
  containers:
  - name: alone
";

#[test]
fn netramesh_makes_way_with_its_variables_and_comes_back_to_the_byte() {
    let texts = [
        NETRAMESH.to_owned(),
        NETRAMESH.replace('\n', "\r\n"),
        NETRAMESH.replace("      # Behind.\n      - name: other\n", ""),
        NETRAMESH.replace("      # The shop.\n      - name: app\n        image: shop:1\n", ""),
        NETRAMESH.split("      # Behind.\n").next().unwrap().trim_end().to_owned(),
        "{\"kind\": \"Pod\", \"spec\": {\"containers\": [{\"name\": \"a\"}, {\"name\": \"netramesh\"}]}}".to_owned(),
        "{\"kind\": \"Pod\", \"spec\": {\"containers\": [{\"name\": \"netramesh\"}, {\"name\": \"a\"}]}}".to_owned(),
    ];
    for text in texts {
        for flags in [&["--from-netramesh"][..], &["--from-netramesh", "--classic"]] {
            let once = inject(&text, flags);
            assert_ne!(once, text);
            assert_eq!(inject(&once, flags), once, "{flags:?}");
            if !text.contains("alone") {
                assert_eq!(inject(&once, &[]), once, "{flags:?}");
            }
            assert_eq!(inject(&once, &["--uninject"]), text, "{flags:?}");
        }
        assert!(reports(&text, &[])[0].did.contains("replace netramesh by --from-netramesh"));
    }
}

#[test]
fn netramesh_comes_back_to_any_manifest_to_the_byte() {
    let mut replaced = 0;
    for seed in 1..=60 {
        let text = Generator(seed).stream().replace("name: a\n", "name: netra-init\n");
        let text = text.replace("name: b", "name: netramesh");
        for flags in [&["--from-netramesh"][..], &["--from-netramesh", "--classic"]] {
            // An anchor that is repeated, or netramesh alone, is refused.
            let Ok((once, reports)) = edit(&text, &args(flags)) else { continue };
            replaced += reports.iter().filter(|r| r.did.ends_with("place of netramesh")).count();
            assert_eq!(inject(&once, flags), once, "{flags:?}");
            assert_eq!(inject(&once, &["--uninject"]), text, "{flags:?}\n{once}");
        }
    }
    assert!(replaced > 30, "{replaced}");
}

/// A formatter, or `kubectl`, may have moved the lists in the meantime.
#[test]
fn netramesh_comes_back_to_lists_that_were_moved() {
    let wide = |text: &str| -> String {
        let mut is_list = false;
        let lines = text.lines().map(|line| {
            is_list |= line == "      containers:" || line == "      initContainers:";
            is_list &= line != "---";
            let is_key = !line.starts_with("       ") && line.ends_with("ontainers:");
            match is_list && !is_key {
                true => format!("  {line}\n"),
                false => format!("{line}\n"),
            }
        });
        lines.collect()
    };
    for flags in [&["--from-netramesh"][..], &["--from-netramesh", "--classic"]] {
        let once = inject(NETRAMESH, flags);
        let (moved, wanted) = (wide(&once), wide(NETRAMESH));
        assert_ne!(moved, once);
        assert_eq!(inject(&moved, &["--uninject"]), wanted, "{flags:?}");
    }
}

#[test]
fn netra_has_what_netramesh_had() {
    let (text, reports) = edit(NETRAMESH, &args(&["--from-netramesh"])).unwrap();
    let done: Vec<_> = reports.iter().map(|report| report.did.as_str()).collect();
    assert_eq!(done[0], "injected in the place of netramesh");
    assert_eq!(done[1], "skipped: it has no netramesh, which --from-netramesh is for");
    assert_eq!(reports[0].warnings, Vec::<String>::new());
    let names: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("      - name: ")).collect();
    assert_eq!(names, ["netra-init", "netra", "migrate", "app", "other"]);
    let sidecar =
        &text[text.find("- name: netra\n").unwrap()..text.find("- name: migrate").unwrap()];
    for says in [
        "- name: POD_NAMESPACE\n          valueFrom:\n",
        "value: \"jaeger-agent\"\n",
        "- name: NETRA_HTTP_PORTS\n          value: \"80,8890\"\n        - name: NETRA_SERVICE_NAME\n          \
         value: \"$(POD_NAMESPACE).till\"\n",
    ] {
        assert!(sidecar.contains(says), "{says}: {sidecar}");
    }
    assert!(text.contains("        - name: OUTBOUND_INTERCEPT_PORTS\n          value: \"*\"\n"));
    let containers = text.split("netra.io/injected-over").last().unwrap().lines().skip(1);
    assert!(
        containers.clone().all(|line| !line.contains("privileged") && !line.contains("lookyan"))
    );
    // netra's user is another one than netramesh's may have been.
    let user = "        - {name: NETRA_SIDECAR_USER_ID, value: \"1000\"}\n        securityContext:";
    let user = NETRAMESH.replacen("        securityContext:", user, 1);
    assert_eq!(
        inject(&user, &["--from-netramesh"]).matches("NETRA_SIDECAR_USER_ID").count(),
        1,
        "kept for the way back alone"
    );
    let other = inject(NETRAMESH, &["--from-netramesh", "--env=NETRA_HTTP_PORTS=1"]);
    assert_eq!(other.matches("- name: NETRA_HTTP_PORTS\n").count(), 1);
    let (classic, _) = edit(NETRAMESH, &args(&["--from-netramesh", "--classic"])).unwrap();
    let names: Vec<&str> =
        classic.lines().filter_map(|l| l.strip_prefix("      - name: ")).collect();
    assert_eq!(names, ["netra-init", "migrate", "app", "netra", "other"]);
}
