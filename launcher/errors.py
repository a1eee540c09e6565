"""What the launcher raises for a situation a person can put right; the message says how."""


class LauncherError(Exception):
    """A start that cannot go on. Shown without a traceback."""
