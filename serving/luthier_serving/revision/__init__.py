"""The application of one model version while it is a canary. It has no route and is called by handle.

`app` is what RayServices name, `luthier_serving.revision:app`. The path is API: an operator that is newer than the
server's image writes it too.
"""

from luthier_serving.revision.application import app

__all__ = ["app"]
