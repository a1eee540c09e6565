"""What the portal says of itself to directories (RFC 7643 §5 to §7): configuration, resource types, schemas. Data."""

from __future__ import annotations

from typing import Any

from apps.accounts.scim_filter import CORE_GROUP, CORE_USER, ENTERPRISE
from apps.accounts.scim_patch import MAX_OPERATIONS

LIST_RESPONSE = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
_CONFIG = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"
_TYPE = "urn:ietf:params:scim:schemas:core:2.0:ResourceType"
_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Schema"

#: A page holds so many resources at most, and so many where nothing is said.
MAX_RESULTS = 200
DEFAULT_RESULTS = 100


def service_provider_config(base: str) -> dict[str, Any]:
    """Return what is supported."""
    return {
        "schemas": [_CONFIG],
        "patch": {"supported": True},
        "bulk": {"supported": False, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": True, "maxResults": MAX_RESULTS},
        "changePassword": {"supported": False},
        "sort": {"supported": False},
        "etag": {"supported": True},
        "authenticationSchemes": [
            {
                "type": "oauthbearertoken",
                "name": "Bearer token",
                "description": "A token made on the provider's provisioning page. At most"
                f" {MAX_OPERATIONS} operations in one PATCH.",
                "primary": True,
            }
        ],
        "meta": {"resourceType": "ServiceProviderConfig", "location": f"{base}/ServiceProviderConfig"},
    }


def resource_types(base: str) -> list[dict[str, Any]]:
    """Return the two kinds of resources."""
    return [
        {
            "schemas": [_TYPE],
            "id": "User",
            "name": "User",
            "description": "A person with an account",
            "endpoint": "/Users",
            "schema": CORE_USER,
            "schemaExtensions": [{"schema": ENTERPRISE, "required": False}],
            "meta": {"resourceType": "ResourceType", "location": f"{base}/ResourceTypes/User"},
        },
        {
            "schemas": [_TYPE],
            "id": "Group",
            "name": "Group",
            "description": "A group whose members may be given roles",
            "endpoint": "/Groups",
            "schema": CORE_GROUP,
            "meta": {"resourceType": "ResourceType", "location": f"{base}/ResourceTypes/Group"},
        },
    ]


def schemas(base: str) -> list[dict[str, Any]]:
    """Return the attributes of users, of the enterprise extension, and of groups."""
    user = [
        _attribute("userName", "What the person signs in with at the provider", required=True, uniqueness="server"),
        _attribute("externalId", "The directory's own id", exact=True),
        _complex("name", "The person's name", [_attribute(one) for one in ("formatted", "familyName", "givenName")]),
        _attribute("displayName", "As others see the person"),
        _attribute("title", "What the person is"),
        _attribute("active", "False switches the account off", kind="boolean"),
        _complex("emails", "The primary one is the account's address", _elements(), multi=True),
        _complex("groups", "The groups the person is in", _elements(), multi=True, mutability="readOnly"),
    ]
    enterprise = [
        *(_attribute(one) for one in ("employeeNumber", "costCenter", "organization", "division", "department")),
        _complex("manager", "Whom the person reports to", [_attribute("value"), _attribute("displayName")]),
    ]
    group = [
        _attribute("displayName", "Mappings name groups by it, or by externalId", required=True, uniqueness="server"),
        _attribute("externalId", "The directory's own id", exact=True),
        _complex("members", "Ids of users", [_attribute("value", mutability="immutable")], multi=True),
    ]
    return [
        _schema(base, CORE_USER, "User", user),
        _schema(base, ENTERPRISE, "EnterpriseUser", enterprise),
        _schema(base, CORE_GROUP, "Group", group),
    ]


def _schema(base: str, urn: str, name: str, attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schemas": [_SCHEMA],
        "id": urn,
        "name": name,
        "description": name,
        "attributes": attributes,
        "meta": {"resourceType": "Schema", "location": f"{base}/Schemas/{urn}"},
    }


def _attribute(
    name: str,
    description: str = "",
    *,
    kind: str = "string",
    required: bool = False,
    exact: bool = False,
    mutability: str = "readWrite",
    uniqueness: str = "none",
) -> dict[str, Any]:
    found = {
        "name": name,
        "type": kind,
        "multiValued": False,
        "description": description or name,
        "required": required,
        "mutability": mutability,
        "returned": "default",
    }
    return found if kind == "boolean" else {**found, "caseExact": exact, "uniqueness": uniqueness}


def _complex(
    name: str, description: str, parts: list[dict[str, Any]], *, multi: bool = False, mutability: str = "readWrite"
) -> dict[str, Any]:
    return {
        "name": name,
        "type": "complex",
        "multiValued": multi,
        "description": description,
        "required": False,
        "mutability": mutability,
        "returned": "default",
        "subAttributes": parts,
    }


def _elements() -> list[dict[str, Any]]:
    return [_attribute("value"), _attribute("type"), _attribute("display"), _attribute("primary", kind="boolean")]


__all__ = [
    "DEFAULT_RESULTS",
    "ERROR",
    "LIST_RESPONSE",
    "MAX_RESULTS",
    "resource_types",
    "schemas",
    "service_provider_config",
]
