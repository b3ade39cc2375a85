"""What `helm test` runs: has the API server check a FineTuneJob, or with a spec, waits until one has its version.

Runs in the operator's image, for its Kubernetes client. Prints what happened, and exits with 0 if all went well.
"""

import json
import os
import sys
import time

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

KIND = {"group": "luthier.dev", "version": "v1alpha1", "plural": "finetunejobs"}
NOTHING = {
    "model": {"uri": "s3://models/base"},
    "dataset": {"train": {"uri": "s3://data/reviews.csv"}},
    "output": {"name": "helm-test", "uri": "s3://models/"},
}


def main() -> int:
    """Return the exit code."""
    # That of the pod; a kubeconfig where there is one, as in our tests.
    config.load_config()
    api = client.CustomObjectsApi()
    place = {**KIND, "namespace": os.environ["NAMESPACE"]}
    name, spec = os.environ["NAME"], json.loads(os.environ["SPEC"])
    resource = {"apiVersion": "luthier.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}}
    try:
        if not spec:
            api.create_namespaced_custom_object(**place, body={**resource, "spec": NOTHING}, dry_run="All")
            print("The API server accepts a FineTuneJob. Set test.finetuneJob to have one run to its version.")
            return 0
        api.create_namespaced_custom_object(**place, body={**resource, "spec": spec})
    except ApiException as error:
        print(f"The API server refuses the FineTuneJob: {_sentence(error)}")
        return 1
    try:
        return _wait(api, place, name, float(os.environ["TIMEOUT_S"]))
    finally:
        api.delete_namespaced_custom_object(**place, name=name)


def _sentence(error: ApiException) -> str:
    """Return the API server's own sentence."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


def _wait(api: client.CustomObjectsApi, place: dict[str, str], name: str, timeout_s: float) -> int:
    """Wait for the conditions Ready or Stalled, and print each sentence on the way."""
    deadline, said = time.monotonic() + timeout_s, ""
    while time.monotonic() < deadline:
        status = api.get_namespaced_custom_object(**place, name=name).get("status", {})
        conditions = {each["type"]: each for each in status.get("conditions", [])}
        sentence = conditions.get("Ready", {}).get("message", "")
        if sentence and sentence != said:
            said = sentence
            print(said, flush=True)
        if conditions.get("Ready", {}).get("status") == "True":
            return 0
        if conditions.get("Stalled", {}).get("status") == "True":
            return 1
        time.sleep(2)
    print(f"No version after {timeout_s:.0f} s. {said or 'The operator has not looked at the FineTuneJob.'}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
