"""ValidatingAdmissionPolicies: which requests they match, what they say, and what their bindings do about it.

Deny answers 422 as a real server does where a validation states no reason (checked), Warn adds a warning, Audit an
entry to the audit log at `/simulated/audit`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from apps.demo.cluster.auth import User
from apps.demo.cluster.cel import BadExpression, EvaluationError, compiled
from apps.demo.cluster.errors import ApiError, Obj, invalid
from apps.demo.cluster.kinds import NAMESPACE, POLICY, POLICY_BINDING, Kind
from apps.demo.cluster.selectors import selector_matches
from apps.demo.cluster.store import Store

_CODES = {"Invalid": 422, "Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413}
_ACTIONS = ("Audit", "Deny", "Warn")
_KEPT = 1000


@dataclass(frozen=True)
class Asked:
    """A write to be judged. `obj` is None for a deletion, `old` for a creation."""

    kind: Kind
    operation: str
    namespace: str
    name: str
    user: User
    obj: Obj | None
    old: Obj | None
    subresource: str = ""
    dry_run: bool = False


class _Misconfigured(Exception):
    """A binding whose parameters cannot be had."""


class Audit:
    """The last audit entries, in memory, and how many there were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Obj] = deque(maxlen=_KEPT)
        self._count = 0

    def add(self, entry: Obj) -> None:
        """Note a request that a policy would have refused."""
        with self._lock:
            self._entries.append(entry)
            self._count += 1

    def wire(self) -> Obj:
        """State as the admin endpoint shows it, newest last."""
        with self._lock:
            return {"count": self._count, "entries": list(self._entries)}


