from __future__ import annotations

import os

import pytest

from luthier_dev import images
from luthier_dev.images import Image

pytestmark = pytest.mark.unit

IMAGE = Image("thing", "thing/Dockerfile", ("thing", "constraints.txt"), arguments={"A": "1"}, takes_base=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "REPOSITORY", tmp_path)
    (tmp_path / "thing" / "package").mkdir(parents=True)
    (tmp_path / "thing" / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "thing" / "package" / "code.py").write_text("x = 1\n")
    (tmp_path / "constraints.txt").write_text("boto3==1\n")
    return tmp_path


def edit_code(root):
    (root / "thing" / "package" / "code.py").write_text("x = 2\n")


def edit_dockerfile(root):
    (root / "thing" / "Dockerfile").write_text("FROM scratch\nUSER 1\n")


def edit_constraints(root):
    (root / "constraints.txt").write_text("boto3==2\n")


def add_a_file(root):
    (root / "thing" / "package" / "more.py").touch()


def rename_a_file(root):
    (root / "thing" / "package" / "code.py").rename(root / "thing" / "package" / "edoc.py")


def make_executable(root):
    (root / "thing" / "package" / "code.py").chmod(0o755)


@pytest.mark.parametrize(
    "change", [edit_code, edit_dockerfile, edit_constraints, add_a_file, rename_a_file, make_executable]
)
def test_a_change_of_what_goes_in_is_a_new_tag(repository, change):
    before = images.tag(IMAGE, "base:1")
    change(repository)
    assert images.tag(IMAGE, "base:1") != before


def test_another_base_or_argument_is_a_new_tag(repository):
    other = Image(IMAGE.name, IMAGE.dockerfile, IMAGE.inputs, arguments={"A": "2"}, takes_base=True)
    assert len({images.tag(IMAGE, "base:1"), images.tag(IMAGE, "base:2"), images.tag(other, "base:1")}) == 3


def test_times_and_byte_code_are_no_part_of_an_image(repository):
    before = images.tag(IMAGE, "base:1")
    os.utime(repository / "thing" / "package" / "code.py", (0, 0))
    cache = repository / "thing" / "package" / "__pycache__"
    cache.mkdir()
    (cache / "code.cpython-311.pyc").write_bytes(b"\0")
    assert images.tag(IMAGE, "base:1") == before


def test_each_image_of_the_catalogue_names_inputs_that_its_dockerfile_may_copy():
    allowed = {
        line.removeprefix("!")
        for line in (images.REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for name in images.OWN:
        copied = set(images.CATALOGUE[name].inputs) - {".dockerignore"}
        assert copied <= allowed, name
