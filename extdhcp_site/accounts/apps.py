from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "extdhcp_site.accounts"
    label = "accounts"
    verbose_name = "Accounts"
