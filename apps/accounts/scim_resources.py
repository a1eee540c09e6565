"""How accounts and groups look to a directory, and how it searches them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Prefetch, Q, QuerySet
from django.urls import reverse
from django.utils.dateparse import parse_datetime

from apps.accounts.models import DirectoryGroup, DirectoryMembership, ExternalIdentity, IdentityProvider
from apps.accounts.scim_errors import invalid_filter
from apps.accounts.scim_filter import (
    CORE_GROUP,
    CORE_USER,
    ENTERPRISE,
    Filter,
    Junction,
    Negation,
    Within,
)

#: attribute → lookup; "!" in front: compared exactly.
_USER_FIELDS = {
    "username": "user_name",
    "externalid": "!external_id",
    "displayname": "user__display_name",
    "emails": "user__email",
    "emails.value": "user__email",
    "name.formatted": "attributes__name__formatted",
    "name.familyname": "attributes__name__familyName",
    "name.givenname": "attributes__name__givenName",
    "title": "attributes__title",
    "employeenumber": f"attributes__{ENTERPRISE}__employeeNumber",
}
_GROUP_FIELDS = {"displayname": "name", "externalid": "!external_id"}
_GROUP_OF = "directory_memberships__group__uid"
_MEMBER_OF = "memberships__identity__uid"
_IDS = {
    "user": {"id": "uid", "groups": _GROUP_OF, "groups.value": _GROUP_OF},
    "group": {"id": "uid", "members": _MEMBER_OF, "members.value": _MEMBER_OF},
}
_TIMES = {
    "user": {"meta.created": "created_at", "meta.lastmodified": "updated_at"},
    "group": {"meta.created": "created_at", "meta.lastmodified": "updated_at"},
}
_TEXT_LOOKUPS = {"eq": "iexact", "co": "icontains", "sw": "istartswith", "ew": "iendswith"}
_TIME_LOOKUPS = {"eq": "exact", "gt": "gt", "ge": "gte", "lt": "lt", "le": "lte"}


def users_of(provider: IdentityProvider) -> QuerySet[ExternalIdentity]:
    """Return the accounts that the provider's directory keeps."""
    found = ExternalIdentity.objects.filter(provider=provider, provisioned=True, user__erased_at__isnull=True)
    return found.select_related("user").order_by("pk")


def groups_of(provider: IdentityProvider) -> QuerySet[DirectoryGroup]:
    """Return the groups that the provider's directory keeps."""
    return DirectoryGroup.objects.filter(provider=provider).order_by("pk")


def with_groups(rows: QuerySet[ExternalIdentity]) -> QuerySet[ExternalIdentity]:
    """Return accounts with the groups they are in, in one query more."""
    memberships = DirectoryMembership.objects.select_related("group").order_by("group__name")
    return rows.prefetch_related(Prefetch("directory_memberships", memberships))


def with_members(rows: QuerySet[DirectoryGroup]) -> QuerySet[DirectoryGroup]:
    """Return groups with their members, in one query more."""
    memberships = DirectoryMembership.objects.select_related("identity__user").order_by("pk")
    return rows.prefetch_related(Prefetch("memberships", memberships))


def user_resource(identity: ExternalIdentity) -> dict[str, Any]:
    """Return an account as a SCIM user. `active` is what holds: off also where an administrator switched it off."""
    kept = {
        key: value for key, value in identity.attributes.items()
        if key not in ("schemas", "id", "meta", "groups", "password")
    }  # fmt: skip
    provider = identity.provider
    groups = [
        {"value": str(one.group.uid), "display": one.group.name, "$ref": _location("group", provider, one.group.uid)}
        for one in identity.directory_memberships.all()
    ]
    return {
        "schemas": [CORE_USER, *([ENTERPRISE] if ENTERPRISE in kept else [])],
        "id": str(identity.uid),
        **({"externalId": identity.external_id} if identity.external_id else {}),
        **kept,
        "userName": identity.user_name,
        "displayName": identity.user.display_name,
        "active": identity.active and identity.user.is_active,
        "emails": kept.get("emails") or [{"value": identity.user.email, "type": "work", "primary": True}],
        "groups": groups,
        "meta": _meta("User", "user", provider, identity),
    }


def group_resource(group: DirectoryGroup, *, members: bool = True) -> dict[str, Any]:
    """Return a group as a SCIM group."""
    provider = group.provider
    found: dict[str, Any] = {
        "schemas": [CORE_GROUP],
        "id": str(group.uid),
        **({"externalId": group.external_id} if group.external_id else {}),
        "displayName": group.name,
    }
    if members:
        found["members"] = [
            {
                "value": str(one.identity.uid),
                "display": one.identity.user.display_name,
                "type": "User",
                "$ref": _location("user", provider, one.identity.uid),
            }
            for one in group.memberships.all()
        ]
    return {**found, "meta": _meta("Group", "group", provider, group)}


