"""The API's own pages: its list of collections, its OpenAPI description, and a reader for it that works offline."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.encoding import force_bytes
from django.utils.translation import get_language
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.decorators import api_view
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from apps.core.pages import redirect_to_sign_in


@extend_schema(responses={200: dict[str, str]}, summary="What the API holds")
@api_view(["GET"])
def root(request: Request) -> Response:
    """Return the address of every collection."""
    from django.urls import get_resolver

    names = [str(name) for name in get_resolver().namespace_dict["api"][1].reverse_dict if isinstance(name, str)]
    found = {
        name.removesuffix("-list"): reverse(f"api:{name}", request=request)
        for name in sorted(names)
        if name.endswith("-list")
    }
    return Response(
        {
            "schema": reverse("api:schema", request=request),
            "documentation": reverse("api:docs", request=request),
            **found,
        }
    )


root.cls.scope_free = "names collections, shows no rows"  # type: ignore[attr-defined]  # read by portal.checks

#: The description as written out, by address, version and media type: it is the same for everybody until the next
#: release, and making it takes seconds.
_written: dict[tuple[str, str, str, str, str], tuple[bytes, str]] = {}
_MOST_WRITTEN = 16


class Schema(SpectacularAPIView):
    """The OpenAPI 3.1 description, for whoever may sign in. Made and written once a process."""

    scope_free = "describes the API, shows no rows"
    permission_classes = [IsAuthenticated]

    def _get_schema_response(self, request: Request) -> Any:
        """Return the description as written before, where somebody asked this process for the same one."""
        renderer, media_type = self.perform_content_negotiation(request, force=True)
        version = self.api_version or request.version or self._get_version_parameter(request) or ""  # type: ignore[no-untyped-call]  # drf-spectacular's own hooks have no types
        key = (request.build_absolute_uri("/"), request.get_full_path_info(), version, media_type, get_language() or "")
        if key not in _written:
            response = super()._get_schema_response(request)  # type: ignore[no-untyped-call]  # as above
            body = force_bytes(renderer.render(response.data, media_type, self.get_renderer_context()))
            if len(_written) >= _MOST_WRITTEN:
                _written.clear()
            _written[key] = (body, str(response.headers["Content-Disposition"]))
        body, disposition = _written[key]
        charset = "" if renderer.charset is None else f"; charset={renderer.charset}"
        return HttpResponse(
            body, content_type=f"{renderer.media_type}{charset}", headers={"Content-Disposition": disposition}
        )


class Docs(SpectacularSwaggerSplitView):
    """Swagger UI from our own host; its start-up script is a request of its own, as our CSP takes no inline script."""

    scope_free = "describes the API, shows no rows"
    permission_classes = [IsAuthenticated]
    title = "GPU Commons API"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Send visitors to sign in: this is a page for people."""
        if not request.user.is_authenticated:
            return redirect_to_sign_in(request)
        response: HttpResponseBase = super().dispatch(request, *args, **kwargs)
        return response


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # its metaclass hook is untyped
    """Describes API tokens."""

    target_class = "apps.accounts.api_auth.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """Return the OpenAPI security scheme."""
        return {"type": "http", "scheme": "bearer", "description": "An API token, made on your account page."}


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # its metaclass hook is untyped
    """Describes the session of a signed-in browser."""

    target_class = "apps.accounts.api_auth.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """Return the OpenAPI security scheme."""
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}
