"""xapi's database in memory: rows by reference, a generation that counts changes, and who refers to whom.

Values are never changed in place but replaced, so that a row may share its field's first value and an answer that is
being written is never half of one state and half of another.
"""

import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from . import wire
from .classes import CLASSES, NULL, RELATIONS
from .errors import XenError, handle_invalid

_DEFAULTS = {name: {field.name: field.default for field in fields.values()} for name, fields in CLASSES.items()}

_RELATED = {name: {field for owner, field in RELATIONS if owner == name} for name in CLASSES}


class Row:
    """One object: its values by field, and the generations in which it was created and last changed."""

    __slots__ = ("_xml", "class_name", "created", "modified", "ref", "values")

    def __init__(self, class_name: str, ref: str, values: dict[str, object], generation: int) -> None:
        self.class_name = class_name
        self.ref = ref
        self.values = values
        self.created = self.modified = generation
        self._xml: str | None = None

    def __getitem__(self, field: str) -> object:
        return self.values[field]

    def text(self, field: str) -> str:
        """A string, or a reference."""
        return str(self.values[field])

    def number(self, field: str) -> int:
        return int(str(self.values[field]))

    def refs(self, field: str) -> tuple[str, ...]:
        """A set: of references, or of other strings."""
        value = self.values[field]
        assert isinstance(value, tuple), field
        return value

    def mapping(self, field: str) -> Mapping[str, str]:
        value = self.values[field]
        assert isinstance(value, Mapping), field
        return value

    def record(self) -> str:
        """All of it as it goes over the wire."""
        if self._xml is None:
            self._xml = wire.record_xml(self.class_name, self.values)
        return self._xml

    def changed(self, generation: int) -> None:
        self.modified = generation
        self._xml = None


@dataclass(frozen=True)
class Deletion:
    class_name: str
    ref: str
    created: int
    generation: int


class Database:
    """All rows. Whoever reads or writes more than one thing at a time holds `lock`; `wait` lets go of it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._changes = threading.Condition(self.lock)
        self.generation = 0
        # In the order of their last change, so that what changed lately is found from the end.
        self._tables: dict[str, OrderedDict[str, Row]] = {name: OrderedDict() for name in CLASSES}
        self.deletions: list[Deletion] = []

    def create(self, class_name: str, **values: object) -> str:
        """A new object with these values; its reference, and its uuid where none is given, are made up."""
        with self.lock:
            self.generation += 1
            ref = f"OpaqueRef:{new_uuid()}"
            row_values = _DEFAULTS[class_name] | values
            if not row_values["uuid"]:
                row_values["uuid"] = new_uuid()
            self._tables[class_name][ref] = Row(class_name, ref, row_values, self.generation)
            for field in _RELATED[class_name]:
                self._relate(class_name, field, ref, NULL, str(row_values[field]))
            self._changes.notify_all()
            return ref

    def get(self, class_name: str, ref: object) -> Row:
        """Raises HANDLE_INVALID."""
        with self.lock:
            row = self._tables[class_name].get(str(ref))
            if row is None:
                raise handle_invalid(class_name, ref)
            return row

    def find(self, class_name: str, ref: object) -> Row | None:
        with self.lock:
            return self._tables[class_name].get(str(ref))

    def set(self, class_name: str, ref: str, **values: object) -> None:
        """Write fields; what is as it was makes no event."""
        with self.lock:
            row = self.get(class_name, ref)
            different = {name: value for name, value in values.items() if row.values[name] != value}
            if not different:
                return
            before = {name: row.values[name] for name in different}
            row.values.update(different)
            self._touch(row)
            for name in different.keys() & _RELATED[class_name]:
                self._relate(class_name, name, ref, str(before[name]), str(different[name]))
            self._changes.notify_all()

    def delete(self, class_name: str, ref: str) -> None:
        """Gone already is no error: what hangs together is often removed from both ends."""
        with self.lock:
            row = self._tables[class_name].pop(ref, None)
            if row is None:
                return
            self.generation += 1
            for field in _RELATED[class_name]:
                self._relate(class_name, field, ref, str(row.values[field]), NULL)
            self.deletions.append(Deletion(class_name, ref, row.created, self.generation))
            self._changes.notify_all()

    def rows(self, class_name: str) -> list[Row]:
        with self.lock:
            return list(self._tables[class_name].values())

    def rows_by_creation(self, class_name: str) -> list[Row]:
        return sorted(self.rows(class_name), key=lambda row: row.created)

    def where(self, class_name: str, **values: object) -> list[Row]:
        """Rows with these values, each compared as it is."""
        return [
            row for row in self.rows(class_name) if all(row.values[name] == value for name, value in values.items())
        ]

    def one(self, class_name: str, **values: object) -> Row:
        found = self.where(class_name, **values)
        assert len(found) == 1, f"{len(found)} of {class_name} with {values}"
        return found[0]

    def count(self, class_name: str) -> int:
        return len(self._tables[class_name])

    def by_uuid(self, class_name: str, wanted: str) -> Row:
        for row in self.rows(class_name):
            if row.values["uuid"] == wanted:
                return row
        raise XenError("UUID_INVALID", class_name, wanted)

    def changed_since(self, class_name: str, generation: int) -> Iterator[Row]:
        """Rows created or changed later than `generation`, the latest first. To be used under the lock."""
        for row in reversed(self._tables[class_name].values()):
            if row.modified <= generation:
                return
            yield row

    def wait(self, until: Callable[[], bool], timeout: float) -> bool:
        """Wait for a change that makes `until` true; False when `timeout` seconds passed first."""
        with self._changes:
            return self._changes.wait_for(until, timeout)

    def touch(self, class_name: str, ref: str) -> None:
        """An event for a row in which nothing changed."""
        with self._changes:
            self._touch(self.get(class_name, ref))
            self._changes.notify_all()

    def listed(self, class_name: str, refs: Iterable[str]) -> list[Row]:
        return [self.get(class_name, ref) for ref in refs]

    def wake(self) -> None:
        """Have those that wait look again."""
        with self._changes:
            self._changes.notify_all()

    def _touch(self, row: Row) -> None:
        self.generation += 1
        row.changed(self.generation)
        self._tables[row.class_name].move_to_end(row.ref)

    def _relate(self, class_name: str, field: str, ref: str, before: str, after: str) -> None:
        """Keep the set at the other end of a reference in step."""
        other_class, other_field = RELATIONS[class_name, field]
        for other_ref, there in ((before, False), (after, True)):
            row = self._tables[other_class].get(other_ref)
            if row is None:
                continue
            members = row.refs(other_field)
            row.values[other_field] = (*members, ref) if there else tuple(one for one in members if one != ref)
            self._touch(row)


def new_uuid() -> str:
    # As uuid.uuid4(), which asks the system for every one: ten thousand VMs have a hundred thousand.
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def text_of(values: Mapping[str, object], field: str) -> str:
    """A value as the expressions of `get_all_records_where` compare it."""
    value = values[field]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
