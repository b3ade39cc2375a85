"""Storage for every tier: a real S3 server (see luthier_dev.seaweed), and tests that run on it and on a folder.

Nothing of S3 is imported before a test asks for it: where the GPU tests run, there may be no boto3.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from support.s3 import S3, Storage

# How long an example takes says more of what else the machine does; pytest's timeout ends one that hangs.
settings.register_profile("luthier", deadline=None)
settings.load_profile("luthier")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """SeaweedFS as a process; one for the whole session, so a test keeps to a fresh prefix."""
    from luthier_dev.seaweed import start_seaweed
    from support.s3 import S3

    folder = tmp_path_factory.mktemp("seaweed")
    server = start_seaweed(folder, buckets=("models",))
    os.environ |= server.admin.environment("LUTHIER_ADMIN_") | server.reader.environment("LUTHIER_READER_")
    try:
        yield S3(
            server=server,
            bucket="models",
            admin_env="LUTHIER_ADMIN_",
            reader_env="LUTHIER_READER_",
        )
    finally:
        server.stop()


@pytest.fixture(
    params=[pytest.param("file", marks=pytest.mark.unit), pytest.param("s3", marks=pytest.mark.integration)]
)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A fresh place, once in a local folder (unit tier) and once on the S3 server (integration tier)."""
    from luthier_artifacts import StorageConfig
    from support.s3 import Storage

    if request.param == "file":
        return Storage(f"file://{tmp_path}/storage", StorageConfig())
    s3: S3 = request.getfixturevalue("s3")
    return Storage(s3.fresh_uri(), s3.config)
