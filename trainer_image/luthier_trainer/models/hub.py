"""Downloads models from a Hugging Face hub. The one place that talks to one."""

import os
from pathlib import Path
from typing import cast

from luthier_api.documents import Access
from luthier_artifacts import StorageDenied, StorageUnavailable, read_keys
from luthier_trainer.models.base_model import is_wanted
from luthier_trainer.runtime.errors import InputNotFound, InvalidSpec

HUB_SCHEME = "hf://"


def download(uri: str, revision: str | None, access: Access, folder: Path) -> str | None:
    """Download a model's files into a folder, and return the commit that the revision stands for.

    Raises:
        StorageError: if the hub refuses or does not answer.
        InputNotFound: if there is no such model or revision.
        InvalidSpec: if the URI names no model.
    """
    # Only runs that name a hub pay for this import.
    from huggingface_hub import HfApi
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

    repository = uri.removeprefix(HUB_SCHEME).strip("/")
    token = read_keys(access.credentials or "model").get("HF_TOKEN") or os.environ.get("HF_TOKEN")
    api = HfApi(endpoint=access.endpoint, token=token or None)
    try:
        info = api.model_info(repository, revision=revision)
        files = [file.rfilename for file in info.siblings or [] if is_wanted(file.rfilename)]
        api.snapshot_download(repository, revision=info.sha, local_dir=folder, allow_patterns=files)
    except GatedRepoError as error:
        raise StorageDenied(f"{uri} is gated: accept its terms on the hub and give a token as HF_TOKEN.") from error
    except RevisionNotFoundError as error:
        raise InputNotFound(f"{uri} has no revision {revision!r}.") from error
    except RepositoryNotFoundError as error:
        raise InputNotFound(f"{uri} does not exist, or is private and HF_TOKEN gives no access to it.") from error
    except HFValidationError as error:
        raise InvalidSpec(f"{uri} does not name a model; write hf://owner/name.") from error
    except (http_error, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise StorageUnavailable(f"The hub did not serve {uri}: {str(error).splitlines()[0]}") from error
    commit: str | None = info.sha
    return commit
