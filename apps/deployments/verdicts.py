"""What the verifying storage container said of the bytes it loaded: its termination message, from a release's pods.

The message is one line of JSON with `files`, the SHA-256 over the list of path, size and hash of what was found
(`manifests.files_digest`); anything else is no verdict.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from apps.deployments.models import Release

_DIGEST = re.compile(r"[0-9a-f]{64}")


def messages(pod: Mapping[str, Any]) -> Iterator[str]:
    """Yield the termination messages of a pod's init containers, of the last try and of this one."""
    for each in (pod.get("status") or {}).get("initContainerStatuses") or []:
        for part in ("lastState", "state"):
            text = ((each.get(part) or {}).get("terminated") or {}).get("message")
            if text:
                yield str(text)


def digest_in(message: str) -> str:
    """Return the digest that a message tells; "" where it tells none."""
    try:
        told = json.loads(message)
    except ValueError:
        return ""
    found = told.get("files") if isinstance(told, dict) else None
    return found if isinstance(found, str) and _DIGEST.fullmatch(found) else ""


def told(found: Iterable[str]) -> str:
    """Return the one digest that pods tell; "" where they tell none, or different ones."""
    digests = {digest for message in found if (digest := digest_in(message))}
    return digests.pop() if len(digests) == 1 else ""


def note(release: Release, found: Sequence[str]) -> bool:
    """Keep what was found for a release; True where that is news. Nothing told changes nothing."""
    digest = told(found)
    if not digest or digest == release.observed_digest:
        return False
    return bool(Release.objects.filter(pk=release.pk).update(observed_digest=digest))
