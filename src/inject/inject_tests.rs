use super::generator::Generator;
use super::*;
use clap::{Command, FromArgMatches};
use std::path::Path;

pub(super) fn args(flags: &[&str]) -> InjectArgs {
    let command = InjectArgs::augment_args(Command::new("inject"));
    let matches = command.get_matches_from([&["inject"], flags].concat());
    InjectArgs::from_arg_matches(&matches).unwrap()
}

pub(super) fn inject(text: &str, flags: &[&str]) -> String {
    edit(text, &args(flags)).unwrap_or_else(|error| panic!("{error}\n{text}")).0
}

pub(super) fn reports(text: &str, flags: &[&str]) -> Vec<Report> {
    edit(text, &args(flags)).unwrap().1
}

/// What is said of the only pod.
fn warnings(text: &str, flags: &[&str]) -> String {
    reports(text, flags).remove(0).warnings.join("\n")
}

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
spec:
  template:
    spec:
      containers:
      - name: app
        image: shop:1
";

/// Ways of injection.
const WAYS: [&[&str]; 5] = [
    &[],
    &["--classic"],
    &["--rules-config-map=shop-rules"],
    &["--classic", "--rules-config-map=a.b"],
    &["--env=NETRA_HTTP_PORTS=80", "--env=A='\"\\ é", "--init-arg=--backend=nft-native"],
];

/// There and back, twice; from one way to another; what is said does not change.
fn assert_exact(text: &str) {
    for flags in WAYS {
        let once = inject(text, flags);
        assert_eq!(inject(&once, flags), once, "{flags:?}");
        assert_eq!(inject(&once, &[]), once, "the flags of {flags:?} are kept");
        assert!(
            edit(&once, &args(&[flags, &["--check"]].concat()))
                .unwrap()
                .1
                .iter()
                .all(|r| !r.differs)
        );
        assert_eq!(inject(&once, &["--uninject"]), text, "{flags:?}\n{once}");
    }
    let native = inject(&inject(text, &["--classic"]), &["--classic=false"]);
    assert_eq!(inject(&native, &["--uninject"]), text);
}

#[test]
fn every_manifest_of_the_repository_comes_back_to_the_byte() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/kubernetes");
    for name in ["app.yaml", "kustomize/example/shop.yaml"] {
        let text = fs::read_to_string(root.join(name)).unwrap();
        assert!(inject(&text, &[]).len() > text.len() + 1000);
        assert_exact(&text);
        assert_exact(&text.replace('\n', "\r\n"));
        assert_exact(text.trim_end());
        assert_exact(&format!("\u{feff}{text}"));
    }
    for name in ["native.yaml", "classic.yaml"] {
        let text = fs::read_to_string(root.join(name)).unwrap();
        assert!(inject(&text, &["--uninject"]).len() < text.len() - 1000);
    }
}

#[test]
fn odd_manifests_come_back_to_the_byte() {
    let odd = [
        // Comments everywhere, one of them with a tab; lists with a step; block scalars at the end.
        "# head\nkind: Pod # a pod\nmetadata: # m\n  # of labels\n  labels: {a: b} # flow\n\nspec: # s\n\n  # \ttab\n  \
         containers: # c\n    # the app\n    - name: app # n\n      args:\n        - |+\n          x\n\n\n  # end\n# all\n",
        "kind: Pod\nmetadata: {}\nspec:\n  initContainers: []   # none\n  containers:\n  - name: app\n    command: [a,\n      b]\n",
        "kind: Pod\nmetadata: {  }\nspec:\n  initContainers:   # none\n  containers:\n  - name: app\n    args:\n    - >-\n      # no comment\n      x",
        "kind: Pod\nmetadata: ~\nspec: {initContainers: null, containers: [{name: app}, {name: b}]}\n...\n",
        "kind: Pod\nmetadata:\n  annotations:\nspec:\n  initContainers:\n\n  # a\n  - name: a\n\n  # b\n  - name: b\n\n  # c\n  containers:\n  - name: app\n",
        "kind: Pod\nmetadata:\n  annotations: {\"x\": 'it''s'}\nspec:\n  containers: [ {name: app} ] # c\n  initContainers: [\n    # why\n    {name: a},\n    {name: b}\n  ]\n",
        // Anchors that are none of our business, and a tag.
        "kind: Pod\nmetadata:\n  labels: &l\n    a: b\n  annotations: &x\n    p: q\nspec:\n  containers: &c\n  - &app !!map\n    name: app\n  labels: *l\n",
        "{\"kind\": \"List\", \"items\": [\n\t{\n\t\t\"kind\": \"Pod\",\n\t\t\"spec\": {\"containers\": [{\"name\": \"app\"}]}\n\t}\n]}",
        "{\"kind\":\"Pod\",\"spec\":{\"containers\":[{\"name\":\"app\"}],\"initContainers\":[]},\"metadata\":{\"annotations\":null}}",
        "kind: List\nitems:\n- spec:\n    containers:\n    - name: app\n  kind: Pod\n# between\n-   kind: Pod\n    spec:\n      containers:\n      -   name: app\n          image: x\n",
        "--- # one\nkind: Service\n---\n# only this\n---\n? kind\n: Pod\nspec:\n   containers:\n    - name: \"netr\u{e9}\"\n      env: [{name: A, value: \"\\\"#\"}]   # \u{e9}\n",
    ];
    for text in odd {
        assert_exact(text);
        if !text.contains("\r") {
            assert_exact(&text.replace('\n', "\r\n"));
        }
        assert_exact(text.trim_end());
    }
}

