"""What the measurements beside it stand on: a folder, network namespaces and programs that end with the script, and
the CPU that a program took."""
import os, shutil, signal, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.path.abspath(os.environ.get("NETRA_BIN_DIR", os.path.join(HERE, "../../target/release")))
DIR = os.path.join(tempfile.gettempdir(), f"netra-bench-{os.getpid()}")
running, spaces = [], []


def sh(*words, **more):
    return subprocess.run(words, check=True, capture_output=True, text=True, **more).stdout


def within(space, words, user=None):
    own = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return ["ip", "netns", "exec", space, *own, *words]


def start(space, words, env=None, user=None):
    """A program that runs until the end, with a log of its own."""
    log = open(f"{DIR}/{os.path.basename(words[0])}-{len(running)}.log", "w")
    process = subprocess.Popen(within(space, words, user), cwd=DIR, stdout=log, stderr=log,
                               env={"PATH": os.environ["PATH"], **(env or {})})
    running.append(process)
    return process


def space_beside(outside, prefix, number, network):
    """A namespace with a link to `outside`, which is .1 of the network there; its own end is .2."""
    name, link = f"{prefix}pod{number}", f"{prefix}v{number}"
    spaces.append(name)
    sh("ip", "netns", "add", name)
    sh("ip", "link", "add", link, "netns", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
    for space, device, end in [(outside, link, 1), (name, "eth0", 2)]:
        sh("ip", "-n", space, "addr", "add", f"{network}.{number}.{end}/24", "dev", device)
        sh("ip", "-n", space, "link", "set", device, "up")
    sh("ip", "-n", name, "link", "set", "lo", "up")
    return name


def intercept(space, uid):
    """What the programs there send and are sent goes by netra, which runs as that user."""
    sh(*within(space, [f"{BIN}/netra-init", "apply", "--backend", "nft-native"]), env={
        "PATH": os.environ["PATH"], "NETRA_SIDECAR_USER_ID": str(uid), "NETRA_SIDECAR_GROUP_ID": str(uid)})


def intercept_by(space, uid, ports):
    """What the programs there send to each of these ports goes by another one, as above but for a peer that runs as that user: the least
    that rules can be, as what they cost counts for it."""
    to = ", ".join(f"{port} : {other}" for port, other in ports.items())
    sh(*within(space, ["nft", "-f", "-"]), input=f"""table ip peer {{ chain output {{ type nat hook output priority -100;
        meta skuid != {uid} tcp dport {{ {", ".join(map(str, ports))} }} redirect to :tcp dport map {{ {to} }}
        }}\n}}""")


def write(name, text):
    with open(f"{DIR}/{name}", "w") as file:
        file.write(text)
    return f"{DIR}/{name}"


def nginx(space, http, user=None):
    """nginx with one worker, and this within its `http`."""
    temp = "".join(f"{kind}_temp_path {DIR}/{kind}-{space};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    return start(space, ["nginx", "-e", "stderr", "-p", DIR, "-c", write(f"nginx-{space}.conf", f"""daemon off; master_process off;
        pid {DIR}/{space}.pid; error_log stderr crit; events {{ worker_connections 4096; }}
        http {{ access_log off; keepalive_requests 100000000; {temp} {http} }}""")], user=user)


def cpu(process):
    """CPU seconds of the process so far, by the scheduler's own count of each of its threads."""
    total = 0
    for task in os.listdir(f"/proc/{process.pid}/task"):
        with open(f"/proc/{process.pid}/task/{task}/schedstat") as stat:
            total += int(stat.read().split()[0])
    return total / 1e9


def clean():
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
    for space in spaces:
        subprocess.run(["ip", "netns", "del", space], capture_output=True)
    shutil.rmtree(DIR, ignore_errors=True)


def run(measurement):
    """All of it, whatever comes: nothing is left behind."""
    os.mkdir(DIR)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was through"))
    try:
        measurement()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stdout}\n{error.stderr}")
    finally:
        clean()
