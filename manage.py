#!/usr/bin/env python
"""Django's command line for extdhcp."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "extdhcp_site.settings")
    from django.core.management import execute_from_command_line
    from environs.exceptions import EnvError

    try:
        execute_from_command_line(sys.argv)
    except EnvError as error:
        sys.exit(f"extdhcp: {error}")


if __name__ == "__main__":
    main()
