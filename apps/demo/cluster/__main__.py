"""`python -m apps.demo.cluster`: the simulated cluster as a process of its own."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from apps.demo.cluster import KueueOptions, SimulatedCluster, User
from apps.demo.cluster.history import BadRules
from apps.demo.cluster.serving.options import KNATIVE, STANDARD, KServeOptions


def _token(text: str) -> tuple[str, User]:
    """`TOKEN=USER[:group,group]`."""
    token, equals, who = text.partition("=")
    user, _, groups = who.partition(":")
    if not (token and equals and user):
        raise argparse.ArgumentTypeError("must look like TOKEN=USER or TOKEN=USER:group,group")
    return token, User(user, tuple(group for group in groups.split(",") if group))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m apps.demo.cluster",
        description="A simulated Kubernetes API server with GPU nodes and an allocation API, on 127.0.0.1.",
    )
    parser.add_argument("--port", type=int, required=True, help="TCP port of the Kubernetes API (0: any free one)")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="folder for everything that is kept")
    parser.add_argument("--kubeconfig", type=Path, required=True, metavar="FILE", help="admin kubeconfig to write")
    parser.add_argument("--name", default="", help="name of the cluster (default: the history file's)")
    parser.add_argument("--history", type=Path, metavar="FILE.json", help="rules of the generated past")
    parser.add_argument("--token", type=_token, action="append", default=[], metavar="TOKEN=USER[:GROUPS]")
    parser.add_argument("--tokens-file", type=Path, metavar="FILE", help="JSON of further tokens, re-read on change")
    parser.add_argument("--allocation-port", type=int, default=0, help="TCP port of the allocation API over plain HTTP")
    parser.add_argument(
        "--kueue", choices=("off", "jobs", "pods"), default="off", help="install Kueue, for Jobs or also Pods"
    )
    parser.add_argument(
        "--kserve",
        nargs="?",
        const=STANDARD,
        choices=(STANDARD, KNATIVE),
        help="install KServe (default deployment mode: Standard) and KEDA",
    )
    parser.add_argument("--gateway", action="store_true", help="install the Gateway API, and have KServe use it")
    parser.add_argument("--namespaces", type=int, default=0, metavar="N", help="make N namespaces with a quota each")
    parser.add_argument("--replay", action="store_true", help="show the generated workloads of the moment as pods")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM. Returns the exit code: 2 for a bad history file, 1 for a taken port."""
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        cluster = SimulatedCluster(
            options.state,
            options.port,
            name=options.name,
            history_file=options.history,
            tokens=dict(options.token),
            tokens_file=options.tokens_file,
            allocation_port=options.allocation_port,
            replay=options.replay,
            kueue=False if options.kueue == "off" else KueueOptions(pods=options.kueue == "pods"),
            kserve=KServeOptions(options.kserve, options.gateway) if options.kserve else False,
            gateway=options.gateway,
        )
    except BadRules as error:
        sys.stderr.write(f"history: {error}\n")
        return 2
    try:
        cluster.start()
    except OSError as error:
        sys.stderr.write(f"cannot listen on port {options.port} or {options.allocation_port}: {error}\n")
        cluster.close()
        return 1
    cluster.write_kubeconfig(options.kubeconfig)
    if options.namespaces:
        cluster.seed_namespaces(options.namespaces)
    sys.stdout.write(f"simulated cluster {cluster.name}: {cluster.url}, allocation API {cluster.allocation_url}\n")
    sys.stdout.flush()
    stop.wait()
    cluster.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
