"""How a web server's process collects garbage: what it has loaded never again, what a page makes rarely."""

from __future__ import annotations

import gc

#: Objects made before the youngest are looked through. A page of a thousand lines makes some ten thousand, few of them
#: in circles: at Python's own 700 it is interrupted twenty times and twice for a full collection, a fifth of its time.
#: At fifty thousand what ten pages left in circles is taken down in the eleventh, which then takes twice as long: that
#: one is the 95th percentile.
YOUNG, MIDDLE, OLD = 5_000, 20, 50


def settle() -> None:
    """Set aside everything loaded by now: call once all modules are, before the first request.

    It stays for the life of the process. A full collection that walks it again and again holds up whatever page is
    being made for longer than the page itself takes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)


__all__ = ["settle"]
