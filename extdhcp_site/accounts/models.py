"""Who may do what: a tree of domains, accounts in them, users of accounts, and their API keys."""

import hashlib
import secrets
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

from django.contrib.auth.models import AbstractUser, UserManager
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils.crypto import salted_hmac

from extdhcp_site.encryption import EncryptedTextField
from extdhcp_site.models import UuidModel


class Role(models.IntegerChoices):
    """CloudStack's account types, with its numbers."""

    USER = 0, "User"
    ROOT_ADMIN = 1, "Root admin"
    DOMAIN_ADMIN = 2, "Domain admin"


# Every path in the tree begins with it. What was removed keeps its row, for the events about it, outside.
TREE = "ROOT/"


def lineage(path: str) -> list[str]:
    """The paths of a domain and of those above it, from the root: ["ROOT/", "ROOT/a/", "ROOT/a/b/"]."""
    return list(accumulate(f"{name}/" for name in path.rstrip("/").split("/")))


class DomainQuerySet(models.QuerySet["Domain"]):
    def live(self) -> Self:
        return self.filter(path__startswith=TREE)

    def visible_to(self, caller: "Caller") -> Self:
        """One's own; a domain admin's whole subtree; the whole tree for a root admin."""
        match caller.role:
            case Role.ROOT_ADMIN:
                return self.live()
            case Role.DOMAIN_ADMIN:
                return self.filter(path__startswith=caller.domain_path)
            case _:
                return self.filter(pk=caller.account.domain_id)


class Domain(UuidModel):
    """A node of the tree; `path` spells the way from ROOT, with a slash at its end."""

    name = models.CharField(max_length=100)
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="children")
    path = models.CharField(max_length=255, unique=True, editable=False)
    network_domain = models.CharField(
        max_length=255, blank=True, help_text="The DNS suffix that its networks are said to have."
    )

    objects = DomainQuerySet.as_manager()

    class Meta:
        ordering = ["path"]
        constraints = [
            # Paths decide who sees what: a slash in a name would forge one.
            models.CheckConstraint(
                condition=~Q(name__contains="/") & ~Q(name=""),
                name="domain_name_has_no_slash",
                violation_error_message="A domain's name must not be empty or contain a slash.",
            ),
            models.CheckConstraint(
                condition=Q(parent__isnull=False) | Q(path="ROOT/"),
                name="only_root_has_no_parent",
                violation_error_message="Every domain but ROOT has a parent.",
            ),
            # SQLite's LIKE, and MariaDB's comparison, take acme for ACME: so do we, and one would see the other's.
            models.UniqueConstraint(
                Lower("path"),
                name="domain_path_once_in_any_case",
                violation_error_message="There is a domain of this name already.",
            ),
        ]

    def __str__(self) -> str:
        return self.path.rstrip("/")

    def save(self, *args, **kwargs) -> None:
        if self.pk and not Domain.objects.filter(pk=self.pk, name=self.name, parent=self.parent_id).exists():
            raise ValidationError("A domain is never renamed or moved: what is below it goes by its path.")
        self.path = f"{self.parent.path if self.parent else ''}{self.name}/"
        super().save(*args, **kwargs)

    @classmethod
    def root(cls) -> "Domain":
        return cls.objects.get(parent=None)


class AccountQuerySet(models.QuerySet["Account"]):
    def live(self) -> Self:
        return self.exclude(state=Account.State.REMOVED)

    def visible_to(self, caller: "Caller") -> Self:
        """Those whose things the caller may see and act on."""
        match caller.role:
            case Role.ROOT_ADMIN:
                return self.live()
            case Role.DOMAIN_ADMIN:
                within = self.live().filter(domain__path__startswith=caller.domain_path)
                return within.exclude(role=Role.ROOT_ADMIN)
            case _:
                return self.filter(pk=caller.account.pk)

    def within_reach_of(self, caller: "Caller") -> Self:
        """Those that an admin may change: nobody's who is more powerful (CVE-2025-47713)."""
        seen = self.visible_to(caller)
        if caller.user.is_superuser:
            return seen
        return seen.exclude(pk__in=User.objects.filter(is_superuser=True).values("account"))


