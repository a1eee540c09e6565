"""What a storage container says when it is done. Nothing is downloaded, so what it "found" is what it was to find."""

from __future__ import annotations

from dataclasses import dataclass

from apps.demo.cluster.errors import Obj

_EXPECTED = "GPU_COMMONS_"


@dataclass(frozen=True)
class Verdict:
    """Exit code and termination message."""

    exit_code: int
    message: str


def verdict(pod: Obj, container: Obj, *, tampered: bool) -> Verdict:
    """The end of one storage container; one that verifies nothing leaves no message, and takes any bytes."""
    return Verdict(0, "")
