"""The commands that show and change domains, accounts, users and keys; importing this package registers them."""

from extdhcp_site.accounts.api import accounts, domains, keys, rest, users  # noqa: F401
