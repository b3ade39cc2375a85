"""Q2, good practice by hand: FastAPI on uvloop and httptools, one int8 session with one thread, orjson, no access log.

The model computes in the event loop. On one core a pool of threads would only add the switches between them.
"""

from __future__ import annotations

import os

import orjson
import uvicorn
from fastapi import FastAPI, Response
from model import Model
from pydantic import BaseModel

app = FastAPI()
model = Model.from_environment()


class Request(BaseModel):
    text: str


@app.post("/predict")
async def predict(request: Request) -> Response:
    return Response(orjson.dumps(model.predict(request.text)), media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), loop="uvloop", http="httptools", access_log=False)
