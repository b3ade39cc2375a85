"""The configuration of the proxy in front, as Ray writes it, completed with errors that are JSON."""

import json
import re
import sys
from pathlib import Path

import pytest

from luthier_serving.replica import haproxy
from support.serving.ray_applications import HAPROXY_TEMPLATE

pytestmark = pytest.mark.unit


def errors_in(text: str) -> dict[int, str]:
    """Return {status: sentence} of what a configuration makes the proxy answer."""
    answer = r"(?:http-error|http-request return) status (\d+) content-type application/json string '(.*)'"
    found = re.findall(answer, text)
    return {int(code): json.loads(body)["error"] for code, body in found}


def test_of_rays_own_template_every_error_of_the_proxy_becomes_a_sentence() -> None:
    text = haproxy.complete(HAPROXY_TEMPLATE)
    assert set(errors_in(text)) == {400, 408, 413, 500, 502, 503, 504}
    assert "errorfile" not in text
    assert 'lf-string "Path' not in text
    kept = [line for line in HAPROXY_TEMPLATE.splitlines() if line.strip().startswith(("bind", "server ", "timeout"))]
    assert len(kept) > 10 and all(line in text.splitlines() for line in kept)
    sections = [line for line in text.splitlines() if line and not line.startswith((" ", "{"))]
    assert sections == [line for line in HAPROXY_TEMPLATE.splitlines() if line and not line.startswith((" ", "{"))]


def test_completed_twice_it_has_each_error_once() -> None:
    once = haproxy.complete(HAPROXY_TEMPLATE)
    with pytest.raises(ValueError, match="no answer where no application is"):
        haproxy.complete(once)


@pytest.mark.parametrize("text", ["", "global\n", "defaults\n    mode http\n", "frontend x\n    bind :80\n"])
def test_a_configuration_that_is_not_known_is_left_as_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(text)
    with pytest.raises(ValueError):
        haproxy.complete_file(path)
    assert path.read_text() == text and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("known", [True, False])
def test_it_becomes_haproxy_with_the_arguments_that_ray_gives_it(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(HAPROXY_TEMPLATE if known else "something else\n")
    become: list[tuple[str, list[str]]] = []
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", sys.executable)
    monkeypatch.setattr(sys, "argv", ["luthier-haproxy", "-db", "-f", str(path), "-dR", "-sf", "7"])
    monkeypatch.setattr(haproxy.os, "execv", lambda program, arguments: become.append((program, arguments)))
    haproxy.main()
    ((program, arguments),) = become
    assert Path(program).name == "haproxy" and program != sys.executable
    assert arguments == [program, "-db", "-f", str(path), "-dR", "-sf", "7"], "Ray knows it by the name of that file"
    assert bool(errors_in(path.read_text())) is known
    assert ("answers errors as Ray's own" in capsys.readouterr().err) is not known
