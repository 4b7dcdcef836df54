"""Django settings. Every deployment difference comes from `environment.py`."""

import hashlib

from csp.constants import NONE, SELF

from extdhcp_site import environment
from extdhcp_site.environment import BASE_DIR, VAR_DIR, env

DEBUG = environment.DEBUG
SECRET_KEY = environment.secret("SECRET_KEY")
FIELD_ENCRYPTION_KEYS = environment.field_encryption_keys()
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", [])
BEHIND_TLS = env.bool("BEHIND_TLS", False)
# The one socket on which libvirt's test driver may be reached; empty: in this process, or not at all.
LIBVIRT_TEST_SOCKET = env.str("LIBVIRT_TEST_SOCKET", "")
# Demo and tests only: whether an endpoint may use libvirt's test driver.
ALLOW_TEST_HYPERVISOR = env.bool("ALLOW_TEST_HYPERVISOR", False)
JOB_WORKERS = env.int("JOB_WORKERS", 4)
# gunicorn's own variable. What one process may let through is its share of a limit for the whole server.
WEB_PROCESSES = environment.number("WEB_CONCURRENCY", 2, least=1)
# How many clients of one web process may wait for news (streams, addresses) at a time.
LIVE_CLIENTS = environment.number("LIVE_CLIENTS", 150, least=0)
# Addresses and networks of the proxies before this server. From nobody else is X-Forwarded-For believed.
TRUSTED_PROXIES = environment.networks("TRUSTED_PROXIES")
# The one directory in which DHCP servers' lease files are read.
LEASE_DIR = env.str("LEASE_DIR", str(VAR_DIR / "leases"))

INSTALLED_APPS = [
    "extdhcp_site.console.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    # Before django_q, whose qcluster command it extends.
    "extdhcp_site.jobs",
    "django_q",
    "extdhcp_site.accounts",
    "extdhcp_site.events",
    "extdhcp_site.configuration",
    "extdhcp_site.locks",
    "extdhcp_site.alerts",
    "extdhcp_site.api",
    "extdhcp_site.console",
    "networks",
    "configdrive",
    "ipfetch",
]

MIDDLEWARE = [
    "extdhcp_site.api.hosts.known_names",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "extdhcp_site.console.middleware.no_store",
]

ROOT_URLCONF = "extdhcp_site.urls"
WSGI_APPLICATION = "extdhcp_site.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "extdhcp_site.console.context.console",
            ],
        },
    },
]

DATABASES = {"default": environment.database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["extdhcp_site.accounts.backends.AccountBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/login/"
# Log-in and the second factor are allauth's; nobody signs up, and nothing goes by e-mail.
ACCOUNT_ADAPTER = "extdhcp_site.accounts.adapters.AccountAdapter"
ACCOUNT_AUTHENTICATED_LOGIN_REDIRECTS = False
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_FORMS = {"login": "extdhcp_site.accounts.log_in.LogInForm"}
# Who is wrong too often is counted where the API counts it.
ACCOUNT_RATE_LIMITS = False
MFA_ADAPTER = "extdhcp_site.accounts.adapters.SecondFactorAdapter"
MFA_FORMS = {
    "authenticate": "extdhcp_site.accounts.second_factor.CodeForm",
    "reauthenticate": "extdhcp_site.accounts.second_factor.ConfirmForm",
    "activate_totp": "extdhcp_site.accounts.second_factor.SetUpForm",
}
MFA_TOTP_ISSUER = "extdhcp"

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = BEHIND_TLS
# Asked from this machine, past the proxy that ends TLS.
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz)$"]
SECURE_HSTS_SECONDS = 31_536_000 if BEHIND_TLS else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 1000
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "extdhcp_site" / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

LANGUAGE_CODE = "en-us"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"
DATETIME_FORMAT = "Y-m-d H:i:s"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "extdhcp_site.api.rest.BearerAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_THROTTLE_CLASSES": ["extdhcp_site.api.throttling.AccountThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["extdhcp_site.api.rest.JsonBody"],
    "DEFAULT_METADATA_CLASS": None,
    "EXCEPTION_HANDLER": "extdhcp_site.api.problems.answer",
    "DEFAULT_SCHEMA_CLASS": "extdhcp_site.api.openapi.Schema",
    "DEFAULT_PAGINATION_CLASS": "extdhcp_site.api.rest.Pages",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "extdhcp",
    "DESCRIPTION": "VMs on networks whose DHCP and DNS belong to someone else.",
    "VERSION": "0.1.0",
    "OAS_VERSION": "3.1.1",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_NO_READ_ONLY_REQUIRED": True,
    "PREPROCESSING_HOOKS": ["extdhcp_site.api.openapi.each_path_once"],
    # No names for enumerations: their values stand where they are used.
    "POSTPROCESSING_HOOKS": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

# Two queues: life-cycle jobs, and "addresses" with one worker process, so that the fetch loop's
# thread setting is a number for the whole server. See extdhcp_site/jobs.
Q_CLUSTER = {
    "name": "jobs",
    "orm": "default",
    "broker_class": "extdhcp_site.jobs.broker.AllowListBroker",
    # A queue key of its own: a leaked session or CSRF token key does not sign tasks.
    "secret_key": hashlib.sha256(b"extdhcp task queue:" + SECRET_KEY.encode()).hexdigest(),
    "workers": JOB_WORKERS,
    "queue_limit": JOB_WORKERS,
    "bulk": 1,
    # Seconds between two looks at an empty queue.
    "poll": 0.5,
    # Between two looks at the workers.
    "guard_cycle": 1,
    "timeout": 1800,
    "retry": 2000,
    "ack_failures": True,
    "max_attempts": 1,
    "catch_up": False,
    "save_limit": -1,
    "log_level": "WARNING",
    "ALT_CLUSTERS": {
        # Its threads outlive the tasks that started them: recycling the process would end them half-way.
        "addresses": {
            "workers": 1,
            "queue_limit": 1,
            "poll": 0.2,
            "timeout": 120,
            "retry": 150,
            "scheduler": False,
            "recycle": 10**9,
        },
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "extdhcp_site.logs.formatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", "INFO")},
    "loggers": {
        # Without Django's own handlers: one would mail whole requests, passwords included, to ADMINS.
        "django": {"handlers": [], "level": "INFO"},
        # Its request lines carry whole query strings: API keys and signatures.
        "django.server": {"handlers": [], "propagate": False},
        "django-q": {"level": "WARNING"},
    },
}
env.seal()
