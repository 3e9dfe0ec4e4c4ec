"""Structured logs of the local server: one JSON object a line, for requests and for what happens to versions."""

import dataclasses
import datetime
import json
import logging
from typing import TextIO

from tfebr.server.prometheus import Handled

_log = logging.getLogger(__name__)


def log_request(handled: Handled) -> None:
    """Logs a request at level INFO: how it was asked and how it ended, nothing of what it asked for."""
    if _log.isEnabledFor(logging.INFO):
        _log.info("request", extra={"request": handled})


class JsonLines(logging.StreamHandler):
    """Writes records as `{"time": ..., "level": ..., "message": ...}`; a request's fields stand beside them."""

    def __init__(self, stream: TextIO | None = None):
        super().__init__(stream)

    def format(self, record: logging.LogRecord) -> str:
        """One line, the time in UTC."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        handled = getattr(record, "request", None)
        if isinstance(handled, Handled):
            fields = dataclasses.asdict(handled)
            fields["microseconds"] = round(fields["microseconds"])
            line |= fields
        return json.dumps(line, ensure_ascii=False)
