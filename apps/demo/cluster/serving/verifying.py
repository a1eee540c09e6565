"""What a storage container says when it is done. Nothing is downloaded, so what it "found" is what it was to find.

The portal's verifying container (`deploy/verifier`) is known by its variable: what has to be found comes from the pod's
annotation, and its message is the one line of JSON that the real program writes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from apps.demo.cluster.errors import Obj

_VARIABLE = "GPU_COMMONS_FILES_DIGEST"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Verdict:
    """Exit code and termination message."""

    exit_code: int
    message: str


def verdict(pod: Obj, container: Obj, *, tampered: bool) -> Verdict:
    """The end of one storage container; one that verifies nothing leaves no message, and takes any bytes."""
    variable = next((each for each in container.get("env") or [] if each.get("name") == _VARIABLE), None)
    if variable is None:
        return Verdict(0, "")
    expected = _value(pod, variable)
    if not _DIGEST.fullmatch(expected):
        why = "the pod has no annotation gpu-commons/files-digest with a SHA-256, so nothing can be verified"
        return Verdict(1, _said("", why))
    if tampered:
        found = expected[1:] + expected[0] if len(set(expected)) > 1 else expected.translate(_OTHER)
        why = f"the files are not the approved ones: found {found}, approved {expected} (simulated fault)"
        return Verdict(1, _said(found, why))
    return Verdict(0, _said(expected, "verified"))


_OTHER = str.maketrans("0123456789abcdef", "123456789abcdef0")


def _value(pod: Obj, variable: Obj) -> str:
    if "value" in variable:
        return str(variable["value"])
    place = ((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath", "")
    match = re.fullmatch(r"metadata\.annotations\['([^']+)'\]", str(place))
    return str((pod["metadata"].get("annotations") or {}).get(match.group(1), "")) if match else ""


def _said(found: str, why: str) -> str:
    return json.dumps({"files": found, "count": 0, "bytes": 0, "verdict": why, "simulated": True})
