"""What Ray Serve's gRPC proxies import, by the path that RayServices name, `luthier_serving.inference:add_service`.

The path is API: an operator that is newer than the server's image writes it too.
"""

from luthier_serving.replica.protocols.open_inference import add_inference_service as add_service

__all__ = ["add_service"]