class Account(UuidModel):
    """The unit of isolation: what one account owns, another does not see."""

    class State(models.TextChoices):
        ENABLED = "enabled", "Enabled"
        DISABLED = "disabled", "Disabled"
        LOCKED = "locked", "Locked"
        # Its row stays for the events about it, under another name: whoever takes the name inherits nothing.
        REMOVED = "removed", "Removed"

    name = models.CharField(max_length=100)
    domain = models.ForeignKey(Domain, on_delete=models.PROTECT, related_name="accounts")
    role = models.PositiveSmallIntegerField(choices=Role.choices, default=Role.USER)
    state = models.CharField(max_length=8, choices=State.choices, default=State.ENABLED)

    objects = AccountQuerySet.as_manager()

    class Meta:
        ordering = ["domain__path", "name"]
        constraints = [
            models.UniqueConstraint(fields=["domain", "name"], name="account_name_once_in_domain"),
            # For SQLite. MariaDB takes them for the same in the one above, and has no index of this kind.
            models.UniqueConstraint(
                "domain",
                Lower("name"),
                name="account_name_once_in_any_case",
                violation_error_message="The domain has an account of this name already.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.domain}/{self.name}"


class UserQuerySet(models.QuerySet["User"]):
    def live(self) -> Self:
        return self.filter(removed_at=None)

    def visible_to(self, caller: "Caller") -> Self:
        """The people of the accounts that the caller sees."""
        return self.live().filter(account__in=Account.objects.visible_to(caller))

    def within_reach_of(self, caller: "Caller") -> Self:
        """Whom the caller may change: oneself; an admin also whoever is not more powerful (CVE-2025-47713)."""
        myself = Q(pk=caller.user.pk)
        if caller.role == Role.USER:
            return self.filter(myself)
        seen = self.visible_to(caller)
        return seen if caller.user.is_superuser else seen.filter(myself | Q(is_superuser=False))


class _UserManager(UserManager.from_queryset(UserQuerySet)):  # type: ignore[misc]
    def create_superuser(self, username, email=None, password=None, **fields):
        """A root admin: `manage.py createsuperuser` needs no account to be named."""
        if "account" not in fields:
            fields["account"] = Account.objects.get_or_create(
                domain=Domain.root(), name="admin", defaults={"role": Role.ROOT_ADMIN}
            )[0]
        return super().create_superuser(username, email, password, **fields)


class User(UuidModel, AbstractUser):
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="users")
    removed_at = models.DateTimeField(null=True, editable=False)

    objects = _UserManager()

    class Meta:
        ordering = ["username"]
        constraints = [
            # CVE-2012-4501: there is no built-in account, and nobody passes for the server in the log of events.
            models.CheckConstraint(
                condition=~Q(username__iexact="system"),
                name="nobody_is_called_system",
                violation_error_message="The name system stands for the server itself. Choose another.",
            ),
            # As of accounts: for SQLite.
            models.UniqueConstraint(
                Lower("username"),
                name="username_once_in_any_case",
                violation_error_message="A user with that username already exists.",
            ),
        ]

    def get_session_auth_hash(self) -> str:
        """What a session is bound to: it ends when the password changes, or the power that it was opened with."""
        salt = "extdhcp_site.accounts.models.User.get_session_auth_hash"
        return salted_hmac(salt, f"{self.password}:{self.account.role}", algorithm="sha256").hexdigest()


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def usable(self) -> Self:
        """Keys that let somebody in: neither they nor their user nor their account is disabled."""
        return self.filter(
            disabled_at=None, user__is_active=True, user__account__state=Account.State.ENABLED
        ).select_related("user__account__domain")

    def visible_to(self, caller: "Caller") -> Self:
        """The keys of those whom the caller may change."""
        return self.filter(user__in=User.objects.within_reach_of(caller))


class ApiKey(UuidModel):
    """A key pair that signs CloudStack requests, with a bearer token for the REST API.

    The secret must be at hand to check signatures, so it is sealed; the token is only hashed. Both
    are shown once, when they are made.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_keys")
    key = models.CharField(max_length=86, unique=True, editable=False)
    secret = EncryptedTextField(editable=False)
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    disabled_at = models.DateTimeField(null=True, blank=True)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(condition=~Q(key=""), name="api_key_not_empty"),
        ]

    def __str__(self) -> str:
        return f"{self.key[:8]}… of {self.user}"


@dataclass(frozen=True)
class NewApiKey:
    """A key's secrets, in clear, for the one time that they are shown."""

    api_key: str
    secret_key: str
    token: str


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def create_api_key(user: User) -> NewApiKey:
    new = NewApiKey(secrets.token_urlsafe(64), secrets.token_urlsafe(64), secrets.token_urlsafe(48))
    ApiKey.objects.create(user=user, key=new.api_key, secret=new.secret_key, token_hash=hash_token(new.token))
    return new


@dataclass(frozen=True)
class Caller:
    """Who asks, as policy needs to know them."""

    user: User
    account: Account
    role: Role
    domain_path: str

    @classmethod
    def of(cls, user: User) -> "Caller":
        return cls(user, user.account, Role(user.account.role), user.account.domain.path)

    @property
    def is_root(self) -> bool:
        return self.role == Role.ROOT_ADMIN


class OwnedQuerySet(models.QuerySet):
    """Rows that belong to an account, by their `account` column."""

    def visible_to(self, caller: Caller) -> Self:
        """The account's own; a domain admin's whole subtree; everything for a root admin."""
        return self if caller.is_root else self.filter(self.owned_within_reach_of(caller))

    @staticmethod
    def owned_within_reach_of(caller: Caller) -> Q:
        """For who is no root admin: the account's own; a domain admin's whole subtree."""
        if caller.role == Role.DOMAIN_ADMIN:
            # A root admin's things stay theirs, wherever in the tree their account is.
            return Q(account__domain__path__startswith=caller.domain_path) & ~Q(account__role=Role.ROOT_ADMIN)
        return Q(account=caller.account)
