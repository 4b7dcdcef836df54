"""The expressions of `get_all_records_where`: field "name__label" = "web" and not (field "is_a_template" = "true").

Fields are named as columns of xapi's database ("__" where the data model has "/"), and every value is compared as text.
Source: ocaml/database/db_filter_parse.mly, https://github.com/xapi-project/xen-api
"""

import re
from collections.abc import Callable, Mapping

from .classes import CLASSES
from .database import text_of
from .errors import XenError

Values = Mapping[str, object]
_TOKEN = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|(\(|\)|=|\w+))""")


def compile(class_name: str, expression: str) -> Callable[[Values], bool]:
    """Raises INTERNAL_ERROR for what cannot be parsed and for an unknown field, as xapi does."""
    columns = {field.column: field.name for field in CLASSES[class_name].values()}
    parser = _Parser(_tokens(expression), columns)
    matches = parser.disjunction()
    if parser.tokens:
        raise _unparsable(expression)
    return matches


def _unparsable(expression: str) -> XenError:
    return XenError("INTERNAL_ERROR", f"Db_filter.Expression_error({expression!r})")


def _tokens(expression: str) -> list[tuple[str, bool]]:
    """Tokens, and whether each stood in quotes."""
    tokens = []
    position = 0
    while expression[position:].strip():
        found = _TOKEN.match(expression, position)
        if found is None:
            raise _unparsable(expression)
        double, single, bare = found.groups()
        quoted = double if double is not None else single
        tokens.append((bare, False) if quoted is None else (re.sub(r"\\(.)", r"\1", quoted), True))
        position = found.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[tuple[str, bool]], columns: Mapping[str, str]) -> None:
        self.tokens = tokens
        self._columns = columns

    def _take(self, *expected: str) -> str | None:
        if self.tokens and not self.tokens[0][1] and self.tokens[0][0] in expected:
            return self.tokens.pop(0)[0]
        return None

    def disjunction(self) -> Callable[[Values], bool]:
        left = self._conjunction()
        while self._take("or"):
            left = _either(left, self._conjunction())
        return left

    def _conjunction(self) -> Callable[[Values], bool]:
        left = self._negation()
        while self._take("and"):
            left = _both(left, self._negation())
        return left

    def _negation(self) -> Callable[[Values], bool]:
        if self._take("not"):
            inner = self._negation()
            return lambda values: not inner(values)
        if self._take("("):
            inner = self.disjunction()
            if not self._take(")"):
                raise _unparsable("( without )")
            return inner
        if constant := self._take("true", "false"):
            return lambda values: constant == "true"
        left = self._operand()
        if not self._take("="):
            raise _unparsable("a comparison without =")
        right = self._operand()
        return lambda values: left(values) == right(values)

    def _operand(self) -> Callable[[Values], str]:
        by_name = self._take("field")
        if not self.tokens or not self.tokens[0][1]:
            raise _unparsable("a value without quotes")
        text = self.tokens.pop(0)[0]
        if not by_name:
            return lambda values: text
        name = self._columns.get(text)
        if name is None:
            raise XenError("INTERNAL_ERROR", f"Db_exn.DBCache_NotFound(missing field, {text}, )")
        return lambda values: text_of(values, name)


def _both(left: Callable[[Values], bool], right: Callable[[Values], bool]) -> Callable[[Values], bool]:
    return lambda values: left(values) and right(values)


def _either(left: Callable[[Values], bool], right: Callable[[Values], bool]) -> Callable[[Values], bool]:
    return lambda values: left(values) or right(values)
