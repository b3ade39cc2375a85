"""A release as files, without a registry: images and chart, each with a bill of materials and signatures.

Owns what is in the folder and the order of the steps. Nothing is pushed. For each file F:

    F                       an image as an OCI archive, or the chart as `helm package` makes it
    F.sigstore.json         its signature (cosign sign-blob)
    F.cdx.json              its bill of materials (syft, CycloneDX)
    F.cdx.sigstore.json     the same as a signed statement about F (cosign attest-blob)
    F.vulnerabilities.txt   those that an upgrade mends (grype)

A fixable vulnerability that is critical ends it before anything is signed, and so does a package whose licence is not
permitted. The private key and its password ($COSIGN_PASSWORD) are read by cosign alone.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier_dev import binaries, buildah, images, licences, steps
from luthier_dev.buildah import Buildah
from luthier_dev.charts import CHART
from luthier_dev.errors import CommandFailed, DevError
from luthier_dev.locks import locked
from luthier_dev.paths import REPOSITORY, layout

PASSWORD = "COSIGN_PASSWORD"
# Neither a transparency log nor a time stamp: with a key of one's own, the key is what is trusted. An empty signing
# configuration would say the same, and then cosign asks Sigstore's servers for their keys all the same.
_WITH_A_KEY = ("--tlog-upload=false", "--use-signing-config=false", "--yes")

# Exit status by which grype says that there is something as bad as --fail-on.
_FOUND = 2


@dataclass(frozen=True)
class Options:
    """What a release is made with.

    Attributes:
        folder: that is filled; what an earlier release left there is replaced.
        key: private key of cosign.
        images: names from the catalogue.
        vulnerabilities: archive of grype's database; None: grype downloads the newest.
        scan: whether vulnerabilities are looked for at all.
    """

    folder: Path
    key: Path
    images: Sequence[str] = tuple(images.OWN)
    vulnerabilities: Path | None = None
    scan: bool = True


def make(options: Options) -> list[Path]:
    """Make a release, and return its images and its chart.

    Raises:
        DevError: the key is missing, a licence is not permitted, or one of the programs said no.
    """
    if not options.key.is_file():
        raise DevError(f"There is no key {options.key}; make a pair with `cosign generate-key-pair`.")
    if PASSWORD not in os.environ:
        raise DevError(f"Put the key's password into {PASSWORD}, also an empty one.")
    licences.refuse(licences.installed())
    binaries.ensure(["cosign", "helm", "syft", *(["grype"] if options.scan else [])])
    # Whoever finds the folder finds a whole release in it.
    folder = options.folder.with_name(f"{options.folder.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = [*_export(options.images, folder), _package(folder)]
    for file in files:
        with steps.step(f"List what is in {file.name}", usually_s=30):
            _list(file)
    if options.scan:
        _scan(files, options.vulnerabilities)
    for file in files:
        with steps.step(f"Sign {file.name}"):
            sign(file, options.key)
    shutil.rmtree(options.folder, ignore_errors=True)
    folder.replace(options.folder)
    return [options.folder / file.name for file in files]


def sign(file: Path, key: Path) -> None:
    """Sign a file, and that its bill of materials is about it; cosign reads the password from the environment."""
    _run("cosign", "sign-blob", *_WITH_A_KEY, f"--key={key}", f"--bundle={file}.sigstore.json", str(file))
    statement = (f"--predicate={_bill(file)}", "--type=cyclonedx", f"--bundle={file}.cdx.sigstore.json")
    _run("cosign", "attest-blob", *_WITH_A_KEY, f"--key={key}", *statement, str(file))
    for signature in file.parent.glob(f"{file.name}*.sigstore.json"):
        signature.chmod(0o644)  # cosign lets nobody else read what everybody is to verify


def version() -> str:
    """Version of the release, which is that of all its members."""
    return str(tomllib.loads((REPOSITORY / "operator" / "pyproject.toml").read_text())["project"]["version"])


def _export(names: Sequence[str], folder: Path) -> list[Path]:
    """Build the images, and write each into an archive."""
    builder = Buildah()
    builder.build(names)
    files = []
    for name in names:
        file = folder / f"{name}-{version()}.oci.tar"
        with steps.step(f"Write {file.name}", usually_s=images.CATALOGUE[name].usually_s), locked("images", "images"):
            push = buildah.command("push", builder.reference(name), f"oci-archive:{file}:{name}:{version()}")
            steps.run_logged(push, env=buildah.environment())
        files.append(file)
    return files


def _package(folder: Path) -> Path:
    with steps.step("Package the chart"):
        _run("helm", "package", str(CHART), "--destination", str(folder))
    (file,) = folder.glob("luthier-*.tgz")
    return file


def _list(file: Path) -> None:
    """Write the bill of materials of an image or the chart: its packages, and not each of their files."""
    source = f"oci-archive:{file}" if file.suffix == ".tar" else f"file:{file}"
    about = (f"--source-name={file.name}", f"--source-version={version()}", f"--output=cyclonedx-json={_bill(file)}")
    settings = {"SYFT_CHECK_FOR_APP_UPDATE": "false", "SYFT_FILE_METADATA_SELECTION": "none"}
    _run("syft", "scan", source, *about, **settings)


def _scan(files: Sequence[Path], vulnerabilities: Path | None) -> None:
    """Look for vulnerabilities in the bills of materials.

    Raises:
        DevError: there is a critical one that an upgrade mends, or no database.
    """
    settings = {"GRYPE_CHECK_FOR_APP_UPDATE": "false", "GRYPE_DB_CACHE_DIR": str(layout().downloads / "grype")}
    try:
        with steps.step("Read the database of vulnerabilities", usually_s=60):
            command = ("db", "import", str(vulnerabilities)) if vulnerabilities else ("db", "update")
            _run("grype", *command, **settings)
    except CommandFailed as error:
        raise DevError(
            "grype has no database of vulnerabilities: give the archive of one with --vulnerabilities, or release "
            "without a scan with --no-scan."
        ) from error
    for file in files:
        table = file.with_name(f"{file.name}.vulnerabilities.txt")
        found = (f"sbom:{_bill(file)}", "--only-fixed", "--fail-on=critical", f"--file={table}")
        try:
            with steps.step(f"Look for vulnerabilities in {file.name}"):
                _run("grype", *found, **settings, GRYPE_DB_AUTO_UPDATE="false")
        except CommandFailed as error:
            if error.returncode != _FOUND:
                raise
            steps.say(table.read_text())
            raise DevError(f"{file.name} has a critical vulnerability that an upgrade mends; see above.") from error


def _bill(file: Path) -> str:
    return f"{file}.cdx.json"


def _run(program: str, *arguments: str, **environment: str) -> None:
    steps.run_logged([str(binaries.path(program)), *arguments], env=environment)
