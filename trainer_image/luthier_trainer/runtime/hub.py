"""Downloads the files of models and data sets from a Hugging Face hub. The one place that talks to one.

Which hub: the access's endpoint, or the environment's HF_ENDPOINT, as in every tool of the hub; else huggingface.co.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

from luthier_api.documents import Access, Role
from luthier_artifacts import StorageDenied, StorageUnavailable, read_keys
from luthier_trainer.runtime.errors import InputNotFound, InvalidSpec
from luthier_trainer.runtime.trust import trust_in_this_process

HUB_SCHEME = "hf://"


@dataclass(frozen=True)
class Snapshot:
    """The commit that a revision stands for, and the names of its files."""

    commit: str
    names: list[str]


@dataclass(frozen=True)
class HubRepository:
    """A repository of a hub.

    Attributes:
        uri: as the spec names it, for messages.
        kind: what is in it.
        name: owner/name.
        revision: a commit, tag or branch; None is the main branch.
        access: endpoint, credentials and authorities.
        role: whose token it is, where the access names none.
    """

    uri: str
    kind: Literal["model", "dataset"]
    name: str
    revision: str | None
    access: Access
    role: Role

    @property
    def endpoint(self) -> str | None:
        """The hub's URL; None for the public one."""
        return self.access.endpoint or os.environ.get("HF_ENDPOINT") or None

    def at(self, revision: str) -> Self:
        """Return the same repository at another revision."""
        return replace(self, revision=revision)

    def snapshot(self) -> Snapshot:
        """Ask which files there are.

        Raises:
            StorageError: if the hub refuses or does not answer.
            InputNotFound: if there is no such repository or revision.
            InvalidSpec: if the name is none.
        """
        with self._told():
            info = self._api().repo_info(self.name, repo_type=self.kind, revision=self.revision)
        return Snapshot(info.sha or "", [file.rfilename for file in info.siblings or []])

    def download(self, commit: str, names: Collection[str], folder: Path) -> None:
        """Download files of a commit into a folder, under their names.

        Raises:
            As `snapshot`.
        """
        with self._told():
            # The patterns are globs, in which these names must stand for themselves.
            patterns = [name.translate(_GLOB) for name in names]
            self._api().snapshot_download(
                self.name, repo_type=self.kind, revision=commit, local_dir=folder, allow_patterns=patterns
            )

    def _api(self) -> Any:
        # Only runs that name a hub pay for this import.
        from huggingface_hub import HfApi, close_session
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # documented

        # They are no lines of a log.
        disable_progress_bars()
        if self.access.ca_bundle:
            trust_in_this_process(Path(self.access.ca_bundle))
            # A client that there is already was made without.
            close_session()
        token = read_keys(self.access.credentials or self.role).get("HF_TOKEN") or os.environ.get("HF_TOKEN")
        return HfApi(endpoint=self.endpoint, token=token or None)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise what the hub's library raises as ours."""
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        # Which HTTP library raises differs by release; the hub's own error inherits from that library's.
        http_error = cast(type[Exception], HfHubHTTPError.__bases__[0])
        try:
            yield
        except GatedRepoError as error:
            raise StorageDenied(
                f"{self.uri} is gated: accept its terms on the hub and give a token as HF_TOKEN."
            ) from error
        except RevisionNotFoundError as error:
            raise InputNotFound(f"{self.uri} has no revision {self.revision!r}.") from error
        except RepositoryNotFoundError as error:
            raise InputNotFound(
                f"{self.uri} does not exist, or is private and HF_TOKEN gives no access to it."
            ) from error
        except HFValidationError as error:
            raise InvalidSpec(f"{self.uri} does not name a {self.kind}; write {_FORM[self.kind]}.") from error
        except (http_error, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise StorageDenied(
                    f"The certificate of the hub of {self.uri} is not trusted; set caBundle to its authority's."
                ) from error
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise StorageUnavailable(f"The hub did not serve {self.uri}: {reason}") from error


_FORM = {"model": "hf://owner/name", "dataset": "hf://datasets/owner/name"}
_GLOB = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})