class Policies:
    """Evaluates the policies that are stored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.audit = Audit()

    def admit(self, asked: Asked, warnings: list[str]) -> None:
        """Raise what a Deny binding answers; append warnings, note audit entries."""
        bindings = self._store.entries(POLICY_BINDING)
        if not bindings or asked.kind in (POLICY, POLICY_BINDING):
            return  # nobody locks themselves out: policies are not judged by policies
        for binding in bindings:
            spec = binding.obj.get("spec") or {}
            policy = self._store.get(POLICY, "", str(spec.get("policyName", "")))
            if policy is None:
                continue
            rules = policy.obj.get("spec") or {}
            match = spec.get("matchResources")
            if not self._matches(rules.get("matchConstraints") or {}, asked):
                continue
            if match and not self._matches(match, asked, every_resource=not match.get("resourceRules")):
                continue
            names, actions = (policy.name, binding.name), set(spec.get("validationActions") or [])
            try:
                params = self._params(rules.get("paramKind"), spec.get("paramRef"), asked)
            except _Misconfigured as error:
                # As on a real server: what cannot be configured is denied whatever the binding's actions are.
                if rules.get("failurePolicy") != "Ignore":
                    text = f"failed to configure binding: {error}"
                    self._act(names, {"Deny"}, "Invalid", text, asked, warnings)
                continue
            for each in params:
                for reason, message in self._judge(rules, asked, each):
                    self._act(names, actions, reason, message, asked, warnings)

    def _params(self, kind: Obj | None, ref: Obj | None, asked: Asked) -> list[Obj | None]:
        """What `params` is to be, once for each; none at all where nothing is found and that is allowed.

        Raises `_Misconfigured` in the words of `generic.CollectParams` (k8s.io/apiserver 1.36).
        """
        if not kind or not ref:
            return [None]
        served = self._store.kind_named(str(kind.get("apiVersion")), str(kind.get("kind")))
        if served is None:
            raise _Misconfigured(f"paramKind kind `{kind.get('apiVersion')}, Kind={kind.get('kind')}` not known")
        namespace = ""
        if served.namespaced:
            namespace = ref.get("namespace") or (asked.name if asked.kind is NAMESPACE else asked.namespace)
            if not namespace:
                raise _Misconfigured(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                )
        elif ref.get("namespace"):
            raise _Misconfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        found: list[Obj | None] = []
        if ref.get("name"):
            entry = self._store.get(served, namespace, ref["name"])
            found = [entry.obj] if entry is not None else []
        elif ref.get("selector") is not None:
            found = [
                entry.obj
                for entry in self._store.entries(served, namespace)
                if selector_matches(ref["selector"], entry.obj["metadata"].get("labels") or {})
            ]
        if not found and ref.get("parameterNotFoundAction") == "Deny":
            raise _Misconfigured("no params found for policy binding with `Deny` parameterNotFoundAction")
        return found

    def _matches(self, match: Obj, asked: Asked, *, every_resource: bool = False) -> bool:
        rules = match.get("resourceRules") or []
        if not every_resource and not any(_rule_covers(rule, asked) for rule in rules):
            return False
        if any(_rule_covers(rule, asked) for rule in match.get("excludeResourceRules") or []):
            return False
        selector = match.get("objectSelector") or {}
        if selector and not any(
            each is not None and selector_matches(selector, each["metadata"].get("labels") or {})
            for each in (asked.obj, asked.old)
        ):
            return False
        selector = match.get("namespaceSelector") or {}
        if not selector or (not asked.namespace and asked.kind is not NAMESPACE):
            return True
        return selector_matches(selector, (self._namespace(asked) or {"metadata": {}})["metadata"].get("labels") or {})

    def _namespace(self, asked: Asked) -> Obj | None:
        if asked.kind is NAMESPACE:
            return asked.obj or asked.old
        found = self._store.get(NAMESPACE, "", asked.namespace) if asked.namespace else None
        return found.obj if found else None

    def _judge(self, rules: Obj, asked: Asked, params: Obj | None) -> Iterator[tuple[str, str]]:
        """Reason and message of every validation that fails."""
        ignores = rules.get("failurePolicy") == "Ignore"
        values: dict[str, Any] = {
            "object": asked.obj,
            "oldObject": asked.old,
            "request": _request(asked),
            "namespaceObject": self._namespace(asked) if asked.kind is not NAMESPACE else None,
            "params": params,
            "variables": {},
        }
        for condition in rules.get("matchConditions") or []:
            try:
                if not bool(compiled(condition["expression"])(values)):
                    return
            except EvaluationError as error:
                if not ignores:
                    yield "Invalid", f"match condition '{condition['name']}' resulted in error: {error}"
                return
        broken: dict[str, str] = {}
        for variable in rules.get("variables") or []:
            try:
                values["variables"][variable["name"]] = compiled(variable["expression"])(values)
            except EvaluationError as error:
                broken[variable["name"]] = str(error)
        for validation in rules.get("validations") or []:
            expression = " ".join(str(validation["expression"]).split())
            try:
                if bool(compiled(validation["expression"])(values)):
                    continue
                message = validation.get("message") or f"failed expression: {expression}"
                if validation.get("messageExpression"):
                    message = self._message(validation["messageExpression"], values) or message
            except EvaluationError as error:
                if ignores:
                    continue
                why = next((text for name, text in broken.items() if f"variables.{name}" in expression), str(error))
                message = f"expression '{expression}' resulted in error: {why}"
            yield validation.get("reason") or "Invalid", str(message)

    def _message(self, expression: str, values: dict[str, Any]) -> str:
        try:
            return str(compiled(expression)(values)).strip()
        except EvaluationError:
            return ""  # as documented: the plain message is used instead

    def _act(
        self, names: tuple[str, str], actions: set[str], reason: str, message: str, asked: Asked, warnings: list[str]
    ) -> None:
        policy, binding = names
        head = f"ValidatingAdmissionPolicy '{policy}' with binding '{binding}'"
        if "Warn" in actions:
            warnings.append(f"Validation failed for {head}: {message}")
        if "Audit" in actions and not asked.dry_run:
            self.audit.add(
                {
                    "policy": policy,
                    "binding": binding,
                    "message": message,
                    "validationActions": sorted(actions),
                    "user": asked.user.name,
                    "operation": asked.operation,
                    "resource": asked.kind.group_resource,
                    "namespace": asked.namespace,
                    "name": asked.name,
                }
            )
        if "Deny" in actions:
            text = f"{head} denied request: {message}"
            details: Obj = {"name": asked.name, "kind": asked.kind.plural, "causes": [{"message": text}]}
            if asked.kind.group:
                details["group"] = asked.kind.group
            full = f'{asked.kind.group_resource} "{asked.name}" is forbidden: {text}'
            raise ApiError(_CODES.get(reason, 422), reason, full, details)


def _rule_covers(rule: Obj, asked: Asked) -> bool:
    def listed(name: str, value: str) -> bool:
        return "*" in (rule.get(name) or []) or value in (rule.get(name) or [])

    resources = rule.get("resources") or []
    full = f"{asked.kind.plural}/{asked.subresource}" if asked.subresource else asked.kind.plural
    wide = [f"{asked.kind.plural}/*", f"*/{asked.subresource}", "*/*"] if asked.subresource else ["*", "*/*"]
    scope = rule.get("scope", "*")
    names = rule.get("resourceNames") or []
    return (
        listed("apiGroups", asked.kind.group)
        and listed("apiVersions", asked.kind.version)
        and listed("operations", asked.operation)
        and any(each in resources for each in (full, *wide))
        and (scope == "*" or (scope == "Namespaced") is asked.kind.namespaced)
        and (not names or asked.name in names)
    )


def _request(asked: Asked) -> Obj:
    kind = {"group": asked.kind.group, "version": asked.kind.version, "kind": asked.kind.kind}
    resource = {"group": asked.kind.group, "version": asked.kind.version, "resource": asked.kind.plural}
    namespace = asked.name if asked.kind is NAMESPACE else asked.namespace
    groups = [*asked.user.groups, "system:authenticated"]
    return {
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "subResource": asked.subresource,
        "name": asked.name,
        "namespace": namespace,
        "operation": asked.operation,
        "userInfo": {"username": asked.user.name, "groups": groups, "uid": "", "extra": {}},
        "dryRun": asked.dry_run,
    }


def validate(kind: Kind, obj: Obj) -> None:
    """Raise the 422 for a policy or binding that cannot work."""
    problems: list[tuple[str, str, str]] = []
    spec = obj.get("spec") or {}
    if kind is POLICY_BINDING:
        actions = spec.get("validationActions") or []
        base = "spec.validationActions"
        if not spec.get("policyName"):
            problems.append(("FieldValueRequired", "spec.policyName", "Required value"))
        if not actions:
            text = "Required value: at least one validation action is required"
            problems.append(("FieldValueRequired", base, text))
        for index, action in enumerate(actions):
            if action not in _ACTIONS:
                text = f'Unsupported value: "{action}": supported values: "Audit", "Deny", "Warn"'
                problems.append(("FieldValueNotSupported", f"{base}[{index}]", text))
        problems += _param_problems(spec.get("paramRef"))
        if {"Deny", "Warn"} <= set(actions):
            listed = "[" + ",".join(f'"{action}"' for action in actions) + "]"
            text = (
                f"Invalid value: {listed}: must not contain both Deny and Warn (repeating the same validation failure "
                "information in the API response and headers serves no purpose)"
            )
            problems.append(("FieldValueInvalid", base, text))
    else:
        problems += _policy_problems(spec)
    if problems:
        raise invalid(kind.kind, kind.group, obj["metadata"].get("name", ""), problems)


def _param_problems(ref: Obj | None) -> Iterator[tuple[str, str, str]]:
    if ref is None:
        return
    if bool(ref.get("name")) == (ref.get("selector") is not None):
        text = "Forbidden: name and selector are mutually exclusive" if ref.get("name") else "Required value"
        reason = "FieldValueForbidden" if ref.get("name") else "FieldValueRequired"
        yield (reason, "spec.paramRef", f"{text}: one of name or selector must be specified")
    action = ref.get("parameterNotFoundAction")
    if action not in ("Allow", "Deny"):
        place = "spec.paramRef.parameterNotFoundAction"
        if not action:
            yield ("FieldValueRequired", place, "Required value")
        else:
            text = f'Unsupported value: "{action}": supported values: "Allow", "Deny"'
            yield ("FieldValueNotSupported", place, text)


def _policy_problems(spec: Obj) -> Iterator[tuple[str, str, str]]:
    for name in ("apiVersion", "kind"):
        if spec.get("paramKind") is not None and not spec["paramKind"].get(name):
            yield ("FieldValueRequired", f"spec.paramKind.{name}", "Required value")
    if "matchConstraints" not in spec:
        yield ("FieldValueRequired", "spec.matchConstraints", "Required value")
    elif not spec["matchConstraints"].get("resourceRules"):
        yield ("FieldValueRequired", "spec.matchConstraints.resourceRules", "Required value")
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        for part in ("validations", "auditAnnotations"):
            text = "Required value: validations or auditAnnotations must contain at least one item"
            yield ("FieldValueRequired", f"spec.{part}", text)
    for part in ("matchConditions", "variables", "validations"):
        for index, each in enumerate(spec.get(part) or []):
            place = f"spec.{part}[{index}].expression"
            text = each.get("expression", "")
            if not text.strip():
                yield ("FieldValueRequired", place, "Required value: expression is not specified")
                continue
            try:
                compiled(text)
            except BadExpression as error:
                yield ("FieldValueInvalid", place, f'Invalid value: "{text}": {error}')
