"""Two steps of the Dockerfile: which packages the server needs, and which of their files it does not need.

`requirements [extra...]` prints the third-party dependencies of the server and the registry. `strip` removes from the
running environment the files that no server process reads, and compiles the rest, so that a replica need not do it when
it starts. Runs only in the build, with the standard library only; it is not part of the package.
"""

import compileall
import shutil
import sys
import sysconfig
import tomllib
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent
# Relative to site-packages: Ray's Java and reinforcement learning, tests, and what of pyarrow reads no Parquet. Ray's
# dashboard is kept: it needs its pages to start, and KubeRay configures Serve through it.
UNUSED = ["ray/jars", "ray/rllib", "**/tests", "pyarrow/include", "pyarrow/src"]
UNUSED += [f"pyarrow/*{name}*.so*" for name in ("flight", "_s3", "_gcsfs", "_azurefs", "_hdfs", "_orc")]
CLOUD_SERVICES_USED = {"s3", "sts", "sso", "sso-oidc"}


def requirements(extras: list[str]) -> list[str]:
    """Return the third-party requirements of the members that go into the image."""
    wanted: list[str] = []
    for member in ("artifacts", "serving"):
        project = tomllib.loads((BUILD / member / "pyproject.toml").read_text())["project"]
        wanted += project["dependencies"]
        for extra in extras:
            wanted += project.get("optional-dependencies", {}).get(extra, [])
    return sorted({each for each in wanted if not each.startswith("luthier-")})


def strip(packages: Path) -> None:
    """Remove unused files from site-packages, and compile the rest."""
    services = [path for path in packages.glob("botocore/data/*") if path.is_dir()]
    unused = [path for pattern in UNUSED for path in packages.glob(pattern)]
    for path in [*unused, *(service for service in services if service.name not in CLOUD_SERVICES_USED)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    compileall.compile_dir(packages, quiet=2, workers=0)


if __name__ == "__main__":
    if sys.argv[1] == "requirements":
        print(*requirements(sys.argv[2:]), sep="\n")
    else:
        strip(Path(sysconfig.get_paths()["purelib"]))
