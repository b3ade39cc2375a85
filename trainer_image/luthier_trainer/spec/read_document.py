"""Reads the document that a command is given, and says in one sentence what is wrong with it."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from luthier_api.base import Document
from luthier_trainer.runtime.errors import InvalidSpec

D = TypeVar("D", bound=Document)


def read_document(path: Path, kind: type[D], name: str) -> D:
    """Read a document of a kind; `name` is what it is called for people.

    Raises:
        InvalidSpec: if it is not there or not such a document, with the first thing that is wrong.
    """
    try:
        return kind.from_json(path.read_bytes())
    except OSError as error:
        raise InvalidSpec(f"The {name} {path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise InvalidSpec(f"{path} is not a {name}: {where}: {first['msg']}.") from error
