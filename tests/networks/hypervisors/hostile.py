"""Answers that no hypervisor gives, and what each costs who asked: in a process of its own, `python -m` this."""

import gzip
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import XenAPI
from pyVmomi import vim, vmodl

from networks.hypervisors.base import EndpointAddress, Transport
from networks.hypervisors.bounded import HttpsClient, within
from networks.hypervisors.bounded_soap import SoapStub
from networks.hypervisors.bounded_xmlrpc import RECORDS, RpcTransport, keeping

MIB = 1024 * 1024

# What is asked --------------------------------------------------------------------------------------


def call_xen(address: EndpointAddress, deadline: float) -> object:
    session = XenAPI.Session("https://endpoint/", transport=RpcTransport(address), allow_none=True)
    with within(deadline):
        return session.xenapi.VM.get_all_records()


def call_vsphere(address: EndpointAddress, deadline: float) -> object:
    stub = SoapStub(address)
    properties = vmodl.query.PropertyCollector
    wanted = properties.FilterSpec(
        propSet=[properties.PropertySpec(type=vim.VirtualMachine, all=True)],
        objectSet=[properties.ObjectSpec(obj=vim.VirtualMachine("vm-1", stub))],
    )
    with within(deadline):
        return properties("propertyCollector", stub).RetrievePropertiesEx([wanted], properties.RetrieveOptions())


def get_file(address: EndpointAddress, deadline: float) -> object:
    return HttpsClient(address).get("/file", deadline)


def call_xen_for_little(address: EndpointAddress, deadline: float) -> object:
    with keeping({f"field_{number}" for number in range(15)}, RECORDS):
        records = call_xen(address, deadline)
    assert len(records) == 10_000
    assert all(len(record) == 15 for record in records.values())
    return records


CALLS = {"xen for little": call_xen_for_little, "xen": call_xen, "vsphere": call_vsphere, "file": get_file}

# What is answered -----------------------------------------------------------------------------------

XEN = (
    b"<?xml version='1.0'?><methodResponse><params><param><value><struct><member><name>Status</name>"
    b"<value>Success</value></member><member><name>Value</name><value>",
    b"</value></member></struct></value></param></params></methodResponse>",
)
VSPHERE = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
    b'xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>'
    b'<RetrievePropertiesExResponse xmlns="urn:vim25"><returnval>',
    b"</returnval></RetrievePropertiesExResponse></soapenv:Body></soapenv:Envelope>",
)
OBJECT = (
    b'<objects><obj type="VirtualMachine">vm-1</obj><propSet><name>config</name>',
    b"</propSet></objects>",
)
STRING = (b'<val xsi:type="xsd:string">', b"</val>")


def head(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"", b""])


def sized(body: bytes, *lines: bytes) -> Iterator[bytes]:
    yield head(b"Content-Length: %d" % len(body), *lines) + body


def until_the_end(*pieces: bytes | Iterator[bytes]) -> Iterator[bytes]:
    """An answer without a length, which ends when the connection does."""
    yield head(b"Connection: close")
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
        else:
            yield from piece


def chunked(*pieces: bytes) -> Iterator[bytes]:
    yield head(b"Transfer-Encoding: chunked")
    yield from pieces


