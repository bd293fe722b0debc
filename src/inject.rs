//! `netra inject`: manifests in, manifests with the sidecar out. No server, no cluster: it fits
//! between `kubectl kustomize` and `kubectl apply`, and into what GitOps commits.

mod pod;
mod yaml;

use crate::exit::Exit;
use clap::Args;
use std::{
    fs,
    io::{self, Read, Write},
};

/// Adds the sidecar to manifests, or takes it out
#[derive(Clone, Debug, Args)]
pub(crate) struct InjectArgs {
    /// File with the manifests; - is standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", default_value = "-")]
    filename: String,
    /// Take out what was injected
    #[arg(long)]
    uninject: bool,
    /// A plain container, for clusters before 1.29, which have no native sidecars
    #[arg(long)]
    classic: bool,
    /// Image of the sidecar
    #[arg(long, value_name = "IMAGE", default_value = concat!("netra:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// Image of netra-init
    #[arg(long, value_name = "IMAGE",
        default_value = concat!("netra-init:", env!("CARGO_PKG_VERSION")))]
    init_image: String,
    /// Service name in spans and logs, if not the name of the workload
    #[arg(long, value_name = "NAME")]
    service_name: Option<String>,
    /// A setting of the sidecar; again for more
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A flag of netra-init, such as --exclude-inbound-ports=22; again for more
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    init_arg: Vec<String>,
    /// seccomp profile on the nodes that allows io_uring, such as netra-seccomp.json
    #[arg(long, value_name = "FILE")]
    seccomp_profile: Option<String>,
}

/// Largest input: whole clusters fit.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Writes the manifests to standard output, or nothing if something is wrong with them.
pub(crate) fn run(args: &InjectArgs) -> Exit {
    let edited = input(&args.filename).and_then(|text| edit(&text, args));
    match edited {
        Ok((text, reports)) => {
            for report in reports {
                eprintln!("netra inject: {}: {}", report.object, report.did);
                for warning in &report.warnings {
                    eprintln!("netra inject: {}: warning: {warning}", report.object);
                }
            }
            let _ = io::stdout().write_all(text.as_bytes());
            Exit::DONE
        }
        Err(error) => {
            eprintln!("netra inject: {}: {error}", args.filename);
            Exit::CONFIG
        }
    }
}

fn edit(text: &str, args: &InjectArgs) -> Result<(String, Vec<pod::Report>), String> {
    let mut documents = yaml::read(text)?;
    let mut reports = Vec::new();
    for document in &mut documents {
        reports.extend(pod::edit(document, args)?);
    }
    // Documents of nothing but comments have become nothing.
    documents.retain(|document| !document.is_empty());
    Ok((yaml::write(&documents), reports))
}

fn input(name: &str) -> Result<String, String> {
    let mut text = String::new();
    let read = match name {
        "-" => io::stdin().take(INPUT_BYTES_MAX + 1).read_to_string(&mut text),
        path => fs::File::open(path)
            .and_then(|file| file.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text)),
    };
    match read {
        Ok(length) if length as u64 > INPUT_BYTES_MAX => {
            Err(format!("more than {INPUT_BYTES_MAX} bytes"))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches};

    fn args(flags: &[&str]) -> InjectArgs {
        let command = InjectArgs::augment_args(Command::new("inject"));
        let matches = command.get_matches_from([&["inject"], flags].concat());
        InjectArgs::from_arg_matches(&matches).unwrap()
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

    #[test]
    fn twice_is_once_and_uninject_is_the_way_back() {
        for flags in [&[][..], &["--classic"]] {
            let (once, _) = edit(DEPLOYMENT, &args(flags)).unwrap();
            assert_eq!(edit(&once, &args(flags)).unwrap().0, once);
            assert_eq!(once.matches("- name: netra-init").count(), 1);
            let back = edit(&once, &args(&["--uninject"])).unwrap();
            assert_eq!(back.0, DEPLOYMENT);
            assert_eq!(back.1[0].did, "taken out");
        }
        // From one kind to the other, too.
        let (classic, _) = edit(DEPLOYMENT, &args(&["--classic"])).unwrap();
        let (native, _) = edit(DEPLOYMENT, &args(&[])).unwrap();
        assert_eq!(edit(&classic, &args(&[])).unwrap().0, native);
    }

    #[test]
    fn native_sidecars_go_first_and_classic_ones_last() {
        let with_init = DEPLOYMENT.replace(
            "      containers:",
            "      initContainers:\n      - name: migrate\n      containers:",
        );
        let order = |flags: &[&str]| -> Vec<String> {
            let (text, _) = edit(&with_init, &args(flags)).unwrap();
            let names = text.lines().filter_map(|line| line.strip_prefix("      - name: "));
            names.map(str::to_owned).collect()
        };
        assert_eq!(order(&[]), ["netra-init", "netra", "migrate", "app"]);
        assert_eq!(order(&["--classic"]), ["migrate", "netra-init", "app", "netra"]);
    }

    #[test]
    fn arguments_arrive() {
        let flags = [
            "--service-name=till",
            "--env=NETRA_HTTP_PORTS=80,8080",
            "--init-arg=--exclude-inbound-ports=22",
            "--image=reg/netra@sha256:0",
            "--seccomp-profile=netra-seccomp.json",
        ];
        let (text, _) = edit(DEPLOYMENT, &args(&flags)).unwrap();
        for says in [
            "value: \"till\"",
            "- name: \"NETRA_HTTP_PORTS\"\n          value: \"80,8080\"",
            "- \"--exclude-inbound-ports=22\"",
            "image: \"reg/netra@sha256:0\"",
            "type: \"Localhost\"\n            localhostProfile: \"netra-seccomp.json\"",
        ] {
            assert!(text.contains(says), "{says}: {text}");
        }
        let error = edit(DEPLOYMENT, &args(&["--env=novalue"])).unwrap_err();
        assert_eq!(error, "deployment/shop: --env: bad value \"novalue\": allowed is NAME=VALUE");
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
    fn what_must_not_be_injected_is_skipped_and_says_why() {
        let did = |text: &str| edit(text, &args(&[])).unwrap().1.remove(0);
        let host = DEPLOYMENT.replace("    spec:\n", "    spec:\n      hostNetwork: true\n");
        assert!(did(&host).did.starts_with("skipped: hostNetwork"));
        let no =
            "    metadata:\n      annotations:\n        netra.io/inject: disabled\n    spec:\n";
        assert!(did(&DEPLOYMENT.replace("    spec:\n", no)).did.starts_with("skipped: annotation"));
        let clash = format!("{DEPLOYMENT}        securityContext:\n          runAsUser: 1337\n");
        assert!(did(&clash).warnings[0].contains("app runs as 1337"));
        let probe = format!(
            "{DEPLOYMENT}        livenessProbe:\n          tcpSocket:\n            port: 1\n"
        );
        assert!(did(&probe).warnings[0].contains("tcpSocket probe"));
    }

    #[test]
    fn what_cannot_be_injected_is_an_error_and_nothing_is_written() {
        for (text, says) in [
            ("kind: Deployment\nmetadata: {name: x}\n", "deployment/x: has no spec.template"),
            ("kind: Pod\nmetadata: {name: x}\nspec: {}\n", "pod/x: has no containers"),
            ("kind: Pod\nspec: [\n", "line "),
        ] {
            let error = edit(text, &args(&[])).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
    }
}
