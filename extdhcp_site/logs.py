"""One JSON object a line, from our loggers and the libraries' alike.

Values are cut, and an exception is its type and frames: neither a guest's megabyte nor a password in
a local variable or in a library's words reaches the log.
"""

import json
import logging
import traceback

import structlog
from structlog.types import EventDict, ExcInfo, WrappedLogger

LONGEST_VALUE = 256
LONGEST_CHAIN = 5
MOST_FRAMES = 20


def _cut(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    return {
        key: value[:LONGEST_VALUE] + "…" if isinstance(value, str) and len(value) > LONGEST_VALUE else value
        for key, value in event.items()
    }


def _chain(exc_info: ExcInfo) -> list[dict[str, object]]:
    """An exception and those behind it: type and frames, without the words, which may quote a secret."""
    chain: list[dict[str, object]] = []
    error: BaseException | None = exc_info[1]
    while error is not None and len(chain) < LONGEST_CHAIN:
        frames = traceback.extract_tb(error.__traceback__)[-MOST_FRAMES:]
        where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        chain.append({"type": type(error).__name__, "where": where})
        error = error.__cause__ or error.__context__
    return chain


def _common() -> list[structlog.types.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
        _cut,
        # After the cut: a traceback is a list of frames, not one long string.
        structlog.processors.ExceptionRenderer(_chain),
    ]


_encode = json.JSONEncoder(default=repr).encode


class _JsonLines(structlog.stdlib.ProcessorFormatter):
    """Our own records have passed their processors: the copy of each, made for other handlers, is not needed."""

    def format(self, record: logging.LogRecord) -> str:
        return _encode(record.msg) if hasattr(record, "_logger") else super().format(record)


def formatter() -> logging.Formatter:
    # Nobody is told the line of the source, which takes longer to find than the rest of a record to make.
    # Source: Python's Logging HOWTO, "Optimization".
    logging._srcfile = None
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return _JsonLines(
        foreign_pre_chain=_common(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            lambda logger, name, event: _encode(event),
        ],
    )
