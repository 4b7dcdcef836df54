"""pyVmomi's types. It makes them when they are first used, and its own stubs tell a type checker half of it."""

from typing import Any

import pyVmomi

_library: Any = pyVmomi
vim = _library.vim
vmodl = _library.vmodl
