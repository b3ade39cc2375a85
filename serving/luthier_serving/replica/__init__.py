"""A replica of the application that owns `/`: everything between a client's request and its answer.

`app` is what Ray Serve imports; its user_config, a `ServerConfig`, is all that may change about it. `http` has the
routes, `grpc_service` the methods of gRPC; both hand requests to `endpoint`, which goes the same way with each of the
`protocols`, and `discovery` says what is served. `layers` has what lies around the routes: `request_context` names each
request, `access` asks for an API key, `bodies` inflates. `front` and `haproxy` lie around Ray's own server.
`validation` has the checks of a body, each of which says in one sentence what is wrong. `predictor` admits the request
and picks a revision by `traffic_split`. Its texts wait in that revision's `revision_queue`, where `batching` decides
when a batch leaves: to `local_model`, which holds the stable revision in this process and loads the next one, or by
`handles` to the application of a canary.

What became of the requests is in `counters`, and by `agreement` how far a canary answers copies as the stable revision
does; `report` tells it to the operator, and `metrics` to Prometheus. `openapi`, with `openapi_protocols`, and `pages`
describe the API, for programs and for people.
"""
