//! Manifests as people write them, for tests.

/// What each number makes is always the same.
#[derive(Debug)]
pub(super) struct Generator(pub(super) u64);

impl Generator {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    pub(super) fn stream(&mut self) -> String {
        let documents = 1 + self.below(3);
        let mut text = self.pick(&["", "# head\n", "---\n"]).to_owned();
        for number in 0..documents {
            if number > 0 {
                text +=
                    self.pick(&["---\n", "--- # next\n", "...\n---\n", "---\n# nothing\n---\n"]);
            }
            text += &self.object();
        }
        if self.below(4) == 0 {
            text = text.trim_end().to_owned();
        }
        if self.below(3) == 0 { text.replace('\n', "\r\n") } else { text }
    }

    fn object(&mut self) -> String {
        let pod = self.pod();
        let shifted = |text: &str, by: usize| {
            text.lines().fold(String::new(), |out, line| match line.is_empty() {
                true => out + "\n",
                false => out + &" ".repeat(by) + line + "\n",
            })
        };
        match self.below(4) {
            0 => format!("kind: Pod\n{pod}"),
            1 => {
                format!("kind: Job\nmetadata:\n  name: j\nspec:\n  template:\n{}", shifted(&pod, 4))
            }
            2 => {
                let template = shifted(&pod, 8);
                format!(
                    "kind: CronJob\nspec:\n  jobTemplate:\n    spec:\n      template:\n{template}  x: 1\n"
                )
            }
            _ => format!("kind: List\nitems:\n- kind: Pod\n{}- kind: Secret\n", shifted(&pod, 2)),
        }
    }

    fn pod(&mut self) -> String {
        let metadata = self.pick(&[
            "",
            "metadata:\n",
            "metadata: {}\n",
            "metadata: null # none\n",
            "metadata: {labels: {a: b}}\n",
            "metadata:\n  # of it\n  labels:\n    a: b # c\n",
            "metadata:\n  annotations: {}\n  labels: {a: b}\n",
            "metadata:\n  annotations:\n",
            "metadata:\n    annotations:\n\n        # why\n        p: |\n          q\n",
            "metadata: {annotations: {p: q}, labels: {}}\n",
        ]);
        let inits = self.pick(&[
            "",
            "initContainers:\n",
            "initContainers: [] # none\n",
            "initContainers: ~\n",
            "# first\ninitContainers:\n# why\n- name: a\n\n# b\n- name: b\n  args: [x]\n",
            "initContainers: [{name: a}, {name: b}]\n",
            "initContainers: [\n  {name: a}, # a\n  {name: b} # b\n  ] # end\n",
        ]);
        let containers = self.pick(&[
            "containers:\n- name: app\n",
            "# the app\ncontainers: # c\n# it\n- name: app # n\n\n  # more\n  image: x\n# behind\n",
            "containers:\n  - image: x\n    name: app\n    args:\n      - |\n        # no\n         comment\n\n  - name: b\n",
            "containers:\n- name: app\n  args:\n  - |+\n    kept\n\n\n",
            "containers:\n-   name: app\n    args:\n    - >-\n      folded\n\n      more\n",
            "containers: [{name: app, args: [\"a\\\"#\", 'it''s']}] # c\n",
            "containers:\n- {name: app}\n- name: b\n  env:\n  - name: X\n    value: several\n      words\n",
            "containers:\n- &x\n  name: app\n- <<: *x\n  name: c\n",
        ]);
        let rest = self.pick(&["", "volumes: []\n", "# end\n", "\n\nnodeName: n # n\n"]);
        let lists = match self.below(3) {
            0 => [containers, inits, rest],
            1 => [inits, containers, rest],
            _ => [rest, inits, containers],
        };
        let spec: String = lists
            .concat()
            .lines()
            .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
            .collect();
        match self.below(2) {
            0 => format!("spec:\n{spec}{metadata}"),
            _ => format!("{metadata}spec: # s\n{spec}"),
        }
    }
}
