"""Kubeflow's model registry (v1alpha3) through its REST API. It deletes nothing: what is retired becomes ARCHIVED.

Lists are {items, nextPageToken, pageSize, size}; ids and times are texts; custom properties are typed values
({"metadataType": "MetadataStringValue", "string_value": …}).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from apps.catalogue.registry_clients import RegistrySession, SeenModel, SeenVersion, pages, rows, tags_of, text
from apps.clusters.errors import NotFound, ServerError

_API = "api/model_registry/v1alpha3"
_VALUES = ("string_value", "int_value", "double_value", "bool_value", "struct_value", "proto_value")


class KubeflowClient:
    """One Kubeflow model registry."""

    def __init__(self, session: RegistrySession, *, page_size: int = 200) -> None:
        self.session, self.page_size = session, page_size

    def models(self) -> Iterable[SeenModel]:
        """Yield the registered models, archived ones included."""
        for row in self._items("registered_models"):
            yield SeenModel(
                key=_id(row), name=text(row.get("name"), 1000), born=text(row.get("createTimeSinceEpoch"), 40),
                stable_id=_id(row), description=text(row.get("description")), state=text(row.get("state"), 40),
                author=text(row.get("owner") or row.get("author"), 200), tags=_properties(row),
            )  # fmt: skip

    def versions(self) -> Iterable[SeenVersion]:
        """Yield the versions of all models, each with the place that its model artifact names."""
        for row in self._items("model_versions"):
            uri, model_format = self._artifact(_id(row))
            yield SeenVersion(
                model_key=text(row.get("registeredModelId"), 300), number=_id(row), source=uri,
                run_id=text(row.get("experimentRunId") or "", 100), born=text(row.get("createTimeSinceEpoch"), 40),
                description=text(row.get("description")), state=text(row.get("state"), 40),
                author=text(row.get("author"), 200), model_format=model_format,
                tags=_properties(row) | {"name": text(row.get("name"), 250)},
            )  # fmt: skip

    def has_model(self, key: str) -> bool:
        """Ask for one model."""
        return self._there(f"registered_models/{quote(key, safe='')}")

    def has_version(self, model_key: str, number: str) -> bool:
        """Ask for one version."""
        return self._there(f"model_versions/{quote(number, safe='')}")

    def location(self, version: SeenVersion) -> str:
        """The artifact's URI says it already."""
        return version.source

    def probe(self) -> str:
        """Read one model."""
        body = self.session.get_json(f"{_API}/registered_models", [("pageSize", "1")])
        return "The registry answers." if rows(body, "items") else "The registry answers; it is empty."

    def close(self) -> None:
        """Close the connections."""
        self.session.close()

    def _artifact(self, uid: str) -> tuple[str, str]:
        """Return URI and format of a version's newest live artifact; the flat list of artifacts names no version."""
        live = [
            row for row in self._items(f"model_versions/{quote(uid, safe='')}/artifacts")
            if row.get("state") != "ARCHIVED" and row.get("uri")
        ]  # fmt: skip
        if not live:
            return "", ""
        newest = max(live, key=lambda row: (text(row.get("createTimeSinceEpoch"), 20).zfill(20), _id(row)))
        return text(newest.get("uri"), 1000), text(newest.get("modelFormatName"), 60)

    def _items(self, path: str) -> Iterable[dict[str, Any]]:
        def fetch(token: str) -> dict[str, Any]:
            parameters = [("pageSize", str(self.page_size)), ("orderBy", "ID"), ("sortOrder", "ASC")]
            if token:
                parameters.append(("nextPageToken", token))
            return self.session.get_json(f"{_API}/{path}", parameters)

        for body in pages(fetch, "nextPageToken"):
            yield from rows(body, "items")

    def _there(self, path: str) -> bool:
        try:
            self.session.get_json(f"{_API}/{path}")
        except NotFound:
            return False
        return True


def _id(row: Mapping[str, Any]) -> str:
    found = row.get("id")
    if not isinstance(found, str) or not found:
        raise ServerError("the registry shows something without an id: is this Kubeflow's model registry?")
    return found


def _properties(row: Mapping[str, Any]) -> dict[str, str]:
    properties = row.get("customProperties") or {}
    if not isinstance(properties, dict):
        raise ServerError("the registry's custom properties are no object")
    return tags_of((name, _plain(value)) for name, value in properties.items())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return next((value[name] for name in _VALUES if name in value), value)
    return value
