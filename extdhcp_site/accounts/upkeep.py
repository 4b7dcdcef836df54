"""What becomes of sessions that nobody ended."""

from importlib import import_module

from django.conf import settings

from extdhcp_site.jobs import tasks


@tasks.task
def forget_expired_sessions() -> None:
    """Task, every hour: programs that log in for each call leave a row each time."""
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()
