"""What a way in from outside, API keys and other origins may be, where there is no API server that says so."""

from typing import Any

import pytest
from pydantic import ValidationError

from luthier_api.exposure import Auth, Cors, Expose
from luthier_api.modeldeployment import ModelDeploymentSpec

pytestmark = pytest.mark.unit

HOSTS = ["reviews.example.com"]
WEB = {"gateway": {"name": "web"}}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Expose, {**WEB, "hostnames": HOSTS}),
        (Expose, {**WEB, "hostnames": HOSTS, "path": "/v1/reviews_a.b~c", "tls": {}}),
        (Expose, {"ingress": {}, "hostnames": HOSTS, "tls": {"secretName": "c"}}),
        (Cors, {"allowOrigins": ["*"]}),
        (Cors, {"allowOrigins": ["https://app.example.com", "http://localhost:3000"]}),
        (Auth, {"apiKeysSecretRef": {"name": "team-keys"}}),
    ],
)
def test_what_is_meant_is_accepted(model: Any, said: dict[str, Any]) -> None:
    assert model.model_validate(said)


@pytest.mark.parametrize(
    ("model", "said", "sentence"),
    [
        (Expose, {"hostnames": HOSTS}, "exactly one of gateway and ingress"),
        (Expose, {**WEB, "ingress": {}, "hostnames": HOSTS}, "exactly one of gateway and ingress"),
        (Expose, {**WEB, "hostnames": HOSTS, "tls": {"secretName": "c"}}, "leave tls.secretName out"),
        (Expose, {**WEB, "hostnames": []}, "at least 1 item"),
        (Expose, {**WEB, "hostnames": ["*.example.com"]}, "pattern"),
        (Expose, {**WEB, "hostnames": ["Reviews.example.com"]}, "pattern"),
        (Expose, {**WEB, "hostnames": HOSTS, "path": "reviews"}, "pattern"),
        (Expose, {**WEB, "hostnames": HOSTS, "path": "/reviews/"}, "pattern"),
        (Expose, {**WEB, "hostnames": HOSTS, "path": "/a b"}, "pattern"),
        (Cors, {"allowOrigins": []}, "at least 1 item"),
        (Cors, {"allowOrigins": ["app.example.com"]}, "pattern"),
        (Cors, {"allowOrigins": ["https://app.example.com/"]}, "pattern"),
        (Auth, {}, "Field required"),
    ],
)
def test_what_cannot_work_is_refused(model: Any, said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        model.model_validate(said)


def test_a_deployment_without_them_has_none() -> None:
    spec = ModelDeploymentSpec.model_validate({"model": {"fineTuneJobRef": {"name": "reviews"}}})
    assert (spec.expose, spec.auth, spec.http) == (None, None, None)
    assert not {"expose", "auth", "http"} & set(spec.to_wire())
