"""MLflow model registries, 2.x and 3.x, through their REST API (paths and fields: mlflow/protos, release 3.17).

Traps: the search of versions shows no aliases, so they are read of the model; page tokens are offsets; a name is no
identity (rename keeps the time of creation, a new model of the old name has another); numbers are never used again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from apps.catalogue.registry_clients import RegistrySession, SeenModel, SeenVersion, pages, rows, tags_of, text
from apps.clusters.errors import NotFound, ServerError

_API = "api/2.0/mlflow"
#: Prompts are kept as registered models with this tag; they are no models.
_PROMPT = "mlflow.prompt.is_prompt"


class MlflowClient:
    """One MLflow server."""

    def __init__(self, session: RegistrySession, *, page_size: int = 500) -> None:
        self.session, self.page_size = session, page_size

    def models(self) -> Iterable[SeenModel]:
        """Yield the registered models with their model-level aliases."""
        for body in pages(lambda token: self._search("registered-models", token), "next_page_token"):
            for row in rows(body, "registered_models"):
                tags = _tags(row)
                if tags.get(_PROMPT, "").lower() != "true":
                    yield SeenModel(
                        key=_name(row), name=_name(row), born=text(row.get("creation_timestamp"), 40),
                        description=text(row.get("description")), author=text(row.get("user_id"), 200), tags=tags,
                        aliases={
                            text(one.get("alias"), 250): text(one.get("version"), 100) for one in rows(row, "aliases")
                        },
                    )  # fmt: skip

    def versions(self) -> Iterable[SeenVersion]:
        """Yield the versions of all models."""
        for body in pages(lambda token: self._search("model-versions", token), "next_page_token"):
            for row in rows(body, "model_versions"):
                yield _version(row)

    def has_model(self, key: str) -> bool:
        """Ask for one model."""
        return self._there("registered-models/get", [("name", key)])

    def has_version(self, model_key: str, number: str) -> bool:
        """Ask for one version."""
        return self._there("model-versions/get", [("name", model_key), ("version", number)])

    def location(self, version: SeenVersion) -> str:
        """Resolve a source such as models:/m-… or runs:/… into the place of the artifacts."""
        parameters = [("name", version.model_key), ("version", version.number)]
        try:
            body = self.session.get_json(f"{_API}/model-versions/get-download-uri", parameters)
        except NotFound:
            return version.source
        return text(body.get("artifact_uri"), 1000) or version.source

    def probe(self) -> str:
        """Read one model."""
        body = self.session.get_json(f"{_API}/registered-models/search", [("max_results", "1")])
        return "The registry answers." if rows(body, "registered_models") else "The registry answers; it is empty."

    def close(self) -> None:
        """Close the connections."""
        self.session.close()

    def _search(self, kind: str, token: str) -> dict[str, Any]:
        parameters = [("max_results", str(self.page_size))]
        if kind == "registered-models":
            parameters.append(("order_by", "name ASC"))
        if token:
            parameters.append(("page_token", token))
        return self.session.get_json(f"{_API}/{kind}/search", parameters)

    def _there(self, path: str, parameters: list[tuple[str, str]]) -> bool:
        try:
            self.session.get_json(f"{_API}/{path}", parameters)
        except NotFound:
            return False
        return True


def _name(row: Mapping[str, Any]) -> str:
    name = row.get("name")
    if not isinstance(name, str) or not name:
        raise ServerError("the registry shows a model without a name: is this MLflow?")
    return name


def _tags(row: Mapping[str, Any]) -> dict[str, str]:
    return tags_of((one.get("key"), one.get("value")) for one in rows(row, "tags"))


def _version(row: Mapping[str, Any]) -> SeenVersion:
    stage = text(row.get("current_stage"), 40)
    return SeenVersion(
        model_key=_name(row),
        number=text(row.get("version"), 100),
        source=text(row.get("source"), 1000),
        run_id=text(row.get("run_id"), 100),
        born=text(row.get("creation_timestamp"), 40),
        description=text(row.get("description")),
        # Stages are long deprecated, but "Archived" is how people retire a version there.
        state="ARCHIVED" if stage == "Archived" else text(row.get("status"), 40),
        author=text(row.get("user_id"), 200),
        tags=_tags(row),
    )
