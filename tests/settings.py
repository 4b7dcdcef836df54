"""The product's settings, as tests want them: own keys, own database, test driver allowed."""

import os
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet

_directory = Path(tempfile.mkdtemp(prefix="extdhcp-tests-"))
os.environ["EXTDHCP_ENV_FILE"] = os.devnull
os.environ.setdefault("VAR_DIR", str(_directory))
os.environ["SECRET_KEY"] = "only-for-tests"
os.environ["FIELD_ENCRYPTION_KEYS"] = Fernet.generate_key().decode()
os.environ["ALLOW_TEST_HYPERVISOR"] = "true"

from extdhcp_site.settings import *  # noqa: E402, F403
from extdhcp_site.settings import DATABASES, Q_CLUSTER, STATIC_ROOT  # noqa: E402

# A file, not memory: threads and other processes must see what a test wrote.
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["TEST"] = {"NAME": str(_directory / "test.sqlite3")}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
Q_CLUSTER["testing"] = True

STATIC_ROOT.mkdir(parents=True, exist_ok=True)
