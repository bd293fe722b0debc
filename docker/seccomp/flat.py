#!/usr/bin/env python3
"""Makes ../seccomp.json of default.json: what Docker allows a container without capabilities on amd64
and arm64, and io_uring.

The conditions of Docker's format (includes, excludes) are worked out here, because containerd, which
reads the file on Kubernetes nodes, does not know them: it would allow to all what is for containers
with CAP_SYS_ADMIN. tests/seccomp.rs checks the difference to default.json, by code of its own.
"""
import json
import pathlib
import textwrap

HERE = pathlib.Path(__file__).parent
ARCHES = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}
IO_URING = ["io_uring_enter", "io_uring_register", "io_uring_setup"]


def applies(rule, arch):
    """As Docker decides, for a process without capabilities on Linux 4.8 or later."""
    includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
    return (
        arch in includes.get("arches", [arch])
        and not includes.get("caps")
        and arch not in excludes.get("arches", [])
        and not excludes.get("minKernel")
    )


def main():
    default = json.loads((HERE / "default.json").read_text())
    rules = [rule for rule in default["syscalls"] if any(applies(rule, arch) for arch in ARCHES)]
    plain = [rule for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")]
    names = sorted({name for rule in plain for name in rule["names"]})
    flat = [
        {"names": IO_URING, "action": "SCMP_ACT_ALLOW", "comment": "what netra adds to default.json"},
        {"names": names, "action": "SCMP_ACT_ALLOW"},
    ]
    kept = ("names", "action", "errnoRet", "args")
    flat += [{key: rule[key] for key in kept if key in rule} for rule in rules if rule not in plain]
    lines = [
        "{",
        ' "defaultAction": %s,' % json.dumps(default["defaultAction"]),
        ' "defaultErrnoRet": %d,' % default["defaultErrnoRet"],
        ' "archMap": [',
        ",\n".join("  " + json.dumps(a) for a in default["archMap"] if a["architecture"] in ARCHES.values()),
        " ],",
        ' "syscalls": [',
        ",\n".join("\n".join(textwrap.wrap(json.dumps(rule), 98, initial_indent="  ", subsequent_indent="   ",
                                           break_long_words=False, break_on_hyphens=False)) for rule in flat),
        " ]",
        "}",
    ]
    (HERE.parent / "seccomp.json").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
