from __future__ import annotations

import os
import subprocess

import pytest

from luthier_dev import mounts

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
]


@pytest.fixture
def stand(tmp_path):
    yield tmp_path
    mounts.unmount(tmp_path)


def bind(source, target):
    subprocess.run(["mount", "--bind", str(source), str(target)], check=True)


def test_removing_a_folder_never_reaches_through_a_mount_into_somebodys_data(stand):
    precious, ours = stand / "precious", stand / "our folder"
    precious.mkdir()
    (precious / "data").write_text("theirs")
    (ours / "volume").mkdir(parents=True)
    bind(precious, ours / "volume")
    bind(precious, ours / "volume")  # mounted over itself
    mounts.remove(ours)
    assert not ours.exists()
    assert (precious / "data").read_text() == "theirs"


def test_links_are_made_also_while_their_source_is_mounted_on_itself(stand):
    source, target = stand / "storage" / "layer", stand / "snapshot"
    source.mkdir(parents=True)
    target.mkdir()
    (source / "file").write_text("content")
    (source / "link").symlink_to("file")
    bind(stand / "storage", stand / "storage")
    mounts.link_tree(source, target, mounted=stand / "storage")
    mounts.unmount(stand / "storage")
    assert (target / "file").stat().st_ino == (source / "file").stat().st_ino
    assert os.readlink(target / "link") == "file"
