"""Likely wrong labels of a source, judged by a registered model on the images that it was not trained on."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recognition import bundle, preparation, registry, tracking, versions
from recognition.access import UNRESTRICTED, Access
from recognition.audit import audit
from recognition.audit.inspected import Inspected
from recognition.audit.wrong_labels import suspicious
from recognition.data_settings import Data
from recognition.errors import DataError
from recognition.families import KINDS
from recognition.progress import Progress, silent
from recognition.records import AuditedData, Finding, Located
from recognition.settings import home
from recognition.sources import open_source
from recognition.storage import build_once
from recognition.store import image_store

KIND = "likely_wrong_labels"
_AT_ONCE = 64
_NAMED = 100


def with_wrong_labels(
    data: Data,
    located: Located,
    audited: AuditedData,
    model: str,
    on_progress: Progress = silent,
    access: Access = UNRESTRICTED,
) -> AuditedData:
    """Audit once more with a finding of likely wrong labels, beside the first report.

    Args:
        data: the settings of the first audit.
        located: its first step.
        audited: its result.
        model: a registered model or a run, as for ``registry.run_of``; not a bundle's folder, which does not say what
            it was trained on.
        on_progress: told (done, total, what).
        access: what may be read.

    Raises:
        DataError: the model knows other classes, or was trained on all the images.
        ModelError, TrackingError: there is no such model.
    """
    if audited.kind != "classes":
        held = KINDS[audited.kind]
        raise DataError(f"Likely wrong labels are found where images have classes, but {data.source} holds {held}.")
    run_id = registry.run_of(model)
    classifier = bundle.load_classifier(registry.fetch_bundle(model))
    if sorted(classifier.class_names) != sorted(audited.class_names):
        raise DataError(
            f"The model {model} knows the classes {', '.join(classifier.class_names[:10])}, the images are of"
            f" {', '.join(audited.class_names[:10])}: take a model of these classes."
        )
    columns = [classifier.class_names.index(name) for name in audited.class_names]
    found = image_store.open_store(audited.store)
    source = open_source(data, home() / "downloads", on_progress, access=access, fingerprint=located.fingerprint)
    with closing(source) as images:
        inspected = preparation.inspected_images(images, found)
        first = audit(inspected, data, preparation.frozen_test(data, access))
        judged = _not_learned(inspected, first.split != "", run_id)
        probabilities = np.empty((len(judged), len(audited.class_names)))
        for start in range(0, len(judged), _AT_ONCE):
            chunk = inspected.images[judged[start : start + _AT_ONCE]]
            prepared = np.stack([classifier.prepare(image) for image in chunk])
            probabilities[start : start + len(chunk)] = classifier.probabilities(prepared)[:, columns]
            on_progress(start + len(chunk), len(judged), "judging labels")
        finding, wrong = _finding(inspected, judged, probabilities, model)
        again = first.with_finding(finding, tuple((int(index),) for index in wrong))
        folder = audited.path.with_name(f"{audited.path.name}-{run_id[:8]}")

        def build(building: Path) -> None:
            (building / versions.SAMPLES).write_bytes((audited.path / versions.SAMPLES).read_bytes())
            preparation.write_outcome(building, again, inspected, found, data)

        build_once(folder, lambda path: False, build)
    return preparation.load_outcome(folder)


def _not_learned(inspected: Inspected, used: NDArray[np.bool_], run_id: str) -> NDArray[np.int64]:
    samples = versions.read_samples(tracking.samples_of(run_id))
    learned = {row.tobytes() for row, split in zip(samples.content, samples.split, strict=True) if split == "train"}
    content = np.ascontiguousarray(inspected.measures["content"])
    judged = [index for index in np.flatnonzero(used).tolist() if content[index].tobytes() not in learned]
    if not judged:
        raise DataError(
            f"The model of run {run_id} was trained on all these images: what it says about their labels is only what"
            " it was told. Take a model that has not seen them, such as one of each fold (data.folds, data.fold)."
        )
    return np.array(judged, np.int64)


def _finding(
    inspected: Inspected, judged: NDArray[np.int64], probabilities: NDArray[np.float64], model: str
) -> tuple[Finding, NDArray[np.int64]]:
    """The finding, and the images it is about, the likeliest first."""
    places = suspicious(inspected.labels[judged], probabilities)
    wrong = judged[places]
    said = probabilities[places].argmax(axis=1)
    names = [inspected.sample_ids[index] for index in wrong[:_NAMED]]
    classes = inspected.class_names
    guesses = [
        f"{name} is filed as {classes[inspected.labels[index]]}, looks like {classes[guess]}"
        for name, index, guess in zip(names, wrong, said, strict=False)
    ]
    message = f"None of {len(judged):,} images that {model} was not trained on has likely a wrong label."
    if guesses:
        message = (
            f"{len(wrong):,} of {len(judged):,} images that {model} was not trained on have likely a wrong label:"
            f" {'; '.join(guesses[:3])}. Used all the same. Look at them, and file them anew where they are wrong."
        )
    return Finding(kind=KIND, message=message, files=tuple(names), count=len(wrong)), wrong
