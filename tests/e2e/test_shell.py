"""The shell in a browser: accessible, without sideways scrolling, in both themes, on a phone and a desk."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import DESKTOP, PHONE
from tests.factories import PASSWORD, grant, make_user


@pytest.fixture
def admin(transactional_db: None) -> Any:
    """A platform admin."""
    user = make_user("platform-admin@example.com", display_name="Platform admin", password=PASSWORD)
    grant(user, "platform_admin")
    return user


@pytest.mark.requirement("shell-4.1", "shell-4.2", "shell-4.3")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_every_component_is_accessible(
    admin: Any, browse: Any, assert_accessible: Any, assert_fits: Any, width: int, theme: str
) -> None:
    page = browse(admin, "/style/", width=width, theme=theme)
    page.wait_for_selector("#estimate .text-secondary")
    assert_accessible(page)
    assert_fits(page)
    assert page.evaluate("document.documentElement.dataset.bsTheme") == theme


@pytest.mark.requirement("shell-4.1", "shell-4.2")
@pytest.mark.parametrize(("width", "theme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_sign_in_is_accessible(browse: Any, assert_accessible: Any, assert_fits: Any, width: int, theme: str) -> None:
    page = browse(None, "/sign-in/", width=width, theme=theme)
    assert_accessible(page)
    assert_fits(page)
