"""One JSON object a line, from our loggers and the libraries' alike.

Values are cut and tracebacks carry no local variables, so neither a guest's megabyte nor a
password in a frame reaches the log.
"""

import logging

import structlog
from structlog.types import EventDict, WrappedLogger

LONGEST_VALUE = 256


def _cut(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    return {
        key: value[:LONGEST_VALUE] + "…" if isinstance(value, str) and len(value) > LONGEST_VALUE else value
        for key, value in event.items()
    }


def _common() -> list[structlog.types.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
        _cut,
        # After the cut: a traceback is a list of frames, not one long string.
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
        ),
    ]


def formatter() -> logging.Formatter:
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
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_common(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
