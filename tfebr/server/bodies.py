"""Bodies of REST requests: read up to a limit, uncompressed, and parsed the way TensorFlow Serving parses JSON."""

import codecs
import json
import zlib
from typing import Any

from starlette.requests import Request

from tfebr.errors import RequestError
from tfebr.servable.tensors import NotFinite

# A refused body is read on, and forgotten, up to so many times the limit: a client that is still sending would not see the answer.
_DRAINED = 4
# zlib's: a gzip or a zlib header, whichever is there; and the bare deflate that some clients send as "deflate".
_WITH_HEADER, _BARE = 47, -15


class TooLargeError(Exception):
    """The body, as it was sent or uncompressed, is larger than the limit."""


_NAMED = {name: NotFinite(name) for name in ("NaN", "Infinity", "-Infinity")}


async def read(request: Request, limit: int) -> bytes:
    """The body as it was sent; raises TooLargeError."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit * _DRAINED:
            break
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
    if size > limit:
        raise TooLargeError
    return b"".join(chunks)


def uncompress(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its Content-Encoding.

    Args:
        encoding: the header: gzip or deflate, several of them in the order in which they were applied, or nothing.
        limit: bytes of the uncompressed body.

    Raises:
        RequestError: an encoding is unknown, or the body is not in it.
        TooLargeError: a small body may stand for any number of bytes.
    """
    for name in reversed([part.strip().lower() for part in encoding.split(",")]):
        if name in ("gzip", "x-gzip"):
            body = _inflated(body, _WITH_HEADER, limit)
        elif name == "deflate":
            # By the standard it has zlib's header.
            has_header = len(body) > 1 and body[0] & 15 == 8 and (body[0] * 256 + body[1]) % 31 == 0
            body = _inflated(body, _WITH_HEADER if has_header else _BARE, limit)
        elif name not in ("", "identity"):
            raise RequestError(f"The Content-Encoding must be gzip or deflate. Received: {name[:30]}.")
    return body


def _inflated(body: bytes, kind: int, limit: int) -> bytes:
    parts, size = [], 0
    try:
        while body:
            stream = zlib.decompressobj(kind)
            part = stream.decompress(body, limit + 1 - size)
            parts.append(part)
            size += len(part)
            if size > limit:
                raise TooLargeError
            if not stream.eof:
                raise RequestError("The body ends before its compressed content does.")
            # A gzip file may have several members, one after the other.
            body = stream.unused_data
    except zlib.error as error:
        raise RequestError(f"The body is not what its Content-Encoding says: {error}.") from None
    return b"".join(parts)


def parse(body: bytes) -> dict[str, Any]:
    """A request's JSON object.

    As in TensorFlow Serving, a byte order mark is skipped, NaN, Infinity and -Infinity are numbers, and what is no UTF-8 inside a string
    is taken as it is: such bytes are halves of surrogate pairs here, as `str.encode` with "surrogateescape" takes them.

    Raises:
        RequestError: the body is no JSON object.
    """
    text = body.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    try:
        value = json.loads(text, parse_constant=_NAMED.__getitem__)
    except RecursionError:
        raise RequestError("JSON Parse error: the body is nested too deeply.") from None
    except ValueError as error:
        raise RequestError(f"JSON Parse error: {'The document is empty' if not body else error}.") from None
    if not isinstance(value, dict):
        raise RequestError('The body must be a JSON object with the key "instances" or "inputs".')
    return value