def cut(resource: dict[str, Any], only: Collection[str], without: Collection[str]) -> dict[str, Any]:
    """Return a resource with `attributes` alone, or without `excludedAttributes`; id, schemas and meta always stay."""
    always = {"id", "schemas", "meta"}
    if only:
        tops = {one.partition(".")[0] for one in only}
        return {key: value for key, value in resource.items() if key in always or key.lower() in tops}
    return {key: value for key, value in resource.items() if key in always or key.lower() not in without}


def condition(found: Filter, kind: str) -> Q:
    """Return a filter over users or groups as a query. Raises ScimError for an attribute that is not searched."""
    if isinstance(found, Junction):
        left, right = condition(found.left, kind), condition(found.right, kind)
        return left & right if found.op == "and" else left | right
    if isinstance(found, Negation):
        return ~condition(found.inner, kind)
    if isinstance(found, Within):
        return _within(found, found.inner, kind)
    return _comparison(found.attribute.key, found.op, found.value, kind)


# -- the parts


def _within(outer: Within, inner: Filter, kind: str) -> Q:
    """One element meets all: here, every multi-valued attribute that is searched has one element that counts."""
    if isinstance(inner, Junction):
        left, right = _within(outer, inner.left, kind), _within(outer, inner.right, kind)
        return left & right if inner.op == "and" else left | right
    if isinstance(inner, Negation):
        return ~_within(outer, inner.inner, kind)
    if isinstance(inner, Within):
        raise invalid_filter("A filter within a filter of an attribute is not searched.")
    name, part = outer.attribute.name.lower(), inner.attribute.key
    if name == "emails" and part in ("type", "primary"):
        wanted = str(inner.value).lower()
        # The one address that is kept is the work address.
        return Q() if inner.op == "eq" and wanted in ("work", "true") else Q(pk__in=[])
    return _comparison(f"{name}.{part}", inner.op, inner.value, kind)


def _comparison(name: str, op: str, value: Any, kind: str) -> Q:
    if name in _IDS[kind]:
        return _by_id(_IDS[kind][name], op, value)
    if name in _TIMES[kind]:
        return _by_time(_TIMES[kind][name], op, value)
    if name == "active" and kind == "user":
        on = Q(active=True, user__is_active=True)
        same = str(value).lower() == "true"
        if op not in ("eq", "ne", "pr"):
            raise invalid_filter("active is compared with eq and ne.")
        return Q() if op == "pr" else on if same == (op == "eq") else ~on
    field = (_USER_FIELDS if kind == "user" else _GROUP_FIELDS).get(name)
    if field is None:
        raise invalid_filter(f"{name[:50]} is not searched.")
    return _by_text(field, op, value)


def _by_text(field: str, op: str, value: Any) -> Q:
    exact, lookup = field.startswith("!"), field.lstrip("!")
    if op == "pr":
        return Q(**{f"{lookup}__isnull": False}) & ~Q(**{lookup: ""})
    if op == "ne":
        return ~_by_text(field, "eq", value)
    if op not in _TEXT_LOOKUPS:
        raise invalid_filter(f"Texts are not compared with {op}.")
    if not isinstance(value, str):
        raise invalid_filter("Compare a text with a text in double quotes.")
    if op in ("co", "sw", "ew") and not value:
        return _by_text(field, "pr", None)
    return Q(**{f"{lookup}__{'exact' if exact and op == 'eq' else _TEXT_LOOKUPS[op]}": value})


def _by_id(lookup: str, op: str, value: Any) -> Q:
    if op == "pr":
        return Q(**{f"{lookup}__isnull": False})
    if op not in ("eq", "ne"):
        raise invalid_filter("Ids are compared with eq and ne.")
    try:
        same = Q(**{lookup: UUID(str(value))})
    except ValueError:
        same = Q(pk__in=[])
    return same if op == "eq" else ~same


def _by_time(lookup: str, op: str, value: Any) -> Q:
    if op == "pr":
        return Q()
    at: datetime | None = None
    try:
        at = parse_datetime(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or op not in _TIME_LOOKUPS:
        raise invalid_filter("Compare times such as 2026-11-22T10:00:00Z by eq, gt, ge, lt and le.")
    return Q(**{f"{lookup}__{_TIME_LOOKUPS[op]}": at})


def _location(kind: str, provider: IdentityProvider, uid: UUID) -> str:
    path = reverse(f"accounts:scim-{kind}", kwargs={"provider_slug": provider.slug, "resource_id": str(uid)})
    return f"{settings.COMMONS_BASE_URL}{path}"


def _meta(name: str, kind: str, provider: IdentityProvider, row: Any) -> Mapping[str, Any]:
    return {
        "resourceType": name,
        "created": _moment(row.created_at),
        "lastModified": _moment(row.updated_at),
        "location": _location(kind, provider, row.uid),
        "version": f'W/"{row.version}"',
    }


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


__all__ = [
    "condition",
    "cut",
    "group_resource",
    "groups_of",
    "user_resource",
    "users_of",
    "with_groups",
    "with_members",
]