#[test]
fn what_could_not_come_back_is_refused_and_nothing_is_written() {
    for (text, says) in [
        ("kind: Deployment\nmetadata: {name: x}\n", "deployment/x: has no spec.template"),
        ("kind: Pod\nmetadata: {name: x}\nspec: {}\n", "pod/x: has no containers"),
        ("kind: Pod\nspec: [\n", "line "),
        ("kind: Pod\nspec:\n  containers: []\n", "pod/unnamed: containers is not what"),
        (
            "kind: Pod\nspec: &s\n  containers:\n  - name: a\nother: *s\n",
            "pod/unnamed: spec is repeated elsewhere by its anchor: write it twice",
        ),
        (
            "kind: Pod\nspec:\n  x: &x []\n  initContainers: *x\n  containers:\n  - name: a\n",
            "pod/unnamed: initContainers is not what it should be (an alias?)",
        ),
        // A dash with a comment behind it is no place to find again.
        (
            "kind: Pod\nspec:\n  containers:\n  - # odd\n    name: a\n",
            "pod/unnamed: a list item has a comment behind its dash",
        ),
    ] {
        let error = edit(text, &args(&[])).unwrap_err();
        assert!(error.starts_with(says), "{error}");
    }
    let error = edit(DEPLOYMENT, &args(&["--env=novalue"])).unwrap_err();
    assert_eq!(error, "deployment/shop: --env: bad value \"novalue\": allowed is NAME=VALUE");
    let error = edit(DEPLOYMENT, &args(&["--path=Rollout"])).unwrap_err();
    assert!(error.starts_with("--path: bad value \"Rollout\": allowed is KIND="), "{error}");
}

/// What somebody changed by hand since stays, and ours still goes.
#[test]
fn changes_since_the_injection_are_kept() {
    let once = inject(DEPLOYMENT, &[]);
    let changed = once.replace("image: shop:1", "image: shop:2 # newer");
    let changed = changed.replace("      - name: netra\n", "      # a note\n      - name: netra\n");
    let back = inject(&changed, &["--uninject"]);
    assert_eq!(back, DEPLOYMENT.replace("image: shop:1", "image: shop:2 # newer"));
    // Keys sorted and quotes gone, as by kubectl: the same but for that.
    let sorted = once.replace("value: \"shop\"", "value: shop");
    assert!(!edit(&sorted, &args(&["--check"])).unwrap().1[0].differs);
    assert_eq!(inject(&sorted, &["--uninject"]), DEPLOYMENT);
}

#[test]
fn an_old_injection_without_a_record_is_taken_out() {
    // As 0.1.0 wrote it.
    let old = "kind: Pod\nmetadata:\n  annotations:\n    netra.io/injected: \"0.1.0\"\nspec:\n  \
               initContainers:\n  - name: netra-init\n  - name: netra\n  containers:\n  - name: app\n";
    assert_eq!(inject(old, &["--uninject"]), "kind: Pod\nspec:\n  containers:\n  - name: app\n");
}

