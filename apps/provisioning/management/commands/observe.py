"""`manage.py observe`: watch the clusters and write down what changes there."""

from __future__ import annotations

import logging
import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import Error as DatabaseError
from django.db import close_old_connections

from apps.provisioning.observer import Observers

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    """One process observes many clusters; several share them by lease."""

    help = "Watch the clusters (one process serves many; start more to share them)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add --max-clusters."""
        parser.add_argument("--max-clusters", type=int, default=100, help="Observe at most so many clusters here.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Observe until SIGTERM or SIGINT."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        observers = Observers(at_most=options["max_clusters"])
        logger.info("observer started")
        while not stop.is_set():
            try:
                close_old_connections()
                observers.tend()
            except DatabaseError as error:
                logger.warning("the database does not answer; trying again", extra={"error": str(error)})
            stop.wait(2.0)
        observers.end()
        logger.info("observer stopped")
