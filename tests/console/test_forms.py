"""A form is a command's parameters: the command says what is wrong, and the form says it beside the field."""

import base64

import pytest
from django.template.loader import render_to_string

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console import commands
from extdhcp_site.console.commands import Action, Call
from extdhcp_site.console.forms import Ask, CommandForm
from extdhcp_site.errors import UnknownCommand
from networks.models import NetworkOffering, Zone
from tests import factories
from tests.console.worlds import make_root

pytestmark = pytest.mark.django_db


@pytest.fixture
def caller():
    return Caller.of(make_root())


@pytest.fixture
def form(rf, caller):
    def form(command, asks, data=None, **values):
        request = rf.get("/") if data is None else rf.post("/", data)
        return CommandForm(command, request, caller, asks, values)

    return form


def test_nothing_is_done_before_it_is_sent(form):
    assert form("createSSHKeyPair", [Ask("name")]).submit() is None


def test_what_is_sent_is_the_command(form):
    answer = form("createSSHKeyPair", [Ask("name")], {"name": "k"}).submit()

    assert answer["keypair"]["name"] == "k"


def test_a_problem_stands_beside_its_field(form):
    it = form("createSSHKeyPair", [Ask("name")], {"name": ""})

    assert it.submit() is None
    assert it.fields["name"].error == "This field is required."


def test_every_problem_stands_beside_its_field(form):
    it = form("listNics", [Ask("virtualmachineid"), Ask("nicid")], {"virtualmachineid": "x", "nicid": "y"})

    assert it.submit() is None
    assert all(field.error == "There is no such object." for field in it.fields.values())


def test_a_problem_of_no_field_stands_above(form):
    it = form("createSSHKeyPair", [], {}, name="k" * 300)

    assert it.submit() is None
    assert "no more than 100" in it.error


def test_what_was_typed_stays(form):
    it = form("createSSHKeyPair", [Ask("name")], {"name": "n" * 300})

    it.submit()

    assert it.fields["name"].value == "n" * 300


def test_objects_are_offered_by_name(form):
    zone = factories.make_zone(name="here")

    assert form("listNetworks", [Ask("zoneid")]).fields["zoneid"].choices == [(str(zone.uuid), str(zone))]


def test_of_too_many_objects_an_id_is_asked_for(form, monkeypatch):
    monkeypatch.setattr("extdhcp_site.console.forms.MOST_CHOICES", 1)
    factories.make_zone()
    factories.make_zone()

    assert form("listNetworks", [Ask("zoneid")]).fields["zoneid"].kind == "text"


def test_several_that_are_chosen_are_one_list(form):
    it = form("listVirtualMachines", [Ask("ids")], {"ids": ["a", "b"]})

    assert it.sends() == {"ids": "a,b"}


def test_a_box_that_is_not_ticked_is_false(form):
    assert form("listNetworks", [Ask("canusefordeploy")], {}).sends() == {"canusefordeploy": "false"}


def test_a_text_is_sent_in_base64_where_that_is_asked_for(form):
    it = form("createSSHKeyPair", [Ask("name", in_base64=True)], {"name": "#!/bin/sh\r\nls\r\n"})

    assert base64.b64decode(it.sends()["name"]) == b"#!/bin/sh\nls\n"


def test_a_command_of_another_role_has_no_form(rf):
    with pytest.raises(UnknownCommand):
        CommandForm("createZone", rf.get("/"), Caller.of(factories.make_user()), [])


def test_nothing_is_made_of_what_is_refused(form):
    factories.make_zone()
    before = NetworkOffering.objects.count()

    form("createNetworkOffering", [Ask("name")], {"name": "n"}).submit()

    assert NetworkOffering.objects.count() == before
    assert Zone.objects.count() == 1


# The call that is shown


def test_a_call_is_one_that_can_be_typed():
    assert Call("deployVirtualMachine", {"name": "a b"}).cmk == "cmk deploy virtualmachine name='a b'"


def test_a_call_hides_secrets():
    assert "hunter2" not in Call("updateUser", {"password": "hunter2", "currentpassword": "hunter2"}).cmk


def test_a_call_hides_what_is_typed_blindly(form):
    it = form("createSSHKeyPair", [Ask("name", kind="password")], {"name": "hunter2"})

    assert "hunter2" not in it.call.cmk


def test_buttons_are_those_of_the_role():
    actions = [Action("createZone", "Zone", {}), Action("listNics", "NICs", {})]

    assert [action.command for action in commands.permitted(Caller.of(factories.make_user()), actions)] == ["listNics"]


def test_a_question_that_is_open_never_becomes_anothers():
    """The live page keeps what has the same id: by place, "Reboot" became "Reinstall" under the pointer (proved)."""
    stop = Action("stopVirtualMachine", "Stop", {"id": "1"}, sure="Sure?")
    others = [
        Action("destroyVirtualMachine", "Destroy", {"id": "1"}, sure="Sure?"),
        Action("stopVirtualMachine", "Stop", {"id": "2"}, sure="Sure?"),
        Action("stopVirtualMachine", "Cut power", {"id": "1", "forced": "true"}, sure="Sure?"),
    ]
    before = render_to_string("console/actions.html", {"actions": [stop, *others], "here": "/"})
    after = render_to_string("console/actions.html", {"actions": others, "here": "/"})

    assert questions(after) == {id: text for id, text in questions(before).items() if id in questions(after)}
    assert len(questions(before)) == 4


def questions(page: str) -> dict[str, str]:
    return {part.split('"')[0]: part.split("</form>")[0] for part in page.split('<div popover id="')[1:]}
