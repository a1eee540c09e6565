"""Pod Security admission: the namespace labels `pod-security.kubernetes.io/{enforce,warn}` and the checks behind them.

Covers the controls that ordinary workloads meet; volume types, sysctl, SELinux, AppArmor and /proc are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from apps.demo.cluster.errors import Obj, forbidden
from apps.demo.cluster.kinds import DEPLOYMENT, JOB, NAMESPACE, POD, Kind
from apps.demo.cluster.store import Store

_PREFIX = "pod-security.kubernetes.io/"
_BASELINE_CAPABILITIES = {
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
}


def admit(store: Store, kind: Kind, obj: Obj, old: Obj | None, warnings: list[str]) -> None:
    """Refuse a pod (403), or warn about it or about a workload's template, as the namespace's labels say."""
    if kind not in (POD, JOB, DEPLOYMENT):
        return
    namespace = store.get(NAMESPACE, "", obj["metadata"].get("namespace", ""))
    labels = (namespace.obj["metadata"].get("labels") or {}) if namespace else {}
    if kind is not POD and old is not None and obj["spec"].get("template") == old["spec"].get("template"):
        return
    spec = obj["spec"] if kind is POD else (obj["spec"].get("template") or {}).get("spec") or {}
    enforce, warn = labels.get(f"{_PREFIX}enforce", "privileged"), labels.get(f"{_PREFIX}warn", "privileged")
    if kind is POD:
        found = violations(spec, enforce)
        if found:
            version = labels.get(f"{_PREFIX}enforce-version", "latest")
            why = f'violates PodSecurity "{enforce}:{version}": {", ".join(found)}'
            raise forbidden("pods", "", obj["metadata"].get("name", ""), why)
    found = violations(spec, warn)
    if found:
        version = labels.get(f"{_PREFIX}warn-version", "latest")
        warnings.append(f'would violate PodSecurity "{warn}:{version}": {", ".join(found)}')


def violations(spec: Obj, level: str) -> list[str]:
    """Sentences for every control of a level (`privileged`, `baseline`, `restricted`) that a pod spec breaks."""
    if level == "baseline":
        return list(_baseline(spec))
    if level == "restricted":
        return [*_baseline(spec), *_restricted(spec)]
    return []


def _containers(spec: Obj) -> list[Obj]:
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def _named(containers: list[Obj], test: Callable[[Obj], bool]) -> str:
    names = [f'"{each.get("name")}"' for each in containers if test(each.get("securityContext") or {})]
    if not names:
        return ""
    return f"{'container' if len(names) == 1 else 'containers'} {', '.join(names)}"


def _baseline(spec: Obj) -> Iterator[str]:
    containers = _containers(spec)
    shared = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if shared:
        yield f"host namespaces ({', '.join(f'{name}=true' for name in shared)})"
    if who := _named(containers, lambda ctx: bool(ctx.get("privileged"))):
        yield f"privileged ({who} must not set securityContext.privileged=true)"
    if any("hostPath" in volume for volume in spec.get("volumes") or []):
        yield "hostPath volumes"
    if any(port.get("hostPort") for each in containers for port in each.get("ports") or []):
        yield "hostPort"
    added = _named(
        containers, lambda ctx: bool(set((ctx.get("capabilities") or {}).get("add") or []) - _BASELINE_CAPABILITIES)
    )
    if added:
        yield f"non-default capabilities ({added} must not include additional capabilities)"


def _restricted(spec: Obj) -> Iterator[str]:
    containers, pod = _containers(spec), spec.get("securityContext") or {}
    if who := _named(containers, lambda ctx: ctx.get("allowPrivilegeEscalation") is not False):
        yield f"allowPrivilegeEscalation != false ({who} must set securityContext.allowPrivilegeEscalation=false)"
    if who := _named(containers, lambda ctx: "ALL" not in ((ctx.get("capabilities") or {}).get("drop") or [])):
        yield f'unrestricted capabilities ({who} must set securityContext.capabilities.drop=["ALL"])'
    if who := _named(containers, lambda ctx: ctx.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True):
        yield f"runAsNonRoot != true (pod or {who} must set securityContext.runAsNonRoot=true)"

    def unconfined(ctx: Obj) -> bool:
        profile = (ctx.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type")
        return profile not in ("RuntimeDefault", "Localhost")

    if who := _named(containers, unconfined):
        wanted = 'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        yield f"seccompProfile (pod or {who} must set {wanted})"
