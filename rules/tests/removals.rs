//! Fields that are taken out of heads: of HTTP/1, where heads are edited by lines, and of nothing else.

mod support;

use support::errors;

#[test]
fn what_has_no_lines_has_none_taken_out() {
    let removal = |protocol: &str| {
        format!(
            "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: r}}\nspec:\n  hosts: [a]\n  \
             protocol: {protocol}\n  routes:\n  - responseRemoval: [X-A]\n    \
             route: [{{destination: {{host: a}}}}]\n"
        )
    };
    assert_eq!(errors(&removal("http1")), [String::new(); 0]);
    let found = errors(&removal("dubbo")).join("\n");
    assert!(
        found.contains("8:23: X-A: fields are taken out of messages of http1 alone"),
        "{found}"
    );
}
