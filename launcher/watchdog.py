"""Ends the processes of a supervisor that was killed outright.

The kernel tells each child of a killed supervisor to stop (the parent-death signal), but not the children's children,
and a child may be busy. So the supervisor starts this process first and tells it, through a pipe, about every session
it opens and closes. When the pipe ends, the supervisor is gone, and the watchdog ends what is still open: in the order
of their closing, politely first. It ignores the keyboard's signals and holds the folder's lock until it is done.
"""

import os
import signal
import sys
from typing import IO

from launcher.processes import send, session_members, wait_until

GRACE_SECONDS = 10.0


def read_sessions(lines: IO[str]) -> dict[int, int]:
    """Follow the pipe to its end; returns the open sessions with their stop signals, latest first.

    A line is ``+ SESSION SIGNAL`` or ``- SESSION``.
    """
    sessions: dict[int, int] = {}
    for line in lines:
        mark, *numbers = line.split()
        if mark == "+":
            sessions[int(numbers[0])] = int(numbers[1])
        else:
            sessions.pop(int(numbers[0]), None)
    return dict(reversed(sessions.items()))


def end_all(sessions: dict[int, int], grace_seconds: float) -> None:
    """Send every session its stop signal, wait a while for all, then kill what is left."""
    for session, number in sessions.items():
        if session in session_members(session):
            send(session, number)

    def leftovers() -> list[int]:
        return [pid for session in sessions for pid in session_members(session)]

    wait_until(lambda: not leftovers(), grace_seconds, step=0.05)
    for pid in leftovers():
        send(pid, signal.SIGKILL)
    wait_until(lambda: not leftovers(), 5)


def main(arguments: list[str]) -> int:
    """``python -m launcher.watchdog PIPE GRACE_SECONDS``; inherits the pipe, and the folder's lock only to hold it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with os.fdopen(int(arguments[0])) as lines:
        sessions = read_sessions(lines)
    end_all(sessions, float(arguments[1]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
