"""The Django project: settings, URLs, Celery, health, error handlers, panel registry. No domain code."""

from portal.celery import app as celery_app

__all__ = ["celery_app"]
