//! Pods that have netramesh, whose place netra takes.

use super::take::{INIT, SIDECAR};
use super::yaml::Node;

/// Words in the images of netramesh's containers.
const IMAGES: [&str; 2] = ["netra-sidecar", "netramesh"];
const FLAG: &str = "-service-name";

/// netramesh's containers in a pod.
#[derive(Debug)]
pub(super) struct Netramesh<'n> {
    spec: &'n Node,
    /// Its place among the init containers.
    pub(super) init: Option<usize>,
    /// Its place among the containers.
    pub(super) sidecar: usize,
}

impl<'n> Netramesh<'n> {
    /// Finds both containers, by their names and images.
    pub(super) fn find(spec: &'n Node) -> Option<Self> {
        let items = |key| spec.get(key).map(Node::items).unwrap_or_default();
        let sidecar = items("containers").iter().position(is_sidecar)?;
        Some(Self { spec, init: items("initContainers").iter().position(is_init), sidecar })
    }

    /// What netra would not be able to take over.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        let variables = [self.init(), self.sidecar()].into_iter().flatten();
        let mut variables = variables.flat_map(|of| [of.get("env"), of.get("envFrom")]).flatten();
        if self.spec.get("containers").is_none_or(|all| all.items().len() == 1) {
            return Some("has no container beside netramesh's");
        }
        variables.any(Node::has_alias).then_some("netramesh's env has an alias: write it out")
    }

    pub(super) fn init(&self) -> Option<&'n Node> {
        self.spec.get("initContainers")?.items().get(self.init?)
    }

    pub(super) fn sidecar(&self) -> Option<&'n Node> {
        self.spec.get("containers")?.items().get(self.sidecar)
    }

    /// The service name that its command gives, in the form that Kubernetes replaces variables in.
    pub(super) fn service_name(&self, workload: &str) -> String {
        let words = self.sidecar().map(words).unwrap_or_default();
        let words = words.join(" ");
        let told = words.split_once(FLAG).map(|(_, rest)| rest.trim_start_matches(['=', ' ']));
        told.map_or_else(|| workload.to_owned(), |told| expanded(told, workload))
    }
}

fn is_init(container: &Node) -> bool {
    let text = |key| container.get(key).and_then(Node::as_str).unwrap_or_default();
    text("name") == INIT || text("image").contains(INIT)
}

fn is_sidecar(container: &Node) -> bool {
    let text = |key| container.get(key).and_then(Node::as_str).unwrap_or_default();
    [SIDECAR, IMAGES[0], IMAGES[1]].contains(&text("name"))
        || IMAGES.iter().any(|image| text("image").contains(image))
}

fn words(container: &Node) -> Vec<&str> {
    let words = ["command", "args"].iter().filter_map(|key| container.get(key));
    words.flat_map(Node::items).filter_map(Node::as_str).collect()
}

/// A word of a shell as Kubernetes would write it: `${A}` is `$(A)`, and what a program makes
/// (`$(echo ${POD_NAME} | sed ...)`, the pod's name without its end) is the name of the workload.
fn expanded(text: &str, workload: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let is_end = c.is_whitespace() || matches!(c, ';' | '&' | '|' | '>');
        if is_end {
            break;
        }
        if let Some(command) = rest.strip_prefix("$(") {
            out.push_str(workload);
            rest = &command[closing(command)..];
        } else if let Some(variable) = rest.strip_prefix('$') {
            let name = variable.trim_start_matches('{');
            let length = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (name, after) = name.split_at(length.unwrap_or(name.len()));
            out.push_str(&format!("$({name})"));
            rest = after.strip_prefix('}').unwrap_or(after);
        } else {
            if !matches!(c, '"' | '\'') {
                out.push(c);
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// The place behind the bracket that closes what stands before this text.
fn closing(text: &str) -> usize {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_shell_become_names_of_kubernetes() {
        for (told, name) in [
            ("shop", "shop"),
            ("'shop' --other", "shop"),
            ("${NS}.$(echo ${POD} | sed -e 's/-[a-z]*$//g')", "$(NS).till"),
            ("$NS-x; exit", "$(NS)-x"),
            ("\"${NS}\"/é", "$(NS)/é"),
        ] {
            assert_eq!(expanded(told, "till"), name, "{told}");
        }
    }
}
