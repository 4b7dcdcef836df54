"""The WSGI application that gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

from extdhcp_site.turns import InTurn

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "extdhcp_site.settings")
application = InTurn(get_wsgi_application())
