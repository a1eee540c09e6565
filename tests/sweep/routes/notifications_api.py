"""One's own wishes about mail through the API."""

from __future__ import annotations

from tests.sweep.routes.notifications import ROUTES as PAGES
from tests.sweep.twins import twin
from tests.sweep.types import Route

ROUTES: dict[str, Route] = {
    "api:mail-wishes": twin(PAGES["notifications:settings"]),
    "api:mail-wishes#PUT": twin(PAGES["notifications:settings"], method="PUT"),
}
