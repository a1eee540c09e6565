"""Semantic validation of the served kinds: the 422 of the API server for what users and renderers get wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal

from apps.demo.cluster import crds, policies
from apps.demo.cluster.errors import Obj, invalid
from apps.demo.cluster.kinds import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CRD,
    DEPLOYMENT,
    JOB,
    LIMIT_RANGE,
    NAMESPACE,
    POD,
    POLICY,
    POLICY_BINDING,
    PRIORITY_CLASS,
    QUOTA,
    ROLE,
    ROLE_BINDING,
    Kind,
)
from apps.demo.cluster.kueue import rules
from apps.demo.cluster.quantity import parse
from apps.demo.cluster.selectors import selector_matches

Problems = list[tuple[str, str, str]]

_LABEL_1123 = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_QUALIFIED = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")
_QUOTA_KEY = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_./]*[A-Za-z0-9]\Z")
_NATIVE = {"cpu", "memory", "ephemeral-storage", "storage"}
_PATH_NAMES = {ROLE_BINDING, CLUSTER_ROLE, ROLE, CLUSTER_ROLE_BINDING}
_IMMUTABLE = "field is immutable"


def is_extended(resource: str) -> bool:
    """True for resources counted in whole pieces and never overcommitted, such as `nvidia.com/gpu`."""
    return "/" in resource and not resource.startswith(("requests.", "limits.", "kubernetes.io/"))


def _bad(problems: Problems, field: str, value: object, why: str) -> None:
    shown = f'"{value}"' if isinstance(value, str) else value
    problems.append(("FieldValueInvalid", field, f"Invalid value: {shown}: {why}"))


def _required(problems: Problems, field: str, why: str = "") -> None:
    problems.append(("FieldValueRequired", field, "Required value" + (f": {why}" if why else "")))


def validate(kind: Kind, obj: Obj, old: Obj | None) -> None:
    """Raise 422 Invalid with every problem found. `old` is the stored object on update."""
    problems: Problems = []
    _meta(kind, obj, problems)
    handler = _HANDLERS.get(kind)
    if handler is not None:
        handler(obj, problems)
    if old is not None:
        _immutable(kind, obj, old, problems)
    if problems:
        raise invalid(kind.kind, kind.group, obj["metadata"].get("name", ""), problems)
    if kind.addon == "kueue":
        rules.validate(kind, obj, old)
    if kind in (POLICY, POLICY_BINDING):
        policies.validate(kind, obj)
    if kind is CRD:
        crds.validate(obj)
    if kind.schema is not None:
        crds.check(kind, obj, old)


def _meta(kind: Kind, obj: Obj, problems: Problems) -> None:
    meta = obj["metadata"]
    name = meta.get("name", "")
    if not name:
        _required(problems, "metadata.name", "name or generateName is required")
    elif kind in _PATH_NAMES:
        if name in (".", "..") or "/" in name or "%" in name:
            _bad(problems, "metadata.name", name, "may not be '.' or '..' and may not contain '/' or '%'")
    elif kind is NAMESPACE:
        if not _LABEL_1123.match(name):
            _bad(
                problems,
                "metadata.name",
                name,
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
                "and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
                "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            )
    elif len(name) > 253 or not _SUBDOMAIN.match(name):
        _bad(
            problems,
            "metadata.name",
            name,
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
            "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        )
    for key, value in (meta.get("labels") or {}).items():
        if not _QUALIFIED.match(key):
            _bad(problems, "metadata.labels", key, "name part must consist of alphanumeric characters, '-', '_' or '.'")
        if not _LABEL_VALUE.match(value):
            _bad(
                problems,
                "metadata.labels",
                value,
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
                "must start and end with an alphanumeric character",
            )
    for key in meta.get("annotations") or {}:
        if not _QUALIFIED.match(key.lower()):
            _bad(
                problems,
                "metadata.annotations",
                key,
                "name part must consist of alphanumeric characters, '-', '_' or '.'",
            )


def _quota(obj: Obj, problems: Problems) -> None:
    hard = (obj.get("spec") or {}).get("hard") or {}
    for key, value in hard.items():
        field = f"spec.hard[{key}]"
        if not _QUOTA_KEY.match(key):
            _bad(problems, field, key, "must be a standard resource type or fully qualified")
        number = parse(value)
        if number < 0:
            _bad(problems, field, value, "must be greater than or equal to 0")
        elif (key == "pods" or key.startswith("count/")) and number != number.to_integral_value():
            _bad(problems, field, value, "must be an integer")
    selector = (obj.get("spec") or {}).get("scopeSelector") or {}
    _scope_selector(selector.get("matchExpressions") or [], set(hard), problems)


_SCOPES = ("Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity")


def _scope_selector(expressions: list[Obj], keys: set[str], problems: Problems) -> None:
    """Scopes of a quota: which there are, with which operators, and that they select pods only."""
    base = "spec.scopeSelector.matchExpressions"
    for each in expressions:
        name, operator, values = each.get("scopeName"), each.get("operator"), each.get("values") or []
        if name not in _SCOPES:
            _bad(problems, f"{base}.scopeName", name, "unsupported scope")
        elif name != "PriorityClass" and operator != "Exists":
            text = (
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, "
                "ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or "
                "ResourceQuotaScopeCrossNamespacePodAffinity"
            )
            _bad(problems, f"{base}.operator", operator, text)
        if operator in ("In", "NotIn") and not values:
            text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            _required(problems, f"{base}.values", text)
        elif operator in ("Exists", "DoesNotExist") and values:
            text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            _bad(problems, f"{base}.values", json.dumps(values), text)
    scopes = {each.get("scopeName") for each in expressions}
    if {"BestEffort", "NotBestEffort"} <= scopes or {"Terminating", "NotTerminating"} <= scopes:
        problems.append(("FieldValueInvalid", base, "Invalid value: null: conflicting scopes"))
    counted = keys & _NOT_OF_PODS
    if scopes and counted:
        _bad(problems, base, json.dumps({"MatchExpressions": expressions}), "unsupported scope applied to resource")


_NOT_OF_PODS = {"configmaps", "services", "secrets", "persistentvolumeclaims", "resourcequotas", "requests.storage"}


def _limit_range(obj: Obj, problems: Problems) -> None:
    for index, item in enumerate((obj.get("spec") or {}).get("limits") or []):
        base = f"spec.limits[{index}]"
        if not item.get("type"):
            _required(problems, f"{base}.type")
        low, high = item.get("min") or {}, item.get("max") or {}
        asked, default = item.get("defaultRequest") or {}, item.get("default") or {}
        for name in {*low, *high, *asked, *default}:
            pairs = (
                (low, high, "min", "max"),
                (asked, default, "defaultRequest", "default"),
                (default, high, "default", "max"),
                (low, asked, "min", "defaultRequest"),
                (asked, high, "defaultRequest", "max"),
            )
            for small, large, small_name, large_name in pairs:
                if name in small and name in large and parse(small[name]) > parse(large[name]):
                    _bad(
                        problems,
                        f"{base}.{small_name}[{name}]",
                        small[name],
                        f"{small_name} value {small[name]} is greater than {large_name} value {large[name]}",
                    )


def _role_binding(obj: Obj, problems: Problems) -> None:
    role = obj.get("roleRef") or {}
    if role.get("kind") not in ("ClusterRole", "Role"):
        problems.append(
            (
                "FieldValueNotSupported",
                "roleRef.kind",
                f'Unsupported value: "{role.get("kind", "")}": supported values: "ClusterRole", "Role"',
            )
        )
    if not role.get("name"):
        _required(problems, "roleRef.name")
    for index, subject in enumerate(obj.get("subjects") or []):
        if not subject.get("name"):
            _required(problems, f"subjects[{index}].name")
        if subject.get("kind") not in ("User", "Group", "ServiceAccount"):
            problems.append(
                (
                    "FieldValueNotSupported",
                    f"subjects[{index}].kind",
                    f'Unsupported value: "{subject.get("kind", "")}": '
                    'supported values: "ServiceAccount", "User", "Group"',
                )
            )
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            _required(problems, f"subjects[{index}].namespace")


def pod_spec(spec: Obj, field: str, problems: Problems) -> None:
    """Containers, images and resources of a pod spec."""
    if not spec.get("containers"):
        _required(problems, f"{field}.containers")
    seen: set[str] = set()
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or []):
            base = f"{field}.{group}[{index}]"
            name = container.get("name", "")
            if not name:
                _required(problems, f"{base}.name")
            elif not _LABEL_1123.match(name):
                _bad(problems, f"{base}.name", name, "a lowercase RFC 1123 label must consist of lower case characters")
            elif name in seen:
                problems.append(("FieldValueDuplicate", f"{base}.name", f'Duplicate value: "{name}"'))
            seen.add(name)
            if not container.get("image"):
                _required(problems, f"{base}.image")
            _resources(container.get("resources") or {}, f"{base}.resources", problems)
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        problems.append(
            (
                "FieldValueNotSupported",
                f"{field}.restartPolicy",
                f'Unsupported value: "{spec.get("restartPolicy")}": supported values: "Always", "OnFailure", "Never"',
            )
        )


def _resources(resources: Obj, base: str, problems: Problems) -> None:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for part, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            number = parse(amount)
            if name not in _NATIVE and "/" not in name and not name.startswith("hugepages-"):
                _bad(problems, f"{base}.{part}[{name}]", name, "must be a standard resource for containers")
            if number < 0:
                _bad(problems, f"{base}.{part}[{name}]", amount, "must be greater than or equal to 0")
            elif is_extended(name) and number != number.to_integral_value():
                _bad(problems, f"{base}.{part}[{name}]", amount, "must be an integer")
    for name, amount in requests.items():
        limit = limits.get(name)
        if is_extended(name):
            if limit is None:
                _required(problems, f"{base}.limits", "Limit must be set for non overcommitable resources")
            elif parse(limit) != parse(amount):
                _bad(problems, f"{base}.requests", amount, f"must be equal to {name} limit of {limit}")
        elif limit is not None and parse(amount) > parse(limit):
            _bad(problems, f"{base}.requests", amount, f"must be less than or equal to {name} limit of {limit}")


def _pod(obj: Obj, problems: Problems) -> None:
    pod_spec(obj["spec"], "spec", problems)


def _template(spec: Obj, field: str, problems: Problems) -> Obj:
    template: Obj = spec.get("template") or {}
    pod_spec(template.get("spec") or {}, f"{field}.spec", problems)
    return template


def _job(obj: Obj, problems: Problems) -> None:
    spec = obj["spec"]
    template = _template(spec, "spec.template", problems)
    restart = (template.get("spec") or {}).get("restartPolicy")
    if restart == "Always":
        problems.append(
            (
                "FieldValueNotSupported",
                "spec.template.spec.restartPolicy",
                'Unsupported value: "Always": supported values: "OnFailure", "Never"',
            )
        )
    for name in ("parallelism", "completions", "backoffLimit"):
        if spec.get(name, 0) < 0:
            _bad(problems, f"spec.{name}", spec[name], "must be greater than or equal to 0")


def _deployment(obj: Obj, problems: Problems) -> None:
    spec = obj["spec"]
    template = _template(spec, "spec.template", problems)
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not spec.get("selector"):
        _required(problems, "spec.selector")
    elif not selector_matches(spec["selector"], labels):
        _bad(problems, "spec.template.metadata.labels", str(labels), "`selector` does not match template `labels`")
    if spec.get("replicas", 0) < 0:
        _bad(problems, "spec.replicas", spec["replicas"], "must be greater than or equal to 0")


def _priority_class(obj: Obj, problems: Problems) -> None:
    name = obj["metadata"].get("name", "")
    if not name.startswith("system-") and int(obj.get("value", 0)) > 1_000_000_000:
        problems.append(
            (
                "FieldValueForbidden",
                "value",
                "Forbidden: maximum allowed value of a user defined priority is 1000000000",
            )
        )


def _immutable(kind: Kind, obj: Obj, old: Obj, problems: Problems) -> None:
    if kind in (ROLE_BINDING, CLUSTER_ROLE_BINDING) and obj.get("roleRef") != old.get("roleRef"):
        problems.append(("FieldValueInvalid", "roleRef", f"Invalid value: {obj.get('roleRef')}: cannot change roleRef"))
    if kind is PRIORITY_CLASS and obj.get("value") != old.get("value"):
        problems.append(("FieldValueForbidden", "value", "Forbidden: may not be changed in an update."))
    if kind is QUOTA and (obj.get("spec") or {}).get("scopes") != (old.get("spec") or {}).get("scopes"):
        _bad(problems, "spec.scopes", str(obj.get("spec", {}).get("scopes")), _IMMUTABLE)
    if kind is DEPLOYMENT and obj["spec"].get("selector") != old["spec"].get("selector"):
        _bad(problems, "spec.selector", str(obj["spec"].get("selector")), _IMMUTABLE)
    if kind is JOB:
        for name in ("completions", "selector", "completionMode"):
            if obj["spec"].get(name) != old["spec"].get(name):
                _bad(problems, f"spec.{name}", str(obj["spec"].get(name)), _IMMUTABLE)
        suspended = bool(old["spec"].get("suspend")) and not (old.get("status") or {}).get("startTime")
        if obj["spec"].get("template") != old["spec"].get("template") and not suspended:
            _bad(problems, "spec.template", "…", _IMMUTABLE)
    if kind is POD and _frozen(obj["spec"]) != _frozen(old["spec"]):
        problems.append(
            (
                "FieldValueForbidden",
                "spec",
                "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
                "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
                "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
                "previously negative)",
            )
        )


def _frozen(spec: Obj) -> Obj:
    free = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "nodeName")
    out = {name: value for name, value in spec.items() if name not in free}
    for group in ("containers", "initContainers"):
        if group in out:
            out[group] = [{k: v for k, v in each.items() if k != "image"} for each in out[group]]
    return out


def total(amounts: list[str]) -> Decimal:
    """Sum of quantities as a number."""
    return sum((parse(each) for each in amounts), Decimal(0))


_HANDLERS: dict[Kind, Callable[[Obj, Problems], None]] = {
    QUOTA: _quota,
    LIMIT_RANGE: _limit_range,
    ROLE_BINDING: _role_binding,
    CLUSTER_ROLE_BINDING: _role_binding,
    POD: _pod,
    JOB: _job,
    DEPLOYMENT: _deployment,
    PRIORITY_CLASS: _priority_class,
}
