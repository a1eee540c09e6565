#!/usr/bin/env python
"""Command line of the GPU Commons portal."""

import os
import sys


def main() -> None:
    """Run a management command under the portal's settings."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    from django.core.management import execute_from_command_line

    if sys.argv[1:2] == ["observe"]:
        # The one command that runs for ever: it starts as guarded as web, worker and beat do.
        import django

        django.setup()
        from portal.checks import refuse_unsafe_start

        refuse_unsafe_start()
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
