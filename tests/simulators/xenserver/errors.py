"""XenAPI's failures: a code and its parameters, as they go over the wire."""


class XenError(Exception):
    """What the caller is answered: `ErrorDescription` is the code and its parameters, all of them strings."""

    def __init__(self, code: str, *parameters: object) -> None:
        super().__init__(code, *parameters)
        self.description = [code, *map(str, parameters)]


def handle_invalid(class_name: str, ref: object) -> XenError:
    return XenError("HANDLE_INVALID", class_name, ref)


def bad_power_state(vm: str, expected: str, actual: str) -> XenError:
    return XenError("VM_BAD_POWER_STATE", vm, expected.lower(), actual.lower())


# Numbers and texts of drivers/XE_SR_ERRORCODES.xml, https://github.com/xapi-project/sm
_BACKEND_TEXTS = {
    16: "The SR device is currently in use",
    43: "The VDI already exists",
    44: "There is insufficient space",
    47: "The SR is not available",
    73: "NFS mount error",
    78: "VDI Creation failed",
    79: "VDI Invalid size",
    94: "The request is missing the location parameter",
    144: "VDI could not be found",
    225: "Incorrect Location string format. String must be in the format SERVER:PATH for NFS targets",
    226: "Invalid local path",
}


def backend_failure(number: int, detail: str = "") -> XenError:
    """An error of a storage driver in dom0."""
    text = _BACKEND_TEXTS[number]
    return XenError(f"SR_BACKEND_FAILURE_{number}", "", f"{text} [opterr={detail}]" if detail else text, "")
