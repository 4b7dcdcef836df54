"""The reference page of the CloudStack API, as Markdown, from what the commands declare."""

from collections.abc import Iterator
from typing import Any

from extdhcp_site.accounts.models import Role
from extdhcp_site.api import registry
from extdhcp_site.api.answers import Answer, Success
from extdhcp_site.api.api import described
from extdhcp_site.api.registry import AsyncCommand, Command, ListCommand

_HEAD = """# API reference

Every command of `/client/api`, made by `manage.py api_reference` from the declarations that the server itself goes by.
How to call them, sign, wait for jobs and page: [The API](api.md). The same by REST: `/api/docs/` of a running server.

Parameters in **bold** are required. Every list also takes `page` and `pagesize`, together, and `keyword`.
"""
_OF_EVERY_LIST = ("page", "pagesize", "keyword")


def reference() -> str:
    commands = registry.commands()
    answers = {found.answer_class(): found for found in commands if found.answer_class() is not Success}
    parts = [_HEAD, *_index(commands)]
    parts += [line for found in commands for line in _command(found)]
    parts.append("## What answers hold\n")
    for answer, found in sorted(answers.items(), key=lambda pair: pair[0].__name__):
        parts += [f"### {_title(answer)}\n", *_fields(described(found)["response"], answer.for_root), ""]
    return "\n".join(parts).rstrip() + "\n"


def _index(commands: list[type[Command]]) -> Iterator[str]:
    yield "| command | | for | |"
    yield "| --- | --- | --- | --- |"
    for found in commands:
        yield f"| [{found.name}](#{found.name.lower()}) | {found.description()} | {_roles(found)} | {_kind(found)} |"
    yield ""


def _command(found: type[Command]) -> Iterator[str]:
    yield f"### {found.name}\n"
    yield f"{found.description()} For {_roles(found)}; since {found.since}. {_answers(found)}\n"
    shown = [
        parameter
        for parameter in described(found)["params"]
        if not (issubclass(found, ListCommand) and parameter["name"] in _OF_EVERY_LIST)
    ]
    if shown:
        yield "| parameter | type | |"
        yield "| --- | --- | --- |"
        for parameter in shown:
            name = f"`{parameter['name']}`"
            name = f"**{name}**" if parameter["required"] else name
            yield f"| {name} | {parameter['type']} | {_cell(parameter['description'])} |"
        yield ""


def _answers(found: type[Command]) -> str:
    answer = found.answer_class()
    shown = "`success`" if answer is Success else f"[{_title(answer)}](#{_title(answer).lower()})"
    if found.word():
        shown = f"`{found.word()}`: {shown}"
    if issubclass(found, AsyncCommand):
        return f"Answers `jobid`{' and `id`' if found.creates else ''} at once; the job's result is {shown}."
    return f"Answers {shown}."


def _fields(fields: list[dict[str, Any]], for_root: tuple[str, ...], within: str = "") -> Iterator[str]:
    if not within:
        yield "| field | type | |"
        yield "| --- | --- | --- |"
    for field in fields:
        note = " (root administrators)" if field["name"] in for_root else ""
        yield f"| `{within}{field['name']}` | {field['type']} | {_cell(field['description'])}{note} |"
        yield from _fields(field["response"], (), f"{within}{field['name']}.") if "response" in field else ()


def _title(answer: type[Answer]) -> str:
    return answer.__name__.removesuffix("Answer")


def _roles(found: type[Command]) -> str:
    if found.roles == frozenset(Role):
        return "everybody"
    return " and ".join(f"{role.label.lower()}s" for role in Role if role in found.roles)


def _kind(found: type[Command]) -> str:
    return "job" if found.is_async else ""


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", r"\|")
    return text[:1].upper() + text[1:]
