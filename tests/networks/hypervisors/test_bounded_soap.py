"""What is remembered while an answer is read makes the same values as pyVmomi does, and lets nothing more pass."""

import gc
import weakref

import pytest
from pyVmomi import SoapAdapter, SoapStubAdapter, vim, vmodl
from pyVmomi.VmomiSupport import FormatObject

from networks.hypervisors.bounded_soap import _ResponseReader
from networks.hypervisors.vsphere_session import API_VERSION

UpdateSet = vmodl.query.PropertyCollector.UpdateSet

NIC = (
    "<GuestNicInfo><macAddress>00:50:56:00:00:0{0}</macAddress><ipAddress>192.0.2.{0}</ipAddress>"
    "<ipAddress>2001:db8::{0}</ipAddress><connected>true</connected><deviceConfigId>4000</deviceConfigId>"
    "<ipConfig><ipAddress><ipAddress>192.0.2.{0}</ipAddress><prefixLength>24</prefixLength>"
    "<state>preferred</state></ipAddress></ipConfig></GuestNicInfo>"
)
VM = (
    '<objectSet><kind>enter</kind><obj type="VirtualMachine">vm-{0}</obj>'
    '<changeSet><name>config.uuid</name><op>assign</op><val xsi:type="xsd:string">uuid-{0}</val></changeSet>'
    "<changeSet><name>runtime.host</name><op>assign</op>"
    '<val type="HostSystem" xsi:type="ManagedObjectReference">host-{0}</val></changeSet>'
    "<changeSet><name>runtime.powerState</name><op>assign</op>"
    '<val xsi:type="VirtualMachinePowerState">poweredOn</val></changeSet>'
    '<changeSet><name>guest.net</name><op>assign</op><val xsi:type="ArrayOfGuestNicInfo">{1}</val></changeSet>'
    "<changeSet><name>guest.ipAddress</name><op>remove</op></changeSet>"
    "<missingSet><path>guest.x</path><fault><fault xsi:type='NotAuthenticated'>"
    '<object type="Folder">group-d1</object><privilegeId>System.Read</privilegeId></fault>'
    "<localizedMessage>no</localizedMessage></fault></missingSet></objectSet>"
)


def answer(*vms: str) -> bytes:
    return (
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
        'xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        '<soapenv:Body><WaitForUpdatesExResponse xmlns="urn:vim25"><returnval><version>1</version><filterSet>'
        '<filter type="PropertyFilter">filter-1</filter>' + "".join(vms) + "</filterSet></returnval>"
        "</WaitForUpdatesExResponse></soapenv:Body></soapenv:Envelope>"
    ).encode()


def read(content: bytes, *, ours: bool) -> object:
    stub = SoapStubAdapter(host="192.0.2.1", version=API_VERSION)
    if not ours:
        return SoapAdapter.SoapResponseDeserializer(stub).Deserialize(content, UpdateSet)
    reader = _ResponseReader(stub, UpdateSet)
    reader.feed(content)
    return reader.close()


def test_the_values_are_those_of_pyvmomi():
    # The second VM has no NIC, the third has two: what was remembered of the first does not pass for theirs.
    nics = [NIC.format(1), "", NIC.format(2) + NIC.format(3)]
    content = answer(*(VM.format(number, some) for number, some in enumerate(nics)))

    ours = read(content, ours=True)

    assert FormatObject(ours) == FormatObject(read(content, ours=False))
    last = {change.name: change.val for change in ours.filterSet[0].objectSet[2].changeSet}
    assert (last["runtime.host"]._moId, type(last["runtime.host"])) == ("host-2", vim.HostSystem)
    assert [list(nic.ipAddress) for nic in last["guest.net"]] == [
        ["192.0.2.2", "2001:db8::2"],
        ["192.0.2.3", "2001:db8::3"],
    ]


def test_objects_of_one_answer_do_not_share_their_lists():
    content = answer(*(VM.format(number, NIC.format(number)) for number in range(3)))

    sets = [update.changeSet for update in read(content, ours=True).filterSet[0].objectSet]

    assert [len(changes) for changes in sets] == [5, 5, 5]
    assert len({id(changes) for changes in sets}) == 3


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("<macAddress>00:50:56:00:00:01</macAddress>", '<macAddress xsi:type="xsd:int">7</macAddress>'),
        ("<prefixLength>24</prefixLength>", "<prefixLength>many</prefixLength>"),
        ("<deviceConfigId>4000</deviceConfigId>", "<colour>red</colour>"),
        ("<ipConfig>", '<ipConfig xsi:type="HostSystem">'),
        ("<op>assign</op>", "<op>guessed</op>"),
        ("<op>assign</op>", "<op>__doc__</op>"),
    ],
)
def test_what_pyvmomi_refuses_is_refused_after_many_that_were_right(right, wrong):
    good = VM.format(1, NIC.format(1))
    content = answer(good, good, good.replace(right, wrong))

    for ours in (False, True):
        with pytest.raises((TypeError, ValueError, AttributeError, KeyError)):
            read(content, ours=ours)


def test_an_answer_is_gone_as_soon_as_its_reader_is_released():
    reader = _ResponseReader(SoapStubAdapter(host="192.0.2.1", version=API_VERSION), UpdateSet)
    reader.feed(answer(VM.format(1, NIC.format(1)))[:-20])
    reader.release()
    still_there = weakref.ref(reader)
    gc.disable()
    try:
        del reader
        assert still_there() is None
    finally:
        gc.enable()
