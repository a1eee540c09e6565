"""Who calls (bearer tokens) and what they may do (RBAC by RoleBindings and ClusterRoleBindings)."""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from apps.demo.cluster.errors import ApiError, Obj
from apps.demo.cluster.kinds import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING, Kind
from apps.demo.cluster.store import Store

MASTERS = "system:masters"
RBAC_GROUP = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class User:
    """An authenticated identity."""

    name: str
    groups: tuple[str, ...] = ()

    @property
    def is_master(self) -> bool:
        """Members of `system:masters` bypass authorisation, as in a real cluster."""
        return MASTERS in self.groups


class Tokens:
    """Bearer tokens: some given at start, some in a JSON file that is re-read when it changes.

    The file maps each token to `{"user": …, "groups": […]}`.
    """

    def __init__(self, path: Path, fixed: dict[str, User] | None = None) -> None:
        self.path = path
        self._fixed = dict(fixed or {})
        self._file: dict[str, User] = {}
        self._stamp: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def user(self, token: str) -> User | None:
        """Identity of a token, or None."""
        self._refresh()
        return self._fixed.get(token) or self._file.get(token)

    def _refresh(self) -> None:
        try:
            info = os.stat(self.path)
        except FileNotFoundError:
            self._file, self._stamp = {}, None
            return
        stamp = (info.st_mtime_ns, info.st_size)
        if stamp == self._stamp:
            return
        with self._lock:
            try:
                read = json.loads(self.path.read_text("utf-8"))
                self._file = {
                    token: User(str(who["user"]), tuple(str(group) for group in who.get("groups", [])))
                    for token, who in read.items()
                }
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                # A half-written or malformed file must not lock everybody out: the last good state stays in force.
                sys.stderr.write(f"tokens file {self.path.name} is unreadable, keeping the last good one: {error}\n")
            self._stamp = stamp

    def issue(self, user: str, groups: list[str]) -> str:
        """Return the token of that user with exactly these groups, adding it to the file where it is missing."""
        self._refresh()
        for token, known in self._file.items():
            if known == User(user, tuple(groups)):
                return token
        token = secrets.token_urlsafe(24)
        with self._lock:
            rows = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}
            rows[token] = {"user": user, "groups": groups}
            scratch = self.path.with_suffix(".new")
            scratch.touch(mode=0o600)
            scratch.write_text(json.dumps(rows, indent=1), "utf-8")
            scratch.replace(self.path)
        return token


@dataclass(frozen=True)
class Attempt:
    """What is being tried: verb on a resource (with subresource), in a namespace or cluster-wide."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def full_resource(self) -> str:
        """`pods` or `pods/status`, as rules name it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass
