"""Q4, LitServe: its own API around the int8 model. No batches, since none is faster on a CPU; one worker."""

import os
from typing import Any

import litserve
from model import Model


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = Model.from_environment()

    # Without types, as in LitServe's documentation: it would read the body by them.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        return request["text"]

    def predict(self, text: str) -> dict[str, Any]:
        return self.model.predict(text)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
