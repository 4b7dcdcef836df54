from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "extdhcp_site.accounts"
    label = "accounts"
    verbose_name = "Accounts"

    def ready(self) -> None:
        from extdhcp_site.accounts import console, upkeep  # noqa: F401 - declares its pages
        from extdhcp_site.jobs import tasks

        tasks.every(60, upkeep.forget_expired_sessions)
