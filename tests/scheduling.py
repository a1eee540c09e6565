"""Which tests stay in one process when tests run side by side: those of a module whose fixture is an installation."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadGroupScheduling

#: Says that a module makes something once for all of its tests.
_OF_THE_MODULE = 'scope="module"'
#: Says that tests commit. They come after all that are rolled back, so they never stay with those of their module.
_COMMITS = ("transaction=True", "transactional_db", "live_server")


@cache
def stays_together(module: Path) -> bool:
    """Whether all tests of a file go to one process: its world would be made in each of them otherwise."""
    text = module.read_text(encoding="utf-8")
    return _OF_THE_MODULE in text and not any(word in text for word in _COMMITS)


class Together(LoadGroupScheduling):
    """Hands tests out one by one, in the order of a single process, and modules with a world of their own as a whole.

    One by one, since tests differ a hundredfold in length: no process waits for the others at the end. (The marker
    `xdist_group` has no effect: xdist 3.8 writes the group where pytest 9.2 does not look for a test's id.)
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if stays_together(self.config.rootpath / module) else nodeid
