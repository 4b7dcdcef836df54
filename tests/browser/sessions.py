"""Session cookies without the log-in page, by user name, printed as JSON: `python -m tests.browser.sessions NAME ...`.

Runs in a process of its own, on the server's database.
"""

import json
import sys

import django

django.setup()

from django.conf import settings  # noqa: E402 - models need Django set up
from django.test import Client  # noqa: E402

from extdhcp_site.accounts.models import User  # noqa: E402


def cookie_of(name: str) -> str:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client.cookies[settings.SESSION_COOKIE_NAME].value


if __name__ == "__main__":
    print(json.dumps({name: cookie_of(name) for name in sys.argv[1:]}))
