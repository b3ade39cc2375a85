"""The application that owns `/`: everything between a client's HTTP request and a batch for a revision.

`app` is what Ray Serve imports; its user_config, a `FrontConfig`, is all that may change about it. `http` has the
routes and answers. `validation` parses a request's body, or says in one sentence what is wrong with it. `predictor`
admits the request and picks a revision by `traffic_split`. Its texts wait in that revision's `revision_queue`, where
`batching` decides when a batch leaves; `handles` sends it to the revision's application. `openapi` and `pages` describe
the API, for programs and for people; `metrics` is what Prometheus sees.
"""
