"""The registry of Luthier: versioned, content-addressed models on S3 or in a local folder.

Everything that others use is exported here. The rooms, from the outside in:

- `registry`: the face: versions, runs, aliases, checkpoints, prepared data. `inputs`: what a run reads.
- `readers`: the rows of such files, for trainer and server alike.
- `version_download`: a version by its URI alone, for servers.
- `publishing`: how exactly one version of a run becomes visible. `aliases`, `pruning`: how they are named, and go.
- `weights`: which version has which weights. `claims`: of runs that would train the same at once, which one trains.
- `signatures`: who vouches for a version.
- `trees`: a folder that exists when its manifest does; `manifest`, `hashing`: what it consists of.
- `download`, `cache`, `parts`: verified, resumable download through a cache that a node's processes share.
- `store`: the interface to storage; `s3` (the only module that calls boto3) and `file_store` implement it.
- `config`, `keys`, `credentials`, `renewal`, `uri`, `errors`, `probe`: how storage is reached, named, and proved.

It must not know Kubernetes, torch or what a model is.
"""

from luthier_artifacts.aliases import Alias
from luthier_artifacts.claims import LAPSE_S, Claim, Holder
from luthier_artifacts.config import StorageConfig
from luthier_artifacts.errors import (
    BucketNotFound,
    ConditionalWritesUnsupported,
    CredentialsExpired,
    IntegrityError,
    InvalidKey,
    InvalidUri,
    ObjectNotFound,
    PreconditionFailed,
    SignatureError,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from luthier_artifacts.hashing import describe_folder, sha256_of, verify_folder
from luthier_artifacts.inputs import (
    FetchedTree,
    fetch_files,
    fetch_listed,
    fetch_tree,
    list_files,
    list_tree,
    names_matching,
)
from luthier_artifacts.keys import read_keys
from luthier_artifacts.manifest import FileEntry, Lineage, Manifest, Metadata, tree_digest
from luthier_artifacts.opening import open_store
from luthier_artifacts.registry import PublishedVersion, Registry, open_registry
from luthier_artifacts.store import ObjectInfo, ObjectStore
from luthier_artifacts.uri import parse_uri
from luthier_artifacts.version_download import download_version

__all__ = [
    "LAPSE_S",
    "Alias",
    "BucketNotFound",
    "Claim",
    "ConditionalWritesUnsupported",
    "CredentialsExpired",
    "FetchedTree",
    "FileEntry",
    "Holder",
    "IntegrityError",
    "InvalidKey",
    "InvalidUri",
    "Lineage",
    "Manifest",
    "Metadata",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectStore",
    "PreconditionFailed",
    "PublishedVersion",
    "Registry",
    "SignatureError",
    "StorageConfig",
    "StorageDenied",
    "StorageError",
    "StorageUnavailable",
    "describe_folder",
    "download_version",
    "fetch_files",
    "fetch_listed",
    "fetch_tree",
    "list_files",
    "list_tree",
    "names_matching",
    "open_registry",
    "open_store",
    "parse_uri",
    "read_keys",
    "sha256_of",
    "tree_digest",
    "verify_folder",
]
