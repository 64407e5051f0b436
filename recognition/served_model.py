"""The model as MLflow serves it: executed from its copy inside the registered model, never imported by the project."""

import base64
import binascii
import importlib.util
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE


class ServedModel(mlflow.pyfunc.PythonModel):
    """Images in a column ``image`` (base64 text, bytes or uint8 arrays) to one answer a row.

    Text is only ever read as base64, never as the name of a file: a server must not read its own disk for a caller.
    A generator reads no images but a column ``label``, and answers with images.
    """

    def load_context(self, context):
        folder = Path(context.artifacts["bundle"])
        package = folder / "scoring"
        spec = importlib.util.spec_from_file_location(
            "_served_scoring", package / "__init__.py", submodule_search_locations=[str(package)]
        )
        scoring = importlib.util.module_from_spec(spec)
        sys.modules["_served_scoring"] = scoring
        spec.loader.exec_module(scoring)
        self._scorer = scoring.load(folder)

    def predict(self, context, model_input: pd.DataFrame, params=None):
        chosen = {**self._scorer.parameters, **(params or {})}
        if self._scorer.task == "generation":
            labels = _unwrapped(model_input["label"]) if "label" in model_input else [""] * len(model_input)
            return self._asked(lambda: self._scorer.made(labels, chosen))
        if "image" not in model_input:
            raise _refusal("there is no column `image`: send one with base64 text, bytes or uint8 arrays")
        images = [_decoded(image, number) for number, image in enumerate(_unwrapped(model_input["image"]))]
        names = [f"image {number}" for number in range(len(images))]
        return self._asked(lambda: self._scorer.answers(images, names, chosen)) if images else []

    def _asked(self, work):
        try:
            return work()
        except ValueError as error:
            raise _refusal(str(error)) from None


def _decoded(image, number):
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
    return image


def _unwrapped(column):
    """A column's images; the server hands ``inputs`` over as one list of texts in one cell."""
    images = []
    for cell in column:
        images.extend(cell if isinstance(cell, list) and cell and isinstance(cell[0], (str, bytes)) else [cell])
    return images


def _refusal(message):
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


mlflow.models.set_model(ServedModel())
