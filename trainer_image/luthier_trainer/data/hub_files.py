"""Which files of a data set on a hub are a split of a configuration, by the rules of the `datasets` library.

The card (README.md) names them by patterns; where it does not, their names do. Knows names only, and asks nobody.
Source: https://huggingface.co/docs/hub/datasets-data-files-configuration
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fsspec.utils import glob_translate

from luthier_artifacts.readers.formats import format_of, is_known
from luthier_trainer.runtime.errors import InputNotFound, InvalidSpec

# A branch to which the hub itself converts data sets: <config>/<split>/<number>.parquet.
CONVERTED = "refs/convert/parquet"
_PARTIAL = "partial-"
_SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
# What `push_to_hub` writes, for splits of any name.
_SHARD = re.compile(r"(?:data/)?([\w.-]+?)-\d{5}-of-\d{5}[^/]*")
_NAMES_SHOWN = 10

Splits = dict[str, list[str]]


@dataclass(frozen=True)
class Choice:
    """What the spec asks for: a configuration, if it names one, and a split of it."""

    uri: str
    config: str | None
    split: str


@dataclass(frozen=True)
class _Config:
    splits: Splits
    default: bool = False


def files_of(choice: Choice, names: Collection[str], card: dict[str, Any], *, converted: bool = False) -> list[str]:
    """Return the names of the files to read, in order; none if they are of formats that cannot be read.

    Args:
        choice: what is asked for.
        names: of all files of the repository.
        card: front matter of its README.md.
        converted: the files are those of the hub's own conversion.

    Raises:
        InputNotFound: if there is no such configuration or split.
        InvalidSpec: if the choice leaves open which of several.
    """
    visible = sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
    if not any(is_known(name) for name in visible):
        return []
    configs = _of_folders(visible) if converted else _of_card(choice.uri, card, visible)
    splits = _config(choice, configs).splits
    if choice.split not in splits:
        if converted and f"{_PARTIAL}{choice.split}" in splits:
            raise InputNotFound(
                f"The hub has converted only the first part of split {choice.split!r} of {choice.uri}, and its own "
                "files cannot be read; copy them to s3:// as Parquet."
            )
        raise InputNotFound(
            f"{choice.uri} has no split {choice.split!r}; it has: {_listed(splits)}. Name one of them in split."
        )
    return _of_one_format(choice, [name for name in splits[choice.split] if is_known(name)])


def _config(choice: Choice, configs: dict[str, _Config]) -> _Config:
    if choice.config is not None:
        if choice.config not in configs:
            raise InputNotFound(
                f"{choice.uri} has no config {choice.config!r}; it has: {_listed(configs)}. Name one of them in "
                "config, or the files by their path."
            )
        return configs[choice.config]
    marked = [config for config in configs.values() if config.default] or list(configs.values())
    if "default" in configs and len(marked) > 1:
        return configs["default"]
    if len(marked) > 1:
        raise InvalidSpec(f"{choice.uri} has several configs: {_listed(configs)}. Name one of them in config.")
    return marked[0]


def _of_one_format(choice: Choice, names: list[str]) -> list[str]:
    """Return the names, unless the same rows may be there twice, as CSV and as Parquet for instance."""
    formats = sorted({format_of(name) for name in names})
    if len(formats) > 1:
        raise InvalidSpec(
            f"{choice.uri} has split {choice.split!r} in several formats ({', '.join(formats)}); name the files by "
            f"their path, such as {choice.uri.rstrip('/')}/{names[0]}."
        )
    return names


def _of_card(uri: str, card: dict[str, Any], names: list[str]) -> dict[str, _Config]:
    """Return the configurations that a card names, or the one that there is without."""
    entries = card.get("configs")
    found: dict[str, _Config] = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        folder = str(entry.get("data_dir") or "").strip("/")
        prefix = f"{folder}/" if folder else ""
        files = entry.get("data_files")
        splits = _of_names(uri, names, prefix) if files is None else _of_patterns(files, prefix, names)
        found[str(entry.get("config_name", "default"))] = _Config(splits, entry.get("default") is True)
    return found or {"default": _Config(_of_names(uri, names, ""))}


def _of_patterns(files: object, prefix: str, names: list[str]) -> Splits:
    """Return the splits that a card's `data_files` describe: patterns, or patterns for each split."""
    pairs: Iterable[tuple[object, object]]
    if isinstance(files, dict):
        pairs = files.items()
    elif isinstance(files, list) and all(isinstance(each, dict) for each in files):
        pairs = [(each.get("split"), each.get("path")) for each in files]
    else:
        pairs = [("train", files)]
    splits: Splits = {}
    for split, given in pairs:
        patterns = [str(each) for each in (given if isinstance(given, list) else [given])]
        fits = [re.compile(glob_translate(f"{prefix}{pattern.removeprefix('./')}")).fullmatch for pattern in patterns]
        splits[str(split)] = [name for name in names if any(fit(name) for fit in fits)]
    return splits


def _of_names(uri: str, names: list[str], prefix: str) -> Splits:
    """Return the splits that the names of files tell: shards, words in the names, or in those of folders."""
    mine = {name: PurePosixPath(name[len(prefix) :]) for name in names if name.startswith(prefix) and is_known(name)}
    shards = [(match[1], name) for name, rest in mine.items() if (match := _SHARD.fullmatch(str(rest)))]
    if shards:
        return _grouped(shards)
    for of_name in (lambda rest: rest.name, lambda rest: str(rest.parent)):
        told = [(split, name) for name, rest in mine.items() for split in _words(of_name(rest))]
        if told:
            return _each_once(uri, _grouped(told))
    return _grouped(("train", name) for name in mine)


def _words(text: str) -> set[str]:
    words = re.split(r"[-._ /\d]+", text.lower())
    return {_SPLIT_OF_WORD[word] for word in words if word in _SPLIT_OF_WORD}


def _each_once(uri: str, splits: Splits) -> Splits:
    placed: dict[str, str] = {}
    for split, names in splits.items():
        for name in names:
            if name in placed:
                raise InvalidSpec(
                    f"By its name, {name} of {uri} may be of split {placed[name]!r} or {split!r}; name the files by "
                    f"their path, such as {uri.rstrip('/')}/{name}."
                )
            placed[name] = split
    return splits


def _of_folders(names: list[str]) -> dict[str, _Config]:
    """Return what the hub has converted."""
    parts = [(name.split("/"), name) for name in names if name.count("/") >= 2]
    configs = sorted({folders[0] for folders, _ in parts})
    return {
        config: _Config(_grouped((folders[1], name) for folders, name in parts if folders[0] == config))
        for config in configs
    }


def _grouped(pairs: Iterable[tuple[str, str]]) -> Splits:
    groups: Splits = {}
    for split, name in pairs:
        groups.setdefault(split, []).append(name)
    return groups


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:_NAMES_SHOWN])
    return f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown or "none"
