"""Two steps of the Dockerfile: which packages the server needs, and what of them it can do without.

`requirements [extra...]` prints the third-party dependencies of the server and the registry. `strip` removes from the
running environment what no server process reads, and compiles the rest, since a replica that starts should not have to.
It runs in the build only, with the standard library only, and is no part of the package.
"""

import compileall
import shutil
import sys
import sysconfig
import tomllib
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent
# Relative to site-packages: Ray's Java and reinforcement learning, and tests. Ray's dashboard stays whole: it
# does not start without its pages, and KubeRay configures Serve through it.
UNUSED = ["ray/jars", "ray/rllib", "**/tests"]
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
    """Remove what is not used below site-packages, and compile what stays."""
    services = [path for path in packages.glob("botocore/data/*") if path.is_dir()]
    unused = [path for pattern in UNUSED for path in packages.glob(pattern)]
    for path in [*unused, *(service for service in services if service.name not in CLOUD_SERVICES_USED)]:
        shutil.rmtree(path, ignore_errors=True)
    compileall.compile_dir(packages, quiet=2, workers=0)


if __name__ == "__main__":
    if sys.argv[1] == "requirements":
        print(*requirements(sys.argv[2:]), sep="\n")
    else:
        strip(Path(sysconfig.get_paths()["purelib"]))
