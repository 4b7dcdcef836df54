"""Pages of a list: which rows, and how many there are in all, without asking the database what is known already."""

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet

from extdhcp_site.api.parameters import Values
from extdhcp_site.configuration.models import PAGE_SIZE


def cut(rows: QuerySet | Sequence, params: Values) -> tuple[int, list[Any]]:
    """How many rows there are on all pages, and those of the page that `params` ask for."""
    size = None if names_one(params) else params["pagesize"] or PAGE_SIZE.get()
    start = ((params["page"] or 1) - 1) * (size or 0)
    if not isinstance(rows, QuerySet):
        return len(rows), list(rows[start:][:size])
    ordered = in_stable_order(rows)
    if start == 0:
        found = list(ordered[:size])
        return (len(found) if size is None or len(found) < size else rows.count()), found
    total = rows.count()
    return total, _from_the_nearer_end(ordered, start, min(start + (size or 0), total), total)


def names_one(params: Values) -> bool:
    """Whether there is one row at most: neither its page's size nor a count is worth a query."""
    return bool(params.get("id")) and params["page"] in (None, 1)


def in_stable_order(rows: QuerySet) -> QuerySet:
    """`rows` in their own order, and those alike in it by number: else a page repeats what another leaves out."""
    order = rows.query.order_by or rows.model._meta.ordering
    return rows.order_by(*order, "pk")


def _from_the_nearer_end(ordered: QuerySet, start: int, end: int, total: int) -> list[Any]:
    # A database walks over all rows that it skips: so the last page costs no more than the first.
    if start >= end:
        return []
    if start < total // 2:
        return list(ordered[start:end])
    return list(ordered.reverse()[total - end : total - start])[::-1]
