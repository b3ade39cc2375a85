"""Q1, the tutorial: Flask's own server, and transformers' pipeline for every request."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request
from transformers import pipeline

app = Flask(__name__)
classifier = pipeline("text-classification", model=os.environ["ARTIFACT"])


@app.post("/predict")
def predict() -> dict[str, Any]:
    text = request.get_json()["text"]
    result = classifier(text, truncation=True)[0]
    return {
        "input_text": text,
        "prediction": result["label"],
        "confidence": result["score"],
        "version": os.environ["VERSION"],
    }


if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]))
