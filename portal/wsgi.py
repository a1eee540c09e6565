"""WSGI entry point."""

import gc
import os
from importlib import import_module

from django.core.wsgi import get_wsgi_application

from apps.core import row_security
from portal.checks import refuse_unsafe_start

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
application = get_wsgi_application()
refuse_unsafe_start()
# What a web server does outside of a person's request, it does for nobody.
row_security.close_by_default()
# Everything loaded by now stays for the life of the process. A full collection that walks it again and again holds up
# whatever page is being made for longer than the page itself takes.
import_module("portal.urls")  # and with it views, forms and tables
gc.collect()
gc.freeze()
