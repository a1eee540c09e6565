"""WSGI entry point."""

import os
from importlib import import_module

from django.core.wsgi import get_wsgi_application

from apps.core import memory, row_security
from portal.checks import refuse_unsafe_start

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
application = get_wsgi_application()
refuse_unsafe_start()
# What a web server does outside of a person's request, it does for nobody.
row_security.close_by_default()
import_module("portal.urls")  # and with it views, forms and tables
memory.settle()