def for_ever(piece: bytes, at_once: int = 65536) -> Iterator[bytes]:
    many = piece * max(1, at_once // len(piece))
    while True:
        yield many


def repeated(piece: bytes, times: int) -> Iterator[bytes]:
    for _ in range(times):
        yield piece


def slowly(content: bytes) -> Iterator[bytes]:
    for number in range(len(content)):
        time.sleep(0.05)
        yield content[number : number + 1]


def stalled() -> Iterator[bytes]:
    time.sleep(5)
    yield b""


ENTITIES = b"<!DOCTYPE a [" + b"".join(b'<!ENTITY e%d "%s">' % (n + 1, b"&e%d;" % n * 10) for n in range(9)) + b"]>"
EXTERNAL = b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
BOMB = gzip.compress(bytes(400 * MIB), 9)

# Of HTTP: for every call.
Answer = Callable[[], Iterator[bytes]]
TRANSPORT: dict[str, Answer] = {
    "gzip bomb": lambda: sized(BOMB, b"Content-Encoding: gzip"),
    "deflate, unasked": lambda: sized(b"x", b"Content-Encoding: deflate"),
    "a length of 10^12": lambda: iter_with(head(b"Content-Length: 1000000000000"), for_ever(b" ")),
    "shorter than it says": lambda: iter([head(b"Content-Length: 1000") + b"<a></a>"]),
    "a chunk of -1": lambda: until_chunked(b"-1\r\n", for_ever(b" ")),
    "a chunk of -5": lambda: until_chunked(b"-5\r\n", for_ever(b" ")),
    "a chunk of zz": lambda: chunked(b"zz\r\n", b"<a/>\r\n"),
    "a chunk of 2^64": lambda: until_chunked(b"ffffffffffffffff\r\n", for_ever(b" ")),
    "an endless chunk size": lambda: until_chunked(b"", for_ever(b"0")),
    "an endless body": lambda: until_the_end(for_ever(b" ")),
    "endless headers": lambda: iter_with(b"HTTP/1.1 200 OK\r\n", for_ever(b"X-Header: value\r\n")),
    "an endless header": lambda: iter_with(b"HTTP/1.1 200 OK\r\nX-Header: ", for_ever(b"a")),
    "an endless status": lambda: iter_with(b"HTTP/1.1 200 ", for_ever(b"a")),
    "no HTTP": lambda: iter([b"220 ftp.example ready\r\n"]),
    "nothing": lambda: iter([b""]),
    "a redirect": lambda: iter([head(b"Content-Length: 0", b"Location: https://127.0.0.2/", status=b"302 Found")]),
}
# Of HTTP as well; these end at the deadline.
SLOW: dict[str, Answer] = {
    "endless chunks": lambda: until_chunked(b"", for_ever(b"1\r\n \r\n")),
    "endless 100 Continue": lambda: for_ever(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "endless trailers": lambda: until_chunked(b"0\r\n", for_ever(b"X-Trailer: value\r\n")),
    "a slow head": lambda: slowly(head(b"Content-Length: 5")),
    "a slow body": lambda: iter_with(head(b"Content-Length: 1000"), slowly(b" " * 1000)),
    "slow chunks": lambda: until_chunked(b"", slowly(b"1\r\n \r\n" * 1000)),
    "silence": stalled,
}


def until_chunked(piece: bytes, more: Iterator[bytes]) -> Iterator[bytes]:
    return iter_with(head(b"Transfer-Encoding: chunked") + piece, more)


def iter_with(piece: bytes, more: Iterator[bytes]) -> Iterator[bytes]:
    yield piece
    yield from more


# Of XML: for each of the two kinds, around (before, after) where a value may stand.
def markup(around: tuple[bytes, bytes]) -> dict[str, Answer]:
    before, after = around
    start, rest = before.split(b"?>", 1)
    declaration = start + b"?>"
    whole = before + after
    return {
        "an entity bomb": lambda: sized(declaration + ENTITIES + rest + b"&e9;" + after),
        "an external entity": lambda: sized(declaration + EXTERNAL + rest + b"&e;" + after),
        "an undeclared entity": lambda: sized(before + b"&e;" + after),
        "a DTD alone": lambda: sized(declaration + b"<!DOCTYPE a>" + rest + after),
        "an instruction": lambda: sized(declaration + b"<?php x?>" + rest + after),
        "UTF-16": lambda: sized(
            (declaration + ENTITIES + rest + b"&e9;" + after).decode().replace("UTF-8", "UTF-16").encode("utf-16")
        ),
        "a NUL": lambda: sized(before + b"\0" + after),
        "not XML": lambda: sized(b"<html><body>Log in!<br></body></html>"),
        "HTML": lambda: sized(b"<html><body>Log in!</body></html>"),
        "empty": lambda: sized(b""),
        "cut short": lambda: sized(whole[:-5]),
        "two documents": lambda: sized(whole + whole),
        "an endless tag": lambda: until_the_end(before, b"<", for_ever(b"a")),
        "endless attributes": lambda: until_the_end(before, b"<a ", for_ever(b"a='b' ")),
        "an endless comment": lambda: until_the_end(before, b"<!--", for_ever(b"a")),
        "an endless text": lambda: until_the_end(before, for_ever(b"a")),
        "an endless text of references": lambda: until_the_end(before, for_ever(b"&#65;")),
        "deep elements": lambda: until_the_end(before, b"<a>" * 200_000),
        "endless comments": lambda: until_the_end(before, for_ever(b"<!-- -->")),
    }


NAMES = b"".join(b"<member><name>%d</name></member>" % n for n in range(20))
XEN_MARKUP: dict[str, Answer] = markup(XEN) | {
    "a deep array": lambda: until_the_end(XEN[0], b"<array><data><value>" * 200_000),
    "endless strings": lambda: until_the_end(XEN[0], b"<array><data>", for_ever(b"<value>" + b"a" * 50 + b"</value>")),
    "endless nothings": lambda: until_the_end(XEN[0], b"<array><data>", for_ever(b"<value><nil/></value>")),
    "endless arrays": lambda: until_the_end(
        XEN[0], b"<array><data>", for_ever(b"<value><array><data/></array></value>")
    ),
    "endless structs": lambda: until_the_end(XEN[0], b"<array><data>", for_ever(b"<value><struct/></value>")),
    "endless names": lambda: until_the_end(XEN[0], b"<struct><member>", for_ever(b"<name>a</name>")),
    "endless members": lambda: until_the_end(
        XEN[0],
        b"<struct>",
        (
            b"".join(b"<member><name>%d</name><value/></member>" % n for n in range(start, start + 1000))
            for start in range(0, 10**9, 1000)
        ),
    ),
    "a long number": lambda: sized(XEN[0] + b"<int>" + b"9" * 100_000 + b"</int>" + XEN[1]),
    "no number": lambda: sized(XEN[0] + b"<int>x</int>" + XEN[1]),
    "an unknown tag": lambda: sized(XEN[0] + b"<b>x</b>" + XEN[1]),
    "no values": lambda: sized(b"<methodResponse><params/></methodResponse>"),
    "a text": lambda: sized(b"<methodResponse><params><param><value>x</value></param></params></methodResponse>"),
    "no error": lambda: sized((XEN[0] + b"x" + XEN[1]).replace(b"Success", b"Failure")),
    "a fault that is none": lambda: sized(b"<methodResponse><fault><value>x</value></fault></methodResponse>"),
}


def value(text: bytes) -> bytes:
    return OBJECT[0] + text + OBJECT[1]


VSPHERE_MARKUP: dict[str, Answer] = markup((VSPHERE[0] + OBJECT[0] + STRING[0], STRING[1] + OBJECT[1] + VSPHERE[1])) | {
    "endless objects": lambda: until_the_end(
        VSPHERE[0], for_ever(value(b'<val xsi:type="VirtualMachineConfigInfo"/>'))
    ),
    "endless properties": lambda: until_the_end(
        VSPHERE[0], OBJECT[0], b'<val xsi:type="ArrayOfString">', for_ever(b"<string/>")
    ),
    "endless devices": lambda: until_the_end(
        VSPHERE[0],
        OBJECT[0],
        b'<val xsi:type="ArrayOfVirtualDevice">',
        for_ever(b'<VirtualDevice xsi:type="VirtualVmxnet3"/>'),
    ),
    "endless references": lambda: until_the_end(
        VSPHERE[0],
        OBJECT[0],
        b'<val xsi:type="ArrayOfManagedObjectReference">',
        for_ever(b'<ManagedObjectReference type="VirtualMachine">vm-1</ManagedObjectReference>'),
    ),
    "an unknown type": lambda: sized(VSPHERE[0] + value(b'<val xsi:type="Unheard"/>') + VSPHERE[1]),
    "an unknown property": lambda: sized(VSPHERE[0] + b"<unheard/>" + VSPHERE[1]),
    "a reference without a type": lambda: sized(VSPHERE[0] + b"<objects><obj>vm-1</obj></objects>" + VSPHERE[1]),
    "no number": lambda: sized(VSPHERE[0] + value(b'<val xsi:type="xsd:int">x</val>') + VSPHERE[1]),
    "a long number": lambda: sized(
        VSPHERE[0] + value(b'<val xsi:type="xsd:int">' + b"9" * 100_000 + b"</val>") + VSPHERE[1]
    ),
    "no date": lambda: sized(
        VSPHERE[0] + value(b'<val xsi:type="xsd:dateTime">' + b"2" * 1_000_000 + b"</val>") + VSPHERE[1]
    ),
    "no value of its kind": lambda: sized(
        VSPHERE[0] + value(b'<val xsi:type="VirtualMachinePowerState">__mro__</val>') + VSPHERE[1]
    ),
    "a failure that is a result": lambda: iter(
        [head(b"Content-Length: %d" % len(b"".join(VSPHERE)), status=b"500 Internal Server Error"), *VSPHERE]
    ),
}


def ten_thousand_vms() -> Iterator[bytes]:
    """80 MB of records with 80 fields, as a big pool has them."""
    yield XEN[0] + b"<struct>"
    for number in range(10_000):
        fields = b"".join(
            b"<member><name>field_%d</name><value>OpaqueRef:%032d</value></member>" % (field, number)
            for field in range(80)
        )
        yield b"<member><name>OpaqueRef:%032d</name><value><struct>%b</struct></value></member>" % (number, fields)
    yield b"</struct>" + XEN[1]


# What it costs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """`outcome` is the error's class, or "an answer"; `memory` in bytes, at its highest."""

    outcome: str
    text: str
    seconds: float
    memory: int


def measured(call: str, address: EndpointAddress, seconds: float) -> Cost:
    """In a child, so that each begins with the same memory."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, json.dumps(asdict(_cost(CALLS[call], address, seconds))).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as result:
        answer = result.read()
    os.waitpid(child, 0)
    return Cost(**json.loads(answer))


def _cost(call: Callable[[EndpointAddress, float], object], address: EndpointAddress, seconds: float) -> Cost:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the highest is from now on: proc(5)
    most = _memory("VmSize") + 512 * MIB  # so that a mistake of ours costs the test and not the machine
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    before, began = _memory("VmRSS"), time.monotonic()
    try:
        call(address, began + seconds)
        outcome, text = "an answer", ""
    except Exception as error:
        outcome, text = type(error).__name__, str(error)
    return Cost(outcome, text, time.monotonic() - began, _memory("VmHWM") - before)


def _memory(name: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{name}:"))


def main() -> None:
    """Standard input: a JSON array of [call, host, port, fingerprint, seconds]; output: their costs, one a line."""
    vim.vm.ConfigInfo(), vim.vm.device.VirtualVmxnet3()  # pyVmomi makes its classes at their first use
    for call, host, port, fingerprint, seconds in json.load(sys.stdin):
        address = EndpointAddress(Transport.TEST, host, port, fingerprint=fingerprint)
        print(json.dumps(asdict(measured(call, address, seconds))), flush=True)


if __name__ == "__main__":
    main()
