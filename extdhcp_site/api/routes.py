"""`/api/v1/`: what it changes. A route is another spelling of a command, declared once:

routes.post("vms", DeployVirtualMachine)
routes.post("vms/{id}/actions/start", StartVirtualMachine)
routes.delete("vms/{id}", DestroyVirtualMachine)

A name in the path and each field of the JSON body (of a GET or DELETE, of the query) is a parameter of the
command, which validates them, decides who may, and runs, just as when it is called at `/client/api`.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from django.http import Http404
from django.http.response import HttpResponseBase
from django.urls import URLPattern
from django.urls import path as url
from rest_framework import status
from rest_framework.exceptions import ParseError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.viewsets import ViewSetMixin

from extdhcp_site.api import parameters, registry
from extdhcp_site.api.carrying_out import carry_out
from extdhcp_site.api.parameters import Json
from extdhcp_site.api.registry import EVERYBODY, AsyncCommand, Command
from extdhcp_site.api.resources import CallerView, Place, place_at, places, prefixes

JOB = "jobs/{id}"
WITHOUT_BODY = ("GET", "DELETE")


def get(route: str, command: type[Command]) -> None:
    """For a command that shows one thing; lists are view sets."""
    _add("get", route, command)


def post(route: str, command: type[Command]) -> None:
    _add("post", route, command)


def patch(route: str, command: type[Command]) -> None:
    _add("patch", route, command)


def delete(route: str, command: type[Command]) -> None:
    _add("delete", route, command)


def _add(method: str, route: str, command: type[Command]) -> None:
    """Raises TypeError for what is not a registered command, whose roles say who may call it."""
    if registry.find(getattr(command, "name", "")) is not command:
        raise TypeError(f"{command.__name__} must be a command that is registered with @command.")
    if undeclared := names_in(route) - command.params.declared().keys():
        raise TypeError(f"{command.__name__} has no parameter {min(undeclared)}, which is in the path {route}.")
    place = place_at(route)
    if method in place.commands:
        raise TypeError(f"{method.upper()} {route} is {place.commands[method].name} already.")
    place.commands[method] = command


def names_in(route: str) -> set[str]:
    return {part[1:-1] for part in route.split("/") if part.startswith("{")}


def success_of(route: str, method: str, command: type[Command]) -> int:
    """The status of an answer that is no error."""
    if issubclass(command, AsyncCommand):
        return status.HTTP_202_ACCEPTED
    creates = method == "POST" and "actions" not in route.split("/")
    return status.HTTP_201_CREATED if creates else status.HTTP_200_OK


def in_query(route: str, method: str, command: type[Command]) -> set[str]:
    """The parameters that stand in the query: a GET and a DELETE have no body."""
    return set(command.params.declared()) - names_in(route) if method in WITHOUT_BODY else set()


# Views ------------------------------------------------------------------------------------------------


class RunsCommands(ViewSetMixin):
    """Mixed into the view of a path at which commands stand."""

    route: ClassVar[str]
    commands: ClassVar[Mapping[str, type[Command]]]

    def command_of(self, method: str | None) -> type[Command] | None:
        """The command behind a method, None for what the view shows by itself."""
        return self.commands.get((method or "").lower())

    def check_role(self) -> None:
        command = self.command_of(self.request.method)
        if command is None:
            super().check_role()
        else:
            registry.permitted(command, self.caller)

    def known_parameters(self) -> set[str]:
        method = self.request.method
        command = self.command_of(method)
        return super().known_parameters() if command is None else in_query(self.route, method, command)

    def run(self, request: Request, **in_path: str) -> Response:
        command = self.command_of(request.method)
        body = {} if request.method in WITHOUT_BODY else request.data
        if not isinstance(body, Mapping):
            raise ParseError("The body must be a JSON object.")
        json = Json(body, in_path, request.query_params.dict())
        answer = carry_out(command, self.caller, lambda: parameters.validate_json(command.params, json, self.caller))
        word = command.word()
        if issubclass(command, AsyncCommand):
            headers = {"Location": reverse(JOB, kwargs={"id": answer["jobid"]})}
        else:
            headers, answer = {}, answer if word is None else _one(answer[word])
        return Response(answer, success_of(self.route, request.method, command), headers=headers)


def _one(shown: Any) -> Any:
    """The object of a command whose CloudStack answer is a list of one."""
    return shown[0] if isinstance(shown, list) and len(shown) == 1 else shown


class OnlyCommands(CallerView):
    """For a path at which nothing is shown."""

    roles = EVERYBODY


class Nothing(CallerView):
    """For paths at which there is nothing: a 404 in the same words as everywhere."""

    roles = EVERYBODY
    schema = None

    def check_role(self) -> None:
        raise Http404


class Index(CallerView):
    """The addresses of the lists."""

    roles = EVERYBODY

    def get(self, request: Request) -> Response:
        return Response({prefix: reverse(prefix, request=request) for prefix in prefixes()})


# URLs -------------------------------------------------------------------------------------------------


def urls() -> list[URLPattern]:
    """One for each path, and at the end one for all else. Fixed parts of a path go before names."""
    found = [url("", Index.as_view())]
    for route in sorted(places, key=lambda route: [(part.startswith("{"), part) for part in route.split("/")]):
        view = view_of(route, places[route])
        spelt = route.replace("{", "<str:").replace("}", ">")
        found += [url(spelt, view, name=route), url(f"{spelt}/", view)]
    return [*found, url("<path:rest>", Nothing.as_view())]


def view_of(route: str, place: Place) -> Callable[..., HttpResponseBase]:
    if place.view and not place.action and not place.commands:
        return place.view.as_view()
    base = place.view or OnlyCommands
    made = type(
        base.__name__, (RunsCommands, base), {"route": route, "commands": place.commands, "__doc__": base.__doc__}
    )
    actions = {"get": place.action or "get"} if place.view else {}
    return made.as_view({**actions, **dict.fromkeys(place.commands, "run")}, detail=place.action == "retrieve")
