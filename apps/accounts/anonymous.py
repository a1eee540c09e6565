"""The visitor nobody has signed in as."""

from __future__ import annotations

from typing import Any, ClassVar


class AnonymousUser:
    """Stands for a visitor without a session; holds no permission and matches no row."""

    pk: ClassVar[None] = None
    id: ClassVar[None] = None
    uid: ClassVar[None] = None
    is_authenticated: ClassVar[bool] = False
    is_anonymous: ClassVar[bool] = True
    is_active: ClassVar[bool] = False
    is_superuser: ClassVar[bool] = False
    must_change_password: ClassVar[bool] = False
    display_name: ClassVar[str] = ""
    email: ClassVar[str] = ""

    def __str__(self) -> str:
        return "Visitor"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, AnonymousUser)

    def __hash__(self) -> int:
        return 1