#[test]
fn native_sidecars_go_first_and_classic_ones_last() {
    let with_init = DEPLOYMENT.replace(
        "      containers:",
        "      initContainers:\n      - name: migrate\n      containers:",
    );
    let order = |flags: &[&str]| -> Vec<String> {
        let text = inject(&with_init, flags);
        let names = text.lines().filter_map(|line| line.strip_prefix("      - name: "));
        names.map(str::to_owned).collect()
    };
    assert_eq!(order(&[]), ["netra-init", "netra", "migrate", "app"]);
    assert_eq!(order(&["--classic"]), ["migrate", "netra-init", "app", "netra"]);
}

#[test]
fn arguments_arrive() {
    let text = inject(
        DEPLOYMENT,
        &[
            "--service-name=till",
            "--env-field=JAEGER_AGENT_HOST=status.hostIP",
            "--env=NETRA_HTTP_PORTS=80,8080",
            "--init-arg=--exclude-inbound-ports=22",
            "--image=reg/netra@sha256:0",
            "--seccomp-profile=netra-seccomp.json",
            "--cpu-request=50m",
            "--memory-limit=99Mi",
        ],
    );
    for says in [
        "value: \"till\"",
        "- name: NETRA_HTTP_PORTS\n          value: \"80,8080\"",
        "- name: JAEGER_AGENT_HOST\n          valueFrom:\n            fieldRef:\n              \
         fieldPath: \"status.hostIP\"",
        "- \"--exclude-inbound-ports=22\"",
        "image: \"reg/netra@sha256:0\"",
        "type: \"Localhost\"\n            localhostProfile: \"netra-seccomp.json\"",
        "cpu: \"50m\"",
        "memory: \"99Mi\"",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
}

#[test]
fn ports_move_wherever_they_are_told() {
    let moved = ["--env=NETRA_PROMETHEUS_PORT=9102", "--env=NETRA_PORT=15001"];
    let text = inject(DEPLOYMENT, &moved);
    assert_eq!(text.matches("containerPort: 9102\n").count(), 1);
    assert_eq!(text.matches("port: 9102\n").count(), 3);
    assert!(text.contains("- \"--sidecar-port=15001\"\n"), "{text}");
    assert!(text.contains("- \"--own-ports=15001,14957,9102\"\n"), "{text}");
    assert!(!text.contains("14958"));
    assert!(!inject(DEPLOYMENT, &[]).contains("-ports"));
}

#[test]
fn rules_are_mounted_where_netra_looks() {
    let flag = "--rules-config-map=shop-rules";
    let text = inject(DEPLOYMENT, &[flag, HTTP]);
    for says in [
        "- name: NETRA_RULES\n          value: \"/etc/netra/rules\"\n",
        "volumeMounts:\n        - name: netra-rules\n          mountPath: /etc/netra/rules\n          \
         readOnly: true\n",
        "      volumes:\n      - name: netra-rules\n        configMap:\n          \
         name: \"shop-rules\"\n      containers:\n",
    ] {
        assert_eq!(text.matches(says).count(), 1, "{says}: {text}");
    }
    // Other volumes, and a place of the author's own.
    let with =
        format!("{DEPLOYMENT}      volumes: # v\n      - name: data\n        emptyDir: {{}}\n");
    let text = inject(&with, &[flag, "--env=NETRA_RULES=/etc/netra/rules/one.yaml"]);
    assert!(text.contains("      volumes: # v\n      - name: netra-rules\n"), "{text}");
    assert_eq!(text.matches("NETRA_RULES\n").count(), 1, "{text}");
    // It is kept, changed and taken back as other flags are.
    assert_eq!(inject(&text, &[]), text);
    let other = inject(&text, &["--rules-config-map=other"]);
    assert_eq!(other, text.replace("shop-rules", "other"));
    assert_eq!(inject(&other, &["--uninject"]), with);
    let without = inject(&other, &["--rules-config-map="]);
    assert!(!without.contains("volumeMounts") && !without.contains("netra-rules"), "{without}");
    // What is not ours stays.
    let taken = with.replace("name: data", "name: netra-rules");
    assert_eq!(inject(&inject(&taken, &[]), &["--uninject"]), taken);
    let error = edit(&taken, &args(&[flag])).unwrap_err();
    assert_eq!(error, "deployment/shop: has another volume called netra-rules");
    let error = edit(DEPLOYMENT, &args(&["--rules-config-map=A_b"])).unwrap_err();
    assert!(error.contains("--rules-config-map: bad value \"A_b\""), "{error}");
}

/// netra dials for a guest what it would not dial for a neighbour, so it has to know them, too.
#[test]
fn guests_are_told_to_both_containers() {
    let variable = "- name: NETRA_REROUTE_INTERFACES\n          value: \"docker0,k6t*\"";
    let count = |flags: &[&str]| inject(DEPLOYMENT, flags).matches(variable).count();
    assert_eq!(count(&[]), 0);
    assert_eq!(count(&["--env=NETRA_REROUTE_INTERFACES=docker0,k6t*"]), 2);
    assert_eq!(count(&["--init-arg=--reroute-interfaces=docker0,k6t*"]), 1);
    assert_eq!(count(&["--init-arg=--reroute-virtual-interfaces=docker0,k6t*"]), 1);
    assert_eq!(count(&["--init-arg=--reroute-interfaces", "--init-arg=docker0,k6t*"]), 1);
    assert_eq!(count(&["--env=NETRA_REROUTE_INTERFACES_X=docker0,k6t*"]), 0);
}

#[test]
fn net_raw_is_given_to_old_iptables_only() {
    for (flags, has) in [
        (&[][..], false),
        (&["--init-arg=--backend=nft-native"], false),
        (&["--init-arg=--backend=iptables-nft"], false),
        (&["--init-arg=--backend=iptables-legacy"], true),
        (&["--init-arg=--backend", "--init-arg=iptables-legacy"], true),
        (&["--init-image=reg/netra-init-iptables:1"], true),
        (&["--init-image=reg/netra-init-iptables:1", "--init-arg=--backend=iptables-nft"], false),
    ] {
        assert_eq!(inject(DEPLOYMENT, flags).contains("- NET_RAW\n"), has, "{flags:?}");
    }
}

#[test]
fn injecting_again_keeps_what_it_was_told() {
    let told = ["--classic", "--env=NETRA_HTTP_PORTS=80", "--env=A=1", "--init-arg=--mode=none"];
    let once = inject(DEPLOYMENT, &told);
    assert_eq!(inject(&once, &[]), once);
    // What is given anew comes in its place, a variable by its name.
    let again = inject(&once, &["--env=A=2", "--classic=false"]);
    let wanted =
        ["--classic=false", "--env=NETRA_HTTP_PORTS=80", "--env=A=2", "--init-arg=--mode=none"];
    assert_eq!(again, inject(DEPLOYMENT, &wanted));
    // In its place, because what follows may refer to it.
    let two = inject(DEPLOYMENT, &["--env=HOST=a", "--env=NETRA_STATSD_ADDRESS=$(HOST):1"]);
    let wanted = ["--env=HOST=b", "--env=NETRA_STATSD_ADDRESS=$(HOST):1"];
    assert_eq!(inject(&two, &["--env=HOST=b"]), inject(DEPLOYMENT, &wanted));
    assert_eq!(inject(&again, &["--uninject"]), DEPLOYMENT);
}

#[test]
fn check_tells_whether_it_is_injected_as_these_flags_would() {
    let check = |text: &str, flags: &[&str]| {
        let report = reports(text, &[flags, &["--check"]].concat()).remove(0);
        (report.differs, report.did)
    };
    let good = (false, "is injected as it should be".to_owned());
    let other = (true, "is injected, but not as it would be now".to_owned());
    assert_eq!(check(DEPLOYMENT, &[]), (true, "is not injected".to_owned()));
    let once = inject(DEPLOYMENT, &["--env=NETRA_HTTP_PORTS=80"]);
    assert_eq!(check(&once, &[]), good);
    assert_eq!(check(&once, &["--env=NETRA_HTTP_PORTS=80"]), good);
    assert_eq!(check(&once, &["--env=NETRA_HTTP_PORTS=81"]), other);
    assert_eq!(check(&once, &["--classic"]), other);
    assert_eq!(check(&once.replace("readOnlyRootFilesystem: true", "x: 1"), &[]), other);
    assert_eq!(check(&once.replace("injected: \"", "injected: \"0."), &[]), other);
    let host = DEPLOYMENT.replace("    spec:\n", "    spec:\n      hostNetwork: true\n");
    assert!(!check(&host, &[]).0);
}

#[test]
fn every_kind_with_pods_and_no_other() {
    let cron = "kind: CronJob\nmetadata: {name: c}\nspec:\n  jobTemplate:\n    spec:\n      \
                template:\n        spec:\n          containers: [{name: app}]\n";
    let pod = "kind: Pod\nmetadata:\n  generateName: p-\nspec:\n  containers:\n  - name: app\n";
    let list = format!("kind: List\nitems:\n- {}", pod.trim_end().replace('\n', "\n  "));
    let service = "kind: Service\nmetadata:\n  name: s\n";
    let all = [cron, pod, &list, service].join("---\n").replace("app---", "app\n---");
    let (text, reports) = edit(&all, &args(&[])).unwrap();
    let done: Vec<_> = reports.iter().map(|r| format!("{} {}", r.object, r.did)).collect();
    assert_eq!(done, ["cronjob/c injected", "pod/p injected", "pod/p injected"]);
    assert_eq!(text.matches("netra.io/injected").count(), 3);
    assert!(text.ends_with("---\nkind: Service\nmetadata:\n  name: s\n"));
}

#[test]
fn kinds_of_others_are_told_by_their_path() {
    let rollout = DEPLOYMENT.replace("kind: Deployment", "kind: Rollout");
    let report = reports(&rollout, &[]).remove(0);
    assert_eq!(
        report.did,
        "skipped: this kind is not known, and looks as if it had pods: --path Rollout=spec.template"
    );
    assert_eq!(inject(&rollout, &[]), rollout);
    let once = inject(&rollout, &["--path=Rollout=spec.template"]);
    assert_eq!(once, inject(DEPLOYMENT, &[]).replace("kind: Deployment", "kind: Rollout"));
    // Its annotation tells of it from now on.
    assert_eq!(inject(&once, &[]), once);
    assert_eq!(inject(&once, &["--uninject"]), rollout);
    let error = edit(&rollout, &args(&["--path=Rollout=spec.pod"])).unwrap_err();
    assert_eq!(error, "rollout/shop: has no spec.pod");
}

#[test]
fn what_must_not_be_injected_is_skipped_and_says_why() {
    let did = |text: &str| reports(text, &[]).remove(0).did;
    let host = DEPLOYMENT.replace("    spec:\n", "    spec:\n      hostNetwork: true\n");
    assert!(did(&host).starts_with("skipped: hostNetwork"));
    let no = "    metadata:\n      annotations:\n        netra.io/inject: disabled\n    spec:\n";
    assert!(did(&DEPLOYMENT.replace("    spec:\n", no)).starts_with("skipped: annotation"));
    let windows = DEPLOYMENT.replace("    spec:\n", "    spec:\n      os: {name: windows}\n");
    assert!(did(&windows).starts_with("skipped: its nodes have Windows"));
    // Put there by somebody else: by hand, by kustomize.
    let by_hand = DEPLOYMENT.replace("name: app", "name: netra");
    assert!(did(&by_hand).starts_with("skipped: it has containers of netra or netramesh"));
    assert_eq!(inject(&by_hand, &["--uninject"]), by_hand);
}

const HTTP: &str = "--env=NETRA_HTTP_PORTS=80";

#[test]
fn what_will_not_work_is_warned_of_with_its_remedy() {
    let pod = |lines: &str| DEPLOYMENT.replace("    spec:\n", &format!("    spec:\n{lines}"));
    let app = |lines: &str| format!("{DEPLOYMENT}{lines}");
    assert_eq!(warnings(DEPLOYMENT, &[HTTP]), "");
    for (text, flags, says) in [
        (
            app("        securityContext:\n          runAsUser: 1337\n"),
            &[][..],
            "app runs as 1337: its traffic would bypass netra; set another runAsUser and runAsGroup",
        ),
        (
            pod("      securityContext: {runAsGroup: 1337}\n"),
            &[],
            "the pod runs as 1337: its traffic would bypass netra; set another runAsUser",
        ),
        (
            app("        livenessProbe:\n          tcpSocket:\n            port: 1\n"),
            &[],
            "tcpSocket probe",
        ),
        (
            pod("      terminationGracePeriodSeconds: 25\n"),
            &[],
            "terminationGracePeriodSeconds is 25, and netra drains for 25000 ms: connections would \
             be cut; set it to 30, or --env NETRA_DRAIN_MS=20000",
        ),
        (
            DEPLOYMENT.to_owned(),
            &["--env=NETRA_DRAIN_MS=60000"],
            "terminationGracePeriodSeconds is 30, and netra drains for 60000 ms",
        ),
        (
            DEPLOYMENT.replace("Deployment", "Job"),
            &["--classic"],
            "the job will not end, because a plain sidecar goes on: leave out --classic",
        ),
        (pod("      restartPolicy: Never\n"), &["--classic"], "the job will not end"),
        (
            DEPLOYMENT.to_owned(),
            &["--env=NETRA_LOG_LEVEL=debug"],
            "NETRA_LOG_LEVEL is no setting of netra: NETRA_LOGGER_LEVEL is; is it spelled wrong?",
        ),
        (
            DEPLOYMENT.to_owned(),
            &["--env=OTEL_EXPORTER_OLTP_ENDPOINT=http://a"],
            "OTEL_EXPORTER_OLTP_ENDPOINT is no setting of netra: OTEL_EXPORTER_OTLP_ENDPOINT is",
        ),
        (
            DEPLOYMENT.to_owned(),
            &["--env=NETRA_NOSUCH=1"],
            "NETRA_NOSUCH is no setting of netra; `netra settings` lists them",
        ),
        (
            DEPLOYMENT.to_owned(),
            &["--env=NETRA_SHARDS=many"],
            "netra would not start: NETRA_SHARDS=many: allowed is auto, or a whole number",
        ),
    ] {
        let warned = warnings(&text, &[flags, &[HTTP]].concat());
        assert!(warned.contains(says), "{says}: {warned}");
        assert_eq!(warned.lines().count(), 1, "{warned}");
    }
    // Names of the user's own, and values that the cluster makes, are none of ours.
    let own = ["--env-field=HOST_IP=status.hostIP", "--env=NETRA_SHARDS=$(N)", "--env=DEBUG=1"];
    assert_eq!(warnings(DEPLOYMENT, &[&own[..], &[HTTP]].concat()), "");
}

#[test]
fn missing_http_ports_are_warned_of_with_those_of_the_pod() {
    let ports = format!(
        "{DEPLOYMENT}        ports:\n        - containerPort: 81\n        - containerPort: 82\n"
    );
    for (text, says) in [(DEPLOYMENT, "=80,8080 (for example)"), (&ports, "=81,82 (the pod's")] {
        let warned = warnings(text, &[]);
        assert!(warned.starts_with("no NETRA_HTTP_PORTS: netra relays and counts connections"));
        assert!(warned.contains(&format!("--env NETRA_HTTP_PORTS{says}")), "{warned}");
    }
    assert_eq!(warnings(DEPLOYMENT, &["--env=NETRA_HTTP_PORTS="]), "");
    assert_eq!(warnings(DEPLOYMENT, &["--env=NETRA_PROTOCOLS=6379=redis"]), "");
}

/// Texts that are not whole, or have a letter too many: an error or an exact way back, no panic.
#[test]
fn damaged_manifests_are_refused_or_come_back_to_the_byte() {
    let (mut refused, mut good) = (0, 0);
    for seed in 1..=250 {
        let mut numbers = Generator(seed * 7);
        let mut text: Vec<char> = numbers.stream().chars().collect();
        let at = numbers.below(text.len());
        match numbers.below(3) {
            0 => text.truncate(at),
            1 => drop(text.remove(at)),
            _ => text.insert(
                at,
                [' ', '\n', '-', ':', '}', '"', '\t', '#', 'é', '&'][numbers.below(10)],
            ),
        }
        let text: String = text.into_iter().collect();
        match edit(&text, &args(&[])) {
            Ok((out, _)) => assert_eq!(inject(&out, &["--uninject"]), text),
            Err(_) => refused += 1,
        }
        good += 1;
    }
    assert!(refused > 10 && good - refused > 100, "{refused} of {good}");
}

#[test]
fn generated_manifests_come_back_to_the_byte() {
    for seed in 1..=40 {
        let text = Generator(seed).stream();
        assert_exact(&text);
        let (out, base) = (yaml::read(&inject(&text, &[])).unwrap(), yaml::read(&text).unwrap());
        assert_eq!(out.len(), base.len());
    }
}
