"""What is added to the configuration that Ray writes for HAProxy, and how the program becomes HAProxy."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from luthier_serving import haproxy
from luthier_serving.haproxy import error_answer, hardened
from support.serving.ray_applications import haproxy_templates

pytestmark = pytest.mark.unit

FOLDER = Path("/run/haproxy")

# The lines of Ray 2.60's template that the additions go by.
CONFIG = """global
    log 127.0.0.1:514 local0 info
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 90s

    errorfile 502 /tmp/500.http
    errorfile 503 /tmp/500.http
    errorfile 504 /tmp/500.http
    balance leastconn
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind *:8000
    acl healthcheck path -i /-/healthz
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \\'%[path]\\' not found."
backend http-server
    server one 127.0.0.1:30000 check
listen stats
  bind *:8404
"""


def sections(config: str) -> dict[str, list[str]]:
    """Return the lines of each section."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in config.splitlines():
        if line and not line[0].isspace():
            found[name := line] = []
        elif line.strip():
            found[name].append(line.strip())
    return found


def test_nothing_of_rays_is_lost_but_its_texts_for_errors() -> None:
    before, after = sections(CONFIG), sections(hardened(CONFIG, FOLDER))
    assert list(before) == list(after)
    gone = {line for name in before for line in before[name] if line not in after[name]}
    assert gone == {
        *(f"errorfile {status} /tmp/500.http" for status in (502, 503, 504)),
        before["backend default_backend"][0],
    }
    for name in ("global", "frontend prometheus", "backend http-server", "listen stats"):
        assert before[name] == after[name]


def test_every_error_is_json_and_a_missing_replica_says_when_to_come_back() -> None:
    after = sections(hardened(CONFIG, FOLDER))
    errors = {int(line.split()[1]): line.split()[2] for line in after["defaults"] if line.startswith("errorfile")}
    assert errors == {status: f"/run/haproxy/luthier-{status}.http" for status in (400, 408, 500, 502, 503, 504)}
    for status in errors:
        head, body = error_answer(status).split(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status) and b"Content-Length: %d" % len(body) in head
        assert b"Content-Type: application/json" in head and list(json.loads(body)) == ["error"]
        assert (b"Retry-After: 2" in head) == (status == 503)
    no_path, no_application = after["backend default_backend"]
    assert no_path.startswith("http-request return status 404 content-type application/json")
    assert no_application.startswith("http-request return status 503 content-type application/json")


def test_the_head_of_a_request_has_a_time_limit_and_methods_are_checked_before_rays_rules() -> None:
    after = sections(hardened(CONFIG, FOLDER))
    assert "timeout http-request 20s" in after["defaults"]
    frontend = [line for line in after["frontend http_frontend"] if not line.startswith("#")]
    assert frontend[0] == "bind *:8000"
    assert re.match("http-request return status 405 .* unless { method GET HEAD POST ", frontend[1])
    assert "http-request del-header x-request-timeout-seconds" in frontend
    assert frontend.index("acl healthcheck path -i /-/healthz") == len(frontend) - 2


def test_additions_are_made_once() -> None:
    assert hardened(hardened(CONFIG, FOLDER), FOLDER) == hardened(CONFIG, FOLDER)


def test_rays_own_template_has_the_places_of_the_additions() -> None:
    template = haproxy_templates.HAPROXY_CONFIG_TEMPLATE
    lines = template.splitlines()
    assert lines.count("defaults") == 1 and lines.count("frontend http_frontend") == 1
    assert lines[lines.index("frontend http_frontend") + 1].startswith("    bind ")
    assert lines[lines.index("backend default_backend") + 1].startswith("    http-request return status 404")
    assert sum(line.startswith("    errorfile 50") for line in lines) == 3
    assert "timeout http-request 20s" in hardened(template, FOLDER)


def test_it_becomes_haproxy_and_not_itself_with_the_arguments_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, became = tmp_path / "haproxy.cfg", []
    path.write_text(CONFIG)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/opt/luthier/own/bin/luthier-haproxy")  # as in the image
    monkeypatch.setattr(sys, "argv", ["luthier-haproxy", "-db", "-f", str(path), "-sf", "7"])
    monkeypatch.setattr(os, "execv", lambda program, arguments: became.append((program, arguments)))
    haproxy.main()
    assert path.read_text() == hardened(CONFIG, tmp_path)
    assert (tmp_path / "luthier-503.http").read_bytes() == error_answer(503)
    [(program, arguments)] = became
    assert Path(program).name == "haproxy" and os.access(program, os.X_OK)
    assert arguments == [program, "-db", "-f", str(path), "-sf", "7"]


def test_without_ray_it_is_the_haproxy_on_the_path_or_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(haproxy.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="install ray"):
        haproxy.haproxy()
    (tmp_path / "haproxy").write_text("#!/bin/sh\n")
    (tmp_path / "haproxy").chmod(0o755)
    assert haproxy.haproxy() == str(tmp_path / "haproxy")