class Rbac:
    """Authorisation from the objects in the store."""

    store: Store
    everyone: tuple[tuple[str, str], ...] = field(
        default=(("authorization.k8s.io", "selfsubjectaccessreviews"), ("authentication.k8s.io", "selfsubjectreviews"))
    )

    def allows(self, user: User, attempt: Attempt) -> bool:
        """True where a rule bound to the user or one of the groups allows the attempt."""
        if user.is_master:
            return True
        if (attempt.group, attempt.resource) in self.everyone and attempt.verb == "create":
            return True
        # A namespace can be read by those bound in it: `get namespaces NAME` is authorised inside that namespace.
        return any(rule_covers(rule, attempt) for rule in self.rules(user, attempt.namespace))

    def rules(self, user: User, namespace: str) -> Iterator[Obj]:
        """Rules in force for a user in a namespace (empty: at the cluster scope)."""
        bindings = self.store.entries(CLUSTER_ROLE_BINDING)
        if namespace:
            bindings = [*bindings, *self.store.entries(ROLE_BINDING, namespace)]
        for entry in bindings:
            if any(_is_subject(subject, user) for subject in entry.obj.get("subjects") or []):
                yield from self.rules_of(entry.obj.get("roleRef") or {}, entry.namespace)

    def rules_of(self, role: Obj, namespace: str) -> list[Obj]:
        """Rules of the Role or ClusterRole that a binding names; none where it does not exist."""
        name = str(role.get("name", ""))
        if role.get("kind") == "ClusterRole":
            found = self.store.get(CLUSTER_ROLE, "", name)
        else:
            found = self.store.get(ROLE, namespace, name) if namespace else None
        return list(found.obj.get("rules") or []) if found else []

    def check(self, user: User, attempt: Attempt) -> None:
        """Raise the 403 that the API server words for an attempt nobody allowed."""
        if not self.allows(user, attempt):
            raise denied(user, attempt)

    def check_grant(self, user: User, namespace: str, role: Obj, plural: str = "rolebindings") -> None:
        """Refuse privilege escalation: whoever binds a role must hold its rules there, or may `bind` it.

        Raises 403, as the RBAC storage layer does.
        """
        kind = "clusterroles" if role.get("kind") == "ClusterRole" else "roles"
        if self.allows(user, Attempt("bind", RBAC_GROUP, kind, namespace, str(role.get("name", "")))):
            return
        rules = self.rules_of(role, namespace)
        if not rules or not self._holds(user, namespace, rules):
            raise ApiError(
                403,
                "Forbidden",
                f'{plural}.rbac.authorization.k8s.io is forbidden: user "{user.name}" '
                f"(groups={list(user.groups)!r}) is attempting to grant RBAC permissions not currently held",
            )

    def check_rules(self, user: User, namespace: str, rules: list[Obj], plural: str, name: str) -> None:
        """Refuse a role with rules its writer does not hold, unless allowed to `escalate`. Raises 403."""
        if self.allows(user, Attempt("escalate", RBAC_GROUP, plural, namespace, name)):
            return
        if not self._holds(user, namespace, rules):
            raise ApiError(
                403,
                "Forbidden",
                f'{plural}.rbac.authorization.k8s.io "{name}" is forbidden: user "{user.name}" '
                f"(groups={list(user.groups)!r}) is attempting to grant RBAC permissions not currently held",
            )

    def _holds(self, user: User, namespace: str, rules: list[Obj]) -> bool:
        mine = list(self.rules(user, namespace))
        return all(
            any(rule_covers(each, attempt) for each in mine) for rule in rules for attempt in _attempts(rule, namespace)
        )


def _attempts(rule: Obj, namespace: str) -> Iterator[Attempt]:
    for group in rule.get("apiGroups") or []:
        for resource in rule.get("resources") or []:
            for verb in rule.get("verbs") or []:
                name, _, sub = resource.partition("/")
                for only in rule.get("resourceNames") or [""]:
                    yield Attempt(verb, group, name, namespace, only, sub)


def _is_subject(subject: Obj, user: User) -> bool:
    if subject.get("kind") == "Group":
        return subject.get("name") in user.groups or subject.get("name") == "system:authenticated"
    if subject.get("kind") == "ServiceAccount":
        return user.name == f"system:serviceaccount:{subject.get('namespace', '')}:{subject.get('name', '')}"
    return subject.get("kind") == "User" and subject.get("name") == user.name


def rule_covers(rule: Obj, attempt: Attempt) -> bool:
    """One PolicyRule against one attempt."""

    def covers(listed: list[str] | None, value: str) -> bool:
        return "*" in (listed or []) or value in (listed or [])

    names = rule.get("resourceNames") or []
    return (
        covers(rule.get("verbs"), attempt.verb)
        and covers(rule.get("apiGroups"), attempt.group)
        and (
            covers(rule.get("resources"), attempt.full_resource)
            or bool(attempt.subresource and f"*/{attempt.subresource}" in (rule.get("resources") or []))
        )
        and (not names or attempt.name in names)
    )


def denied(user: User, attempt: Attempt) -> ApiError:
    """The API server's 403 sentence."""
    qualified = f"{attempt.resource}.{attempt.group}" if attempt.group else attempt.resource
    subject = f'{qualified} "{attempt.name}"' if attempt.name else qualified
    where = f'in the namespace "{attempt.namespace}"' if attempt.namespace else "at the cluster scope"
    message = (
        f'{subject} is forbidden: User "{user.name}" cannot {attempt.verb} resource "{attempt.full_resource}" '
        f'in API group "{attempt.group}" {where}'
    )
    details: Obj = {"kind": attempt.resource}
    if attempt.name:
        details["name"] = attempt.name
    if attempt.group:
        details["group"] = attempt.group
    return ApiError(403, "Forbidden", message, details)


def kind_attempt(verb: str, kind: Kind, namespace: str, name: str = "", subresource: str = "") -> Attempt:
    """Attempt on a served kind. For a Namespace object the namespace is itself, as the real server treats it."""
    if kind.kind == "Namespace" and name:
        namespace = name
    return Attempt(verb, kind.group, kind.plural, namespace, name, subresource)
