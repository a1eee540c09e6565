"""The Celery application; its beat schedule is the registry of sweeps (apps.core.sweeps)."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import beat_init, setup_logging, worker_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

app = Celery("portal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def keep_django_logging(**_: Any) -> None:
    """Let Django's LOGGING stand: connecting this signal keeps Celery from installing its own handlers."""


@worker_init.connect
@beat_init.connect
def refuse_unsafe_start(**_: Any) -> None:
    """Do not work with unsafe settings; Celery survives exceptions of signal handlers, so leave the process."""
    from django.core.exceptions import ImproperlyConfigured

    from portal import checks

    try:
        checks.refuse_unsafe_start()
    except ImproperlyConfigured as error:
        raise SystemExit(str(error)) from error


@worker_init.connect
@beat_init.connect
def be_patient(**_: Any) -> None:
    """Let workers wait longer for a slow broker than a request may."""
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "socket_timeout": 5}


@app.on_after_finalize.connect
def schedule_sweeps(sender: Celery, **_: Any) -> None:
    """Give every registered sweep its beat entry, so that a room declares name, function and period in one place."""
    from apps.core.sweeps import registered

    sender.loader.import_default_modules()
    for sweep in registered():
        sender.conf.beat_schedule[sweep.name] = {"task": sweep.name, "schedule": sweep.every.total_seconds()}
