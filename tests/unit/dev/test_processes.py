from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

from luthier_dev import processes
from luthier_dev.processes import Program
from luthier_dev.waiting import wait_until

pytestmark = pytest.mark.unit

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LUTHIER_HOME", str(tmp_path))
    yield
    processes.end(processes.owned("test"))


def test_what_a_cut_off_run_left_is_found_by_its_mark_and_ended_and_nothing_else_is(tmp_path):
    stranger = subprocess.Popen(SLEEP, stdout=subprocess.PIPE)
    try:
        processes.start_daemon(Program("sleeper", SLEEP), tmp_path / "log", "test")
        assert processes.owned_names("test") == {"sleeper"}
        assert processes.owned_names("other") == set()
        processes.end(processes.owned("test"))
        assert processes.owned("test") == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.communicate()


def test_a_process_of_another_home_is_seen_and_left_alone(tmp_path, monkeypatch):
    processes.start_daemon(Program("sleeper", SLEEP), tmp_path / "log", "test")
    monkeypatch.setenv("LUTHIER_HOME", str(tmp_path / "other"))
    assert processes.owned("test") == []
    assert str(tmp_path) in processes.homes_in_use("test")
    monkeypatch.setenv("LUTHIER_HOME", str(tmp_path))


def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    parent = textwrap.dedent(
        f"""
        import pathlib, time
        from luthier_dev.processes import Program, start_child
        child = start_child(Program("sleeper", {SLEEP!r}), pathlib.Path({str(tmp_path / "log")!r}), "test")
        print(child.pid, flush=True)
        time.sleep(60)
        """
    )
    running = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    child = psutil.Process(int(running.stdout.readline()))
    # The kernel is asked to by a program that then becomes the child.
    log = tmp_path / "log"
    wait_until(lambda: None if log.read_text() == "up\n" else "it does not run yet", "the child", 10, interval_s=0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    processes.wait_until_gone([child], timeout_s=10)


def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(tmp_path):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)"
    log = tmp_path / "log"
    processes.start_daemon(Program("deaf", [sys.executable, "-c", f"{deaf}; time.sleep(60)"]), log, "test")
    wait_until(lambda: None if "deaf" in log.read_text() else "not deaf yet", "the process", timeout_s=10)
    processes.end(processes.owned("test"), grace_s=0.2)
    assert processes.owned("test") == []
