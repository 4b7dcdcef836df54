"""Guest operating systems: the constant lists that clients choose a template's from."""

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.answers import Answer, Constant
from extdhcp_site.api.owners import ListParams
from extdhcp_site.api.parameters import Text, Uuid, Values
from extdhcp_site.api.registry import EVERYBODY, ListCommand, command
from networks.api.fields import text
from networks.os_types import OS_CATEGORIES, OS_TYPES, OsCategory, OsType


class OsTypeAnswer(Answer):
    id = text("uuid", "the operating system's id")
    description = text("description", "its name")
    oscategoryid = text("category.uuid", "its category's id")
    oscategoryname = text("category.name", "its category's name")
    isuserdefined = Constant(False, "always false")


class OsCategoryAnswer(Answer):
    id = text("uuid", "the category's id")
    name = text("name", "the category's name")


def _contains(text: str, keyword: str | None) -> bool:
    return (keyword or "").lower() in text.lower()


class ListOsTypesParams(ListParams):
    id = Uuid("The operating system's id.")
    oscategoryid = Uuid("Only operating systems of this category.")
    description = Text("The operating system's name.")


@command(since="1.1", roles=EVERYBODY)
class ListOsTypes(ListCommand):
    """List the guest operating systems that a template can name."""

    params = ListOsTypesParams
    answer = ("ostype", OsTypeAnswer)

    def rows(self, caller: Caller, params: Values) -> list[OsType]:
        return [
            os_type
            for os_type in OS_TYPES
            if params["id"] in (None, os_type.uuid)
            and params["oscategoryid"] in (None, os_type.category.uuid)
            and params["description"] in (None, os_type.description)
            and _contains(os_type.description, params["keyword"])
        ]


class ListOsCategoriesParams(ListParams):
    id = Uuid("The category's id.")
    name = Text("The category's name.")


@command(since="1.1", roles=EVERYBODY)
class ListOsCategories(ListCommand):
    """List the categories of guest operating systems."""

    params = ListOsCategoriesParams
    answer = ("oscategory", OsCategoryAnswer)

    def rows(self, caller: Caller, params: Values) -> list[OsCategory]:
        return [
            category
            for category in OS_CATEGORIES
            if params["id"] in (None, category.uuid)
            and params["name"] in (None, category.name)
            and _contains(category.name, params["keyword"])
        ]
