"""What a model is served with elsewhere. Each file is a server as its users write it, and imports nothing of Luthier.

All answer `POST /predict` with `{"text": ...}` in the words of our server, so that all are checked alike. The folder of
the artifact and its version come in ARTIFACT and VERSION, the port in PORT.

- `tutorial`       Q1: Flask and transformers' pipeline
- `by_hand`        Q2: FastAPI and ONNX Runtime, as somebody who knows both writes it
- `ray_batch`      Q3: Ray Serve and its @serve.batch, as its documentation shows them
- `litserve_api`   Q4: LitServe
- `bentoml_service`  Q4: BentoML
- `model`          the int8 model of Q2 and Q4, and what all answers are checked against
"""
