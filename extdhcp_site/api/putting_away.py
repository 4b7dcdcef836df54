"""What commands that archive or delete the rows of a log have in common."""

from collections.abc import Mapping
from typing import Any

from extdhcp_site.api.parameters import MissingParameter, Params, Values


class PutAwayParams(Params):
    """A subclass declares `ids`, `type`, `startdate` and `enddate`, each in its own words."""

    def validate(self, values: Values) -> Values:
        if not values.keys() & {"ids", "type", "enddate"}:
            # A start alone would reach to this moment, which is hardly ever meant.
            raise MissingParameter("One of the parameters ids, type or enddate must be given.")
        return values


def conditions(params: Values, moment: str, **more: Any) -> Mapping[str, Any]:
    """The conditions that the parameters make; `moment` is the column for the dates, `more` are those of one's own.

    What is named by its id may be archived already.
    """
    found = {
        "pk__in": params["ids"] and [row.pk for row in params["ids"]],
        f"{moment}__gte": params["startdate"],
        f"{moment}__lte": params["enddate"],
        "archived": None if params["ids"] else False,
        **more,
    }
    return {column: value for column, value in found.items() if value is not None}
