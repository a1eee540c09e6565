"""`SimulatedCluster`: the whole server in one object, for `python -m apps.demo.cluster` and for tests."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from apps.demo.cluster import artifacts, bulk, discovery, history, metrics, pki, seeds
from apps.demo.cluster.allocation import Allocations
from apps.demo.cluster.api import Api
from apps.demo.cluster.auth import MASTERS, Rbac, Tokens, User
from apps.demo.cluster.controllers import Controller, GarbageCollector, Loop, NamespaceController, QuotaController
from apps.demo.cluster.elastic import ElasticNodes
from apps.demo.cluster.errors import ApiError, Obj, bad_request, no_such_path
from apps.demo.cluster.faults import Faults
from apps.demo.cluster.kinds import CLUSTER_ROLE, CONFIG_MAP, NAMESPACE, NODE, PRIORITY_CLASS, Kind
from apps.demo.cluster.kubelet import Kubelet
from apps.demo.cluster.kueue.controller import KueueController
from apps.demo.cluster.kueue.options import KueueOptions
from apps.demo.cluster.meter import Meter
from apps.demo.cluster.replay import Replay
from apps.demo.cluster.requests import Request, Response, as_json, parse_body
from apps.demo.cluster.resources import Resources
from apps.demo.cluster.scheduler import Scheduler
from apps.demo.cluster.server import Server
from apps.demo.cluster.serving.answers import PATHS as QUERY_PATHS
from apps.demo.cluster.serving.answers import respond
from apps.demo.cluster.serving.controller import InferenceServices, rename_mode
from apps.demo.cluster.serving.options import KServeOptions
from apps.demo.cluster.serving.recorder import Recorder
from apps.demo.cluster.serving.routes import Routes
from apps.demo.cluster.serving.scaling import Scaling
from apps.demo.cluster.store import Store
from apps.demo.cluster.workloads import Workloads

ALLOCATION_PATHS = ("/allocation", "/allocation/compute", "/model/allocation", "/model/allocation/compute")
_FAULT_FIELDS = ("mode", "seconds", "delay_ms", "match", "methods", "count", "after", "skew_seconds", "ratio")
ADMIN = User("simulated-admin", (MASTERS,))


class SimulatedCluster:
    """A small Kubernetes API server with nodes, a scheduler and an allocation API, on 127.0.0.1.

    Everything it keeps lives in `state_dir`; starting again there goes on where it stopped, on the same CA and token.
    `clock` replaces the wall clock in tests (time-zone aware UTC). `replay` shows the generated workloads of the
    moment as live pods. The allocation API is served twice: beside the Kubernetes API, and as plain HTTP, without a
    token as OpenCost does, on `allocation_url`. `kueue` installs Kueue (True: with its pod integration), `kserve`
    KServe and KEDA (True: in Standard mode), `gateway` the Gateway API; without them their API groups are absent.
    `allocation_url` answers Prometheus' queries for figures of what is served, too.
    """

    def __init__(
        self,
        state_dir: Path | str,
        port: int = 0,
        *,
        name: str = "",
        history_file: Path | str | None = None,
        tokens: dict[str, User] | None = None,
        tokens_file: Path | str | None = None,
        clock: Callable[[], datetime] | None = None,
        bookmark_seconds: float = 60.0,
        watch_history: int = 10_000,
        replay: bool = False,
        allocation_port: int = 0,
        kueue: bool | KueueOptions = False,
        kserve: bool | KServeOptions = False,
        gateway: bool = False,
    ) -> None:
        self.state_dir = Path(state_dir)
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.rules = history.load(Path(history_file) if history_file else None)
        self.name = name or self.rules.cluster
        self.faults = faults = Faults()
        real = clock or (lambda: datetime.now(UTC))
        self.clock: Callable[[], datetime] = lambda: real() + faults.skew()
        self.store = Store(self.state_dir / "state.db", history=watch_history)
        (self.state_dir / "state.db").chmod(0o600)
        self.admin_token = self.store.remember("admin_token", lambda: secrets.token_urlsafe(24))
        fixed = {self.admin_token: ADMIN, **(tokens or {})}
        self.tokens = Tokens(Path(tokens_file) if tokens_file else self.state_dir / "tokens.json", fixed)
        self.rbac = Rbac(self.store)
        self.api = Api(self.store, self.rbac, self.clock)
        self.meter = Meter(self.store, self.rules, self.clock)
        self.allocations = Allocations(self.meter, self.store, self.name)
        self._chain, self._key, self.ca_pem = pki.ensure(self.state_dir)
        self.ca_file = self.state_dir / "ca.crt"
        self._port = port
        self._bookmark_seconds = bookmark_seconds
        self._allocation_port = allocation_port
        self._replay = replay
        addons = (("kueue", kueue), ("kserve", kserve), ("gateway", gateway))
        self.addons = frozenset(name for name, on in addons if on)
        self._kserve = kserve if isinstance(kserve, KServeOptions) else KServeOptions(gateway=gateway)
        self.recorder = Recorder(self.store, self.faults, self.clock)
        self._kueue = KueueController(self.api, kueue if isinstance(kueue, KueueOptions) else None) if kueue else None
        self._server: Server | None = None
        self._plain: Server | None = None
        self._loop: Loop | None = None
        if self._kueue:
            self.api.mutators.append(self._kueue.webhook)
        self.api.mutators.append(rename_mode)
        self._seed()
        self._install()

    # ---- life

    def start(self) -> SimulatedCluster:
        """Listen and start the controllers. Raises OSError where the port is taken. Returns itself."""
        if self._server is not None:
            return self
        self._resources = Resources(
            self.api, self.rbac, self._bookmark_seconds, self.addons, self._kueue.pending if self._kueue else None
        )
        self._resources.tick = self.faults.tick
        tls = _tls(self._chain, self._key)
        self._server = Server(self._port, self._handle, self.tokens.user, self.faults, tls)
        self._server.expired_tls = self._expired_tls()
        self._port = self._server.server_address[1]
        self._plain = Server(self._allocation_port, self._handle_plain, _anyone, self.faults)
        self._allocation_port = self._plain.server_address[1]
        self._loop = Loop(self.store, self._controllers())
        self._loop.start()
        for server in (self._server, self._plain):
            threading.Thread(target=server.serve_forever, args=(0.05,), name="apiserver", daemon=True).start()
        return self

    def _expired_tls(self) -> ssl.SSLContext | None:
        """For the fault `expired-cert`; states of older versions have no such certificate."""
        expired = pki.expired_chain(self.state_dir)
        return _tls(expired, self._key) if expired is not None else None

    def stop(self) -> None:
        """Cut every connection and stop; the state stays. `start` goes on, on the same port."""
        for server in (self._server, self._plain):
            if server is not None:
                server.halt()
        self._server = self._plain = None
        if self._loop is not None:
            self._loop.stop()
            self._loop = None

    def close(self) -> None:
        """Stop and release the state file; the object is of no use afterwards."""
        self.stop()
        self.store.close()

    def __enter__(self) -> SimulatedCluster:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- what others need to connect

    @property
    def port(self) -> int:
        """The TCP port, 0 before the first start."""
        return self._port

    @property
    def url(self) -> str:
        """Base URL of the Kubernetes API and of the allocation API."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def allocation_url(self) -> str:
        """Base URL of the allocation API over plain HTTP."""
        return f"http://127.0.0.1:{self._allocation_port}"

    def token_for(self, user: str, groups: list[str] | None = None) -> str:
        """A bearer token for a person, kept in the tokens file."""
        return self.tokens.issue(user, groups or [])

    def kubeconfig(self, user: str = "", groups: list[str] | None = None, namespace: str = "default") -> str:
        """Kubeconfig (JSON, which is YAML) for a person, or without `user` for the admin."""
        token = self.token_for(user, groups) if user else self.admin_token
        who = user or ADMIN.name
        authority = base64.b64encode(self.ca_pem.encode()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": who, "user": {"token": token}}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": who, "namespace": namespace}}],
            "current-context": self.name,
        }
        return json.dumps(config, indent=2) + "\n"

    def seed_namespaces(self, count: int, *, prefix: str = "bulk", labels: Obj | None = None, gpus: int = 4) -> int:
        """Make `count` namespaces with a ResourceQuota each (see `bulk.seed`). Returns how many were made."""
        return bulk.seed(self.api, count, prefix=prefix, labels=labels, gpus=gpus)

    def write_kubeconfig(
        self, path: Path | str, user: str = "", groups: list[str] | None = None, namespace: str = "default"
    ) -> Path:
        """Write `kubeconfig(…)` to a file only its owner can read."""
        target = Path(path)
        scratch = target.with_name(target.name + ".new")
        scratch.touch(mode=0o600)
        scratch.write_text(self.kubeconfig(user, groups, namespace), "utf-8")
        scratch.replace(target)
        return target

    # ---- inside

    def _controllers(self) -> list[Controller]:
        replay = [Replay(self.api, self.rules)] if self._replay else []
        serving: list[Controller] = [InferenceServices(self.api)] if "kserve" in self.addons else []
        serving += [Routes(self.api)] if "gateway" in self.addons else []
        if "kserve" in self.addons:
            serving += [Scaling(self.api, self.recorder), self.recorder]
        return [
            NamespaceController(self.api),
            *replay,
            *([self._kueue] if self._kueue else []),
            ElasticNodes(self.api, self.rules),
            *serving,
            Workloads(self.api),
            Scheduler(self.api),
            Kubelet(self.api, faults=self.faults),
            self.meter,
            GarbageCollector(self.store),
            QuotaController(self.store),
        ]

    def _seed(self) -> None:
        """Fill a fresh state, once; nodes that the file has gained since then are added at every start."""
        with self.store.transaction():
            if self.store.entries(NAMESPACE):
                self._add_nodes()
                return
            parts: list[tuple[Kind, list[Obj]]] = [
                (NAMESPACE, seeds.namespaces()),
                (CLUSTER_ROLE, seeds.cluster_roles()),
                (PRIORITY_CLASS, seeds.priority_classes()),
                (NODE, seeds.nodes(self.rules, self.api.now())),
            ]
            for kind, objects in parts:
                for obj in objects:
                    self.api.system_create(kind, obj)
            self.meter.seed_nodes()
            self.store.note("seeded_nodes", json.dumps([node.name for node in self.rules.nodes]))

    def _add_nodes(self) -> None:
        """Nodes the file did not name before. One that was deleted stays deleted."""
        text = self.store.noted("seeded_nodes")
        known = set(json.loads(text)) if text else {entry.name for entry in self.store.entries(NODE)}
        for obj in seeds.nodes(self.rules, self.api.now()):
            name = obj["metadata"]["name"]
            if name not in known and self.store.get(NODE, "", name) is None:
                self.api.system_create(NODE, obj)
        self.store.note("seeded_nodes", json.dumps(sorted(known | {node.name for node in self.rules.nodes})))

    def _install(self) -> None:
        """What add-ons bring along; their configuration follows the options of this start."""
        objects = list(self._kueue.options.objects()) if self._kueue else []
        if "kserve" in self.addons:
            objects += self._kserve.objects()
        with self.store.transaction():
            for kind, obj in objects:
                meta = obj["metadata"]
                known = self.store.get(kind, meta.get("namespace", ""), meta["name"])
                if known is None:
                    self.api.system_create(kind, obj)
                elif kind is CONFIG_MAP and known.obj.get("data") != obj["data"]:
                    self.store.put(kind, {**known.obj, "data": obj["data"]})

    def _handle(self, request: Request, alive: Callable[[], bool]) -> Response:
        path = request.path.rstrip("/") or "/"  # the official client asks for `/version/`
        if path == "/version":
            return as_json(discovery.version())
        if path in ("/healthz", "/readyz", "/livez"):
            return Response(body=b"ok", content_type="text/plain; charset=utf-8")
        if path in ALLOCATION_PATHS or path in ("/assets", "/model/assets", "/metrics"):
            return self._handle_plain(request, alive)
        if request.user.name == "system:anonymous":
            raise ApiError(401, "Unauthorized", "Unauthorized")
        if path == "/simulated/faults":
            return self._faults(request)
        if path == "/simulated/audit":
            if not request.user.is_master:
                raise ApiError(403, "Forbidden", "the audit log is for the admin token only")
            return as_json(self.api.policies.audit.wire())
        if path.split("/", 2)[1] in ("api", "apis", "openapi"):
            return self._resources.handle(request, alive, f"127.0.0.1:{self._port}")
        raise no_such_path()

    def _handle_plain(self, request: Request, alive: Callable[[], bool]) -> Response:
        """The allocation API, metrics and made-up models; they ask nobody who they are, as OpenCost does not."""
        if request.path in ("/healthz", "/metrics"):
            text = metrics.text(self.store) if request.path == "/metrics" else "ok"
            return Response(body=text.encode(), content_type="text/plain; version=0.0.4; charset=utf-8")
        if request.path in QUERY_PATHS:
            return respond(request, self.recorder, self.clock())
        if request.path.startswith(artifacts.PREFIX):
            return artifacts.respond(request)
        if request.method != "GET":
            raise ApiError(405, "MethodNotAllowed", "the allocation API only reads")
        try:
            if request.path in ALLOCATION_PATHS:
                return as_json(self.allocations.allocation(request.query))
            if request.path in ("/assets", "/model/assets"):
                return as_json(self.allocations.assets(request.query))
        except ApiError as error:
            # OpenCost's own envelope, not a Kubernetes Status.
            return as_json({"code": error.code, "status": "error", "data": None, "message": error.message}, error.code)
        raise no_such_path()

    def _faults(self, request: Request) -> Response:
        """Admin endpoint: GET the faults in force, POST one, DELETE all."""
        if not request.user.is_master:
            raise ApiError(403, "Forbidden", "faults are for the admin token only")
        if request.method == "POST":
            body = parse_body(request.body, "application/json")
            if not isinstance(body, dict):
                raise bad_request('the body must be JSON such as {"mode": "down", "seconds": 5}')
            unknown = set(body) - {*_FAULT_FIELDS}
            if unknown:
                raise bad_request(f"unknown: {', '.join(sorted(unknown))}")
            mode = str(body.pop("mode", ""))
            if mode == "expired-cert" and pki.expired_chain(self.state_dir) is None:
                raise bad_request("this state has no expired certificate; begin with a fresh one")
            try:
                self.faults.set(mode, **body)
            except TypeError as error:
                raise bad_request(f"wrong type: {error}") from error
        elif request.method == "DELETE":
            self.faults.clear()
        return as_json({"faults": [fault.wire() for fault in self.faults.active()]})


def _tls(chain: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain, key)
    return context


def _anyone(token: str) -> User:
    """OpenCost looks at no token; whoever sends one is served all the same."""
    return User("system:anonymous", ("system:unauthenticated",))
