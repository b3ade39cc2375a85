"""The protocols that clients speak, one module each, over one shared interface; all of them go through `endpoint`.

    what came in -> parse -> Call -> predictor -> Answer -> render -> what goes out

`interface` has these types, and `options` reads what a request asks of its answer. `predict` is the server's own
protocol at /predict; `v2` the Open Inference Protocol over HTTP and `v2_grpc` over gRPC, both of the tensors in
`tensors`; `v1` is KServe's first protocol, `hugging_face` the API of Hugging Face's inference endpoints. `texts` reads
what the last two have in common. Of Ray and Starlette they know nothing.

`open_inference` registers the gRPC service, whose messages in `open_inference_pb2` are made of `open_inference.proto`
by `make protocols`.
"""
