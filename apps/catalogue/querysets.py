"""Who sees the catalogue: the people of the owning team and above, and those who read everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.catalogue.models import (
        Blob,
        CardRevision,
        CitationConfirmation,
        ClassificationRecord,
        Control,
        ControlAnswer,
        EvaluationResult,
        Evidence,
        EvidenceProducer,
        HashJob,
        Model,
        ModelRequest,
        ModelStore,
        ModelVersion,
        Regime,
        Registry,
        RegistryDelivery,
        RegistryFinding,
        RegistryModel,
        RegistryVersion,
        Upload,
        VersionException,
        VersionFile,
        VersionSource,
    )

VIEW = "catalogue.model.view"


def _signed_in(user: Any) -> bool:
    return bool(getattr(user, "is_authenticated", False) and user.is_active)


def _may_everywhere(user: Any, permission: str) -> bool:
    from apps.teams import scope

    return _signed_in(user) and scope.of(user).everywhere(permission)


class ModelQuerySet(ScopedQuerySet["Model"]):
    """Models."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="team"))


class CardRevisionQuerySet(ScopedQuerySet["CardRevision"]):
    """Card revisions."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model__team"))


class ModelVersionQuerySet(ScopedQuerySet["ModelVersion"]):
    """Versions."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model__team"))


class VersionFileQuerySet(ScopedQuerySet["VersionFile"]):
    """Files of versions."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model_version__model__team"))


class UploadQuerySet(ScopedQuerySet["Upload"]):
    """Files on their way."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model_version__model__team"))


class VersionSourceQuerySet(ScopedQuerySet["VersionSource"]):
    """Lineage."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model_version__model__team"))


class HashJobQuerySet(ScopedQuerySet["HashJob"]):
    """Hashing jobs."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model_version__model__team"))


class ModelRequestQuerySet(ScopedQuerySet["ModelRequest"]):
    """Requests that a version be approved."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model_version__model__team"))


class EvidenceQuerySet(ScopedQuerySet["Evidence"]):
    """Evidence."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model__team"))


class EvaluationResultQuerySet(ScopedQuerySet["EvaluationResult"]):
    """Evaluation results."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="evidence__model__team"))


class ControlAnswerQuerySet(ScopedQuerySet["ControlAnswer"]):
    """Answers to addressable controls."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model_version__model__team"))


class VersionExceptionQuerySet(ScopedQuerySet["VersionException"]):
    """Exceptions."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model_version__model__team"))


class ClassificationRecordQuerySet(ScopedQuerySet["ClassificationRecord"]):
    """Origins of a classification."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model_version__model__team"))


class RegistryModelQuerySet(ScopedQuerySet["RegistryModel"]):
    """Registered models, by the model they were imported as."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model__team"))


class RegistryVersionQuerySet(ScopedQuerySet["RegistryVersion"]):
    """Registered versions, by the model they were imported as."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="registry_model__model__team"))


class RegistryFindingQuerySet(ScopedQuerySet["RegistryFinding"]):
    """What registries changed, by the model it is about."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="registry_model__model__team"))


class ModelStoreQuerySet(ScopedQuerySet["ModelStore"]):
    """Stores; choosing one in a form goes through the owning team instead."""

    def visible_to(self, user: Any) -> Self:
        """Return all rows to those who hold `catalogue.store.view` everywhere."""
        return self.all() if _may_everywhere(user, "catalogue.store.view") else self.none()


class EvidenceProducerQuerySet(ScopedQuerySet["EvidenceProducer"]):
    """CI systems that post evidence."""

    def visible_to(self, user: Any) -> Self:
        """Return all rows to those who hold `catalogue.producer.view` everywhere."""
        return self.all() if _may_everywhere(user, "catalogue.producer.view") else self.none()


class RegistryQuerySet(ScopedQuerySet["Registry"]):
    """Registries."""

    def visible_to(self, user: Any) -> Self:
        """Return all rows to those who hold `catalogue.registry.view` everywhere."""
        return self.all() if _may_everywhere(user, "catalogue.registry.view") else self.none()


class RegistryDeliveryQuerySet(ScopedQuerySet["RegistryDelivery"]):
    """Webhook deliveries."""

    def visible_to(self, user: Any) -> Self:
        """Return all rows to those who hold `catalogue.registry.view` everywhere."""
        return self.all() if _may_everywhere(user, "catalogue.registry.view") else self.none()


class RegimeQuerySet(ScopedQuerySet["Regime"]):
    """Regimes: everybody signed in may read the rules."""

    def visible_to(self, user: Any) -> Self:
        """Return all to any active person."""
        return self.all() if _signed_in(user) else self.none()


class ControlQuerySet(ScopedQuerySet["Control"]):
    """Controls: everybody signed in may read the rules."""

    def visible_to(self, user: Any) -> Self:
        """Return all to any active person."""
        return self.all() if _signed_in(user) else self.none()


class CitationConfirmationQuerySet(ScopedQuerySet["CitationConfirmation"]):
    """Who read which official text: everybody signed in may know."""

    def visible_to(self, user: Any) -> Self:
        """Return all to any active person."""
        return self.all() if _signed_in(user) else self.none()


class BlobQuerySet(ScopedQuerySet["Blob"]):
    """Stored bytes are never shown by themselves: pages reach them through the evidence or file that names them."""

    def visible_to(self, user: Any) -> Self:
        """Return none: a blob has no owner of its own."""
        return self.none()
