"""How a server is reached: who may ask, which pages of browsers may, and by which way from outside the cluster.

Names are those of the Gateway API and of Ingress, so that whoever knows them needs no page of ours.
"""

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from luthier_api.base import ApiModel, DnsLabel, ObjectName, cel

_HOST = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_ORIGIN = r"^([*]|https?://[a-zA-Z0-9.-]+(:[0-9]{1,5})?)$"
_PATH = r"^/([a-zA-Z0-9._~-]+(/[a-zA-Z0-9._~-]+)*)?$"
_DOTS = ("!self.matches('/[.]{1,2}(/|$)')", "no part of the path may be '.' or '..'")
_ONE_WAY = "give exactly one of gateway and ingress"
_LISTENER_HAS_CERTIFICATE = (
    "the certificate of a Gateway is that of its listener: leave tls.secretName out, and keep `tls: {}` if clients use "
    "https"
)

Hostname = Annotated[str, Field(min_length=1, max_length=253, pattern=_HOST)]


class ApiKeysSecret(ApiModel):
    """A Secret in the resource's own namespace, each key of which holds one API key."""

    name: ObjectName = Field(
        description="Name of the Secret. The value of each of its keys is an API key; a new line at its end is ignored."
    )


class Auth(ApiModel):
    """Who may send requests."""

    api_keys_secret_ref: ApiKeysSecret = Field(
        description="API keys, one of which each request must carry as Authorization: Bearer. A change of the Secret "
        "applies within about a minute, without a restart."
    )


class Cors(ApiModel):
    """Which web pages may call the server, as in the CORS filter of an HTTPRoute."""

    allow_origins: Annotated[
        list[Annotated[str, Field(max_length=263, pattern=_ORIGIN)]], Field(min_length=1, max_length=64)
    ] = Field(
        description="Origins of those pages, such as https://app.example.com; '*' for all. Browsers may then use any "
        "method and header of the API, and no cookies."
    )


class HttpOptions(ApiModel):
    """How the server speaks HTTP."""

    cors: Cors | None = Field(default=None, description="Web pages that may call the server. Unset: none but its own.")


class GatewayRef(ApiModel):
    """A Gateway of the Gateway API."""

    name: ObjectName = Field(description="Name of the Gateway.")
    namespace: DnsLabel | None = Field(
        default=None, description="Its namespace. Unset: that of the resource. The Gateway must allow routes from here."
    )
    section_name: ObjectName | None = Field(
        default=None, description="Name of one of its listeners. Unset: all that take the hostnames."
    )


class IngressOptions(ApiModel):
    """An Ingress."""

    class_name: ObjectName | None = Field(
        default=None, description="IngressClass. Unset: the default one of the cluster."
    )
    annotations: Annotated[
        dict[
            Annotated[str, Field(max_length=253)],
            Annotated[str, Field(max_length=4096)],
        ],
        Field(max_length=32),
    ] = Field(default={}, description="Annotations of the Ingress, which its controller may read.")


class Tls(ApiModel):
    """That clients use https."""

    secret_name: ObjectName | None = Field(
        default=None,
        description="Of an Ingress: Secret with the certificate. Unset: the controller's own certificate. A Gateway "
        "has its certificate at the listener.",
    )


class Expose(ApiModel):
    """A way in from outside the cluster."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("has(self.gateway) != has(self.ingress)", _ONE_WAY),
            ("!has(self.gateway) || !has(self.tls) || !has(self.tls.secretName)", _LISTENER_HAS_CERTIFICATE),
        )
    )

    gateway: GatewayRef | None = Field(default=None, description="Makes an HTTPRoute to this Gateway.")
    ingress: IngressOptions | None = Field(default=None, description="Makes an Ingress.")
    hostnames: Annotated[list[Hostname], Field(min_length=1, max_length=16)] = Field(
        description="Names by which clients reach the server. DNS must lead them to the Gateway or the Ingress."
    )
    path: Annotated[str, Field(max_length=256, pattern=_PATH, json_schema_extra=cel(_DOTS))] = Field(
        default="/", description="Path below which the server answers, such as /reviews."
    )
    tls: Tls | None = Field(
        default=None,
        description="Clients use https. Unset: as the Gateway's listeners say, and http through an Ingress.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> "Expose":
        if (self.gateway is None) == (self.ingress is None):
            raise ValueError(_ONE_WAY)
        if self.gateway and self.tls and self.tls.secret_name:
            raise ValueError(_LISTENER_HAS_CERTIFICATE)
        return self
