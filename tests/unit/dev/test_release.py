"""A release: what is in its folder, and that nothing is signed of which a check has said no.

The programs are played by scripts that note how they were called; the real ones are used by `make release`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier_dev import binaries, images, release
from luthier_dev.errors import CommandFailed, DevError
from luthier_dev.licences import Package

pytestmark = pytest.mark.unit

SCRIPT = """#!/bin/sh
echo "{name} $*" >> "{calls}"
for word in "$@"; do case "$word" in --file=*) echo "pyyaml Critical" > "${{word#*=}}";; esac; done
case "{name} $*" in {refused}) exit {status};; esac
for word in "$@"; do case "$word" in
  --output=cyclonedx-json=*) echo '{{}}' > "${{word#*json=}}";;
  --bundle=*) echo signature > "${{word#*=}}";;
esac; done
case "{name} $1" in "helm package") echo chart > "$4/luthier-0.2.0.tgz";; esac
"""


class Workshop:
    """A machine with the programs of a release, one of which may say no."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.calls = folder, folder / "calls"
        self.key = folder / "cosign.key"
        self.key.write_text("a private key")
        monkeypatch.setenv("LUTHIER_HOME", str(folder / "home"))
        monkeypatch.setenv("COSIGN_PASSWORD", "secret")
        monkeypatch.setattr(binaries, "ensure", lambda names: self.ensured.extend(names))
        monkeypatch.setattr(release, "_export", self._export)
        self.ensured: list[str] = []
        self.refuse("nothing")

    def refuse(self, pattern: str, status: int = 1) -> None:
        """Let the call that fits a pattern of the shell end with this status."""
        for name in ("cosign", "grype", "helm", "syft"):
            program = binaries.path(name)
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(SCRIPT.format(name=name, calls=self.calls, refused=pattern, status=status))
            program.chmod(0o755)

    def _export(self, names: list[str], folder: Path) -> list[Path]:
        files = [folder / f"{name}-0.2.0.oci.tar" for name in names]
        for file in files:
            file.write_text("an image")
        return files

    def release(self, **options: object) -> list[str]:
        wanted = {"folder": self.folder / "release", "key": self.key, "images": ["luthier-operator"], **options}
        return [file.name for file in release.make(release.Options(**wanted))]  # type: ignore[arg-type]

    @property
    def called(self) -> list[str]:
        return [" ".join(line.split()[:2]) for line in self.calls.read_text().splitlines()]

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "release").glob("*"))


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


def test_each_file_has_a_bill_of_materials_and_two_signatures(workshop: Workshop) -> None:
    assert workshop.release() == ["luthier-operator-0.2.0.oci.tar", "luthier-0.2.0.tgz"]
    endings = ("", ".cdx.json", ".cdx.sigstore.json", ".sigstore.json", ".vulnerabilities.txt")
    names = ("luthier-0.2.0.tgz", "luthier-operator-0.2.0.oci.tar")
    assert workshop.files == sorted(name + ending for name in names for ending in endings)
    checks, signs = ["helm package", "syft scan", "syft scan", "grype db"], ["cosign sign-blob", "cosign attest-blob"]
    assert [*checks, *(each.partition(":")[0] for each in workshop.called[4:6])] == [*checks, *["grype sbom"] * 2]
    assert workshop.called[6:] == signs * 2
    assert "secret" not in workshop.calls.read_text()


def test_a_critical_vulnerability_that_can_be_mended_ends_it_before_anything_is_signed(workshop: Workshop) -> None:
    workshop.release()
    before = workshop.files
    workshop.calls.unlink()
    workshop.refuse('"grype sbom:"*"--only-fixed --fail-on=critical"*', status=2)
    with pytest.raises(DevError, match=r"luthier-operator-0\.2\.0\.oci\.tar has a critical vulnerability"):
        workshop.release()
    assert not [each for each in workshop.called if each.startswith("cosign")]
    assert workshop.files == before, "what an earlier release left is whole"


def test_without_a_database_it_ends_and_says_what_to_give(workshop: Workshop) -> None:
    workshop.refuse('"grype db update"')
    with pytest.raises(DevError, match="give the archive of one with --vulnerabilities, or release without a scan"):
        workshop.release()
    assert workshop.files == []
    workshop.release(vulnerabilities=workshop.folder / "database.tar.zst")
    assert f"grype db import {workshop.folder}/database.tar.zst" in workshop.calls.read_text()


def test_a_scan_that_fails_is_no_scan(workshop: Workshop) -> None:
    workshop.refuse('"grype sbom:"*', status=1)
    with pytest.raises(CommandFailed, match="grype"):
        workshop.release()
    assert workshop.files == []


def test_without_a_scan_grype_is_not_even_built(workshop: Workshop) -> None:
    workshop.release(scan=False)
    assert sorted(workshop.ensured) == ["cosign", "helm", "syft"]
    assert not [each for each in workshop.called if each.startswith("grype")]


def test_a_licence_that_is_not_permitted_ends_it_first(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release.licences, "installed", lambda: [Package("copied", "GPL-3.0-only", ("server",))])
    with pytest.raises(DevError, match=r"Not permitted in an image: copied \(GPL-3\.0-only\)"):
        workshop.release()
    assert not workshop.calls.exists()


def test_the_key_and_its_password_are_asked_for_before_anything_is_built(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DevError, match="make a pair with `cosign generate-key-pair`"):
        workshop.release(key=workshop.folder / "none.key")
    monkeypatch.delenv("COSIGN_PASSWORD")
    with pytest.raises(DevError, match="Put the key's password into COSIGN_PASSWORD"):
        workshop.release()
    assert workshop.ensured == []


def test_all_of_luthier_s_own_images_are_released_and_the_members_have_one_version() -> None:
    assert tuple(images.OWN) == release.Options(Path("f"), Path("k")).images
    chart = (release.CHART / "Chart.yaml").read_text()
    assert f'appVersion: "{release.version()}"' in chart or f"appVersion: {release.version()}" in chart
