//! What is good to read and hardly meant: attributes and hosts that nobody has.

mod support;

use support::warnings;

const HOST: &str = "org.demo.greeter";

/// A router for a host that there is, with this spec.
fn route_of(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: g}}\nspec:\n  \
         hosts: [{HOST}]\n  ports: [{{number: 20880, name: tcp-metaprotocol-dubbo}}]\n  \
         resolution: STATIC\n  endpoints: [{{address: 10.0.0.1}}]\n---\n\
         apiVersion: metaprotocol.aeraki.io/v1alpha1\nkind: MetaRouter\nmetadata: {{name: g}}\n\
         spec:\n  hosts: [{HOST}]\n{spec}"
    )
}

/// A header that nobody sends is asked for in silence, where a slip of the hand made it one.
#[test]
fn misspelt_attributes_are_warned_of() {
    let about = |protocol: &str, attribute: &str| {
        warnings(&format!(
            "apiVersion: netra.io/v1alpha1\nkind: Authorization\nmetadata: {{name: a}}\nspec:\n  \
             action: DENY\n{protocol}  rules: [{{to: [{{attributes: {{{attribute}: {{exact: x}}}}}}]}}]\n"
        ))
    };
    for (protocol, attribute, meant) in [
        ("http1", "mehod", "method"),
        ("http1", "Pathh", "path"),
        ("http1", "cookies.user", "cookie.user"),
        ("http1", "qurey.page", "query.page"),
        ("dubbo", "intreface", "interface"),
        ("thrift", "methods", "method"),
    ] {
        let found = about(&format!("  protocol: {protocol}\n"), attribute);
        let (name, asks) = (format!("attribute {attribute:?}"), format!("If {meant:?} is meant"));
        let [found] = &found[..] else { panic!("{attribute}: {found:?}") };
        assert!(found.starts_with("rules.yaml:7:"), "{found}");
        assert!(found.contains(&name) && found.contains(&asks), "{found}");
    }
    for (protocol, attribute) in [
        ("http1", "x-method"),
        ("http1", "x-canary"),
        ("http1", "authorization"),
        ("http1", "date"),
        ("http1", "cookie.cookies"),
        ("dubbo", "tenant"),
        ("dubbo", "method"),
    ] {
        let found = about(&format!("  protocol: {protocol}\n"), attribute);
        assert!(found.is_empty(), "{found:?}");
    }
    // Where nothing says which protocol it is, what one of them has is no slip.
    assert!(about("", "command").is_empty());
    assert_eq!(about("", "mehod").len(), 1);
}

/// Such a route was good, and led nowhere.
#[test]
fn a_route_to_a_host_that_no_document_has_is_warned_of() {
    let route = |host: &str| {
        let spec = format!(
            "  routes:\n  - route: [{{destination: {{host: {host}, port: {{number: 20880}}}}}}]\n"
        );
        warnings(&route_of(&spec))
    };
    let found = route("orders.shop");
    let [found] = &found[..] else { panic!("{found:?}") };
    assert!(found.contains("host=\"orders.shop\": no ServiceEntry has it, so that"), "{found}");
    let found = route(&HOST.replace("greeter", "greater"));
    assert!(found[0].contains(&format!("has it (there is one for {HOST:?})")), "{found:?}");
    assert!(route(HOST).is_empty());
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: o}\nspec: \
                 {hosts: [orders.shop], ports: [{number: 20880, name: tcp}], resolution: DNS}\n---\n";
    let spec =
        "  routes:\n  - route: [{destination: {host: orders.shop, port: {number: 20880}}}]\n";
    assert_eq!(warnings(&format!("{entry}{}", route_of(spec))), [""; 0]);
}
