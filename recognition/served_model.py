"""The model as MLflow serves it: executed from its copy inside the registered model, never imported by the project."""

import base64
import binascii
import importlib.util
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE


class ServedClassifier(mlflow.pyfunc.PythonModel):
    """Images in a column ``image`` (base64 text, bytes or uint8 arrays) to label, confidence and probabilities.

    Text is only ever read as base64, never as the name of a file: a server must not read its own disk for a caller.
    """

    def load_context(self, context):
        folder = Path(context.artifacts["bundle"])
        spec = importlib.util.spec_from_file_location("_served_scoring", folder / "scoring.py")
        scoring = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(scoring)
        self._classifier = scoring.Classifier(folder)

    def predict(self, context, model_input: pd.DataFrame, params=None):
        top_k = int((params or {}).get("top_k", 0))
        if top_k < 0:
            raise _refusal(f"top_k must be 0 (all classes) or more, not {top_k}")
        if "image" not in model_input:
            raise _refusal("there is no column `image`: send one with base64 text, bytes or uint8 arrays")
        images = _unwrapped(model_input["image"])
        if not images:
            return []
        prepared = np.stack([self._prepare(image, number) for number, image in enumerate(images)])
        return [self._classifier.answer(row, top_k) for row in self._classifier.probabilities(prepared)]

    def _prepare(self, image, number):
        name = f"image {number}"
        if isinstance(image, str):
            try:
                image = base64.b64decode(image.encode(), validate=True)
            except (binascii.Error, ValueError):
                raise _refusal(f"{name} is text, but not base64: send the file's bytes encoded as base64") from None
        if isinstance(image, list):
            image = np.asarray(image)
            if image.dtype.kind in "iu" and image.size and image.min() >= 0 and image.max() <= 255:
                image = image.astype(np.uint8)
        if not isinstance(image, (bytes, np.ndarray)):
            raise _refusal(f"{name} is {type(image).__name__}: send base64 text, bytes or a uint8 array")
        try:
            return self._classifier.prepare(image, name)
        except ValueError as error:
            raise _refusal(str(error)) from None


def _unwrapped(column):
    """A column's images; the server hands ``inputs`` over as one list of texts in one cell."""
    images = []
    for cell in column:
        images.extend(cell if isinstance(cell, list) and cell and isinstance(cell[0], (str, bytes)) else [cell])
    return images


def _refusal(message):
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


mlflow.models.set_model(ServedClassifier())
