"""The application at `/` by the path that RayServices name, `luthier_serving.server:app`.

The path is API: an operator that is newer than the server's image writes it too.
"""

from luthier_serving.replica.app import app

__all__ = ["app"]
