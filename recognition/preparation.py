"""From a source to a prepared data set in three steps: fetch it, decode and audit it once, split it and sum it up.

Each step finds what an earlier call with the same content and settings has left, and builds it whole or not at all.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from recognition import datasets, few_shot, versions
from recognition.access import UNRESTRICTED, Access
from recognition.audit import Audited, audit, markdown, write_report
from recognition.audit.inspected import Annotated, Inspected
from recognition.data_settings import Data
from recognition.errors import AuditError, DataError
from recognition.experiment import digest_of
from recognition.progress import Progress, silent
from recognition.records import AuditedData, Located, PreparedData
from recognition.settings import home
from recognition.sources import open_source
from recognition.sources.labelled import Images
from recognition.splits import SPLITS
from recognition.storage import build_once
from recognition.store import decoding, image_store
from recognition.store.array_file import ArrayWriter
from recognition.store.image_store import ImageStore

logger = logging.getLogger("recognition")

VERSION = 2
"""Raised when the same images and settings would give other findings or splits."""
RECORD = "audited.json"
_RELEVANT = {
    "source", "path_column", "label_column", "split_column", "group_column", "group_pattern", "test_fraction",
    "val_fraction", "split_seed", "folds", "fold", "audit",
}  # fmt: skip


def prepare(
    data: Data, on_progress: Progress = silent, *, access: Access = UNRESTRICTED, fresh: bool = False
) -> PreparedData:
    """Fetch, decode, audit and split the images; what is there already is found and reused.

    Args:
        data: which images, and what is done with them.
        on_progress: told (done, total, what).
        access: what may be read.
        fresh: do everything again.

    Raises:
        ConfigurationError: the source is unknown, or not allowed here.
        DownloadError: it cannot be fetched whole.
        AuditError, DataError: images or folders cannot be used as they are.
        StorageError: the state folder cannot be written.
    """
    located = locate(data, on_progress, access=access, fresh=fresh)
    audited = examine(data, located, on_progress, access=access, fresh=fresh)
    require_usable(audited)
    return arrange(data, audited, fresh=fresh)


def locate(
    data: Data, on_progress: Progress = silent, *, access: Access = UNRESTRICTED, fresh: bool = False
) -> Located:
    """Step 1: fetch what is missing of a source, and list its images."""
    with closing(open_source(data, home() / "downloads", on_progress, access=access, fresh=fresh)) as images:
        return Located(
            source=data.source,
            fingerprint=images.fingerprint,
            images=len(images),
            classes=len(images.object_names),
            kind=images.kind,
        )


def examine(
    data: Data,
    located: Located,
    on_progress: Progress = silent,
    *,
    access: Access = UNRESTRICTED,
    fresh: bool = False,
) -> AuditedData:
    """Step 2: decode every image once into the store, audit what was seen, decide what is used, and split it.

    Leaves ``report.html``, ``audit.json``, ``report.md`` and ``samples.parquet``; also when the policies forbid the
    data, which `require_usable` says.
    """
    frozen = frozen_test(data, access)
    source = open_source(data, home() / "downloads", on_progress, access=access, fingerprint=located.fingerprint)
    with closing(source) as images:
        found = decoding.decode_source(images, data, home() / "images", on_progress, fresh)
        settings = data.model_dump(mode="json", include=_RELEVANT)
        wanted = hashlib.sha256(b"".join(sorted(frozen.elements()))).hexdigest() if frozen else ""
        said = [finding.model_dump(mode="json") for finding in images.findings]
        content = {"store": found.path.name, "settings": settings, "frozen": wanted, "findings": said}
        key = digest_of({"version": VERSION, **content})
        folder = home() / "audits" / key[:16]

        def build(building: Path) -> None:
            on_progress(0, len(images), "auditing images")
            _audit(images, found, data, frozen, building)
            on_progress(len(images), len(images), "auditing images")

        build_once(folder, _is_audited, build, fresh)
    return load_outcome(folder).model_copy(update={"store": found.path, "source": data.source})


def require_usable(audited: AuditedData) -> None:
    """Raise `AuditError` when the policies of ``data.audit`` forbid to use the data."""
    if audited.failed:
        raise AuditError(f"{audited.failed}\nThe whole report: {audited.path / 'report.html'}", audited.path)


def arrange(data: Data, audited: AuditedData, *, fresh: bool = False) -> PreparedData:
    """Step 3: write the indices of each split and what training wants to know of them."""
    folder = home() / "datasets" / audited.path.name
    built = build_once(folder, _is_whole, lambda building: _arrange(audited, building, folder), fresh)
    if not built:
        logger.info("The images of %s are prepared already: %s", data.source, folder)
    prepared = datasets.load(folder).model_copy(update={"source": data.source})
    return few(data, prepared, fresh=fresh) if data.per_class else prepared


def few(data: Data, prepared: PreparedData, *, fresh: bool = False) -> PreparedData:
    """A data set with only ``data.per_class`` training images of each class; validation and test stay.

    Args:
        data: which draw, and how many images.
        prepared: the whole data set, or any draw of it.
        fresh: write it again.

    Raises:
        ConfigurationError: the images have no class each.
        DataError: a class has too few training images.
    """
    few_shot.check_kind(prepared)
    whole = prepared.path.name.partition("-")[0]
    folder = prepared.path.with_name(f"{whole}-{data.per_class}-{data.draw}")
    build_once(folder, _is_whole, lambda building: few_shot.write(data, prepared, building, folder), fresh)
    return datasets.load(folder).model_copy(update={"source": data.source})


def draws(data: Data, prepared: PreparedData) -> list[PreparedData]:
    """The data sets of the draws that ``data.draws`` asks for after the first; ``prepared`` is any of them."""
    return [few(data.model_copy(update={"draw": data.draw + number}), prepared) for number in range(1, data.draws)]


def frozen_test(data: Data, access: Access) -> Counter[bytes]:
    """The content digests of the images of ``data.frozen_test``; empty for none."""
    if not data.frozen_test:
        return Counter()
    path = Path(data.frozen_test).expanduser()
    if path.suffix == ".parquet":
        access.check_path(path)
        return versions.frozen_counts(versions.read_samples(path))
    from recognition import tracking  # only here is MLflow needed to prepare images

    return versions.frozen_counts(versions.read_samples(tracking.samples_of(data.frozen_test)))


def inspected_images(images: Images, found: ImageStore) -> Inspected:
    """What the audit looks at: the list of a source's images, and what decoding them has left."""
    return Inspected(
        class_names=images.class_names,
        sample_ids=images.sample_ids,
        labels=images.labels,
        splits=images.splits,
        groups=images.groups or ("",) * len(images),
        measures=found.measures(),
        images=found.images(),
        unreadable=found.record.unreadable,
        remarks=found.record.remarks,
        findings=images.findings,
        published_splits=images.published,
        annotated=_annotated(found),
    )


def _annotated(found: ImageStore) -> Annotated | None:
    objects = found.objects()
    if objects is None:
        return None
    return Annotated(
        kind=objects.record.kind,
        class_names=objects.record.class_names,
        counts=objects.counts,
        digests=objects.digests,
        flaws=objects.record.flaws,
        cropped=objects.record.cropped,
    )


def _audit(images: Images, found: ImageStore, data: Data, frozen: Counter[bytes], folder: Path) -> None:
    inspected = inspected_images(images, found)
    audited = audit(inspected, data, frozen)
    _write_samples(folder, images, inspected, audited)
    write_outcome(folder, audited, inspected, found, data)


def write_outcome(folder: Path, audited: Audited, inspected: Inspected, found: ImageStore, data: Data) -> None:
    """Write the report in its three forms, and the record that sums it up."""
    write_report(audited, inspected, folder, data.source)
    (folder / "report.md").write_text(markdown(audited, data.source), encoding="utf-8")
    record = AuditedData(
        path=folder,
        store=found.path,
        source=data.source,
        class_names=inspected.annotated.class_names if inspected.annotated else inspected.class_names,
        kind=inspected.annotated.kind if inspected.annotated else "classes",
        images=len(inspected),
        left_out=len(audited.left_out),
        findings=audited.findings,
        failed=audited.failures,
    )
    (folder / RECORD).write_text(record.model_dump_json(indent=1), encoding="utf-8")


def _write_samples(folder: Path, images: Images, inspected: Inspected, audited: Audited) -> None:
    labels, class_names = images.labels, images.class_names
    if annotated := inspected.annotated:
        # with other objects an image is another one to whoever compares versions
        labels, class_names = _numbered([annotated.told(index) for index in range(len(images))])
    versions.write_samples(
        folder / versions.SAMPLES,
        sample_ids=images.sample_ids,
        labels=labels,
        class_names=class_names,
        split=audited.split,
        left_out=audited.left_out,
        content=inspected.measures["content"],
        groups=inspected.groups,
        metadata=images.metadata,
    )


def _numbered(names: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The number of each name, and the different names."""
    numbers: dict[str, int] = {}
    labels = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
    return labels, tuple(numbers)


def load_outcome(folder: Path) -> AuditedData:
    """The record of an audit in its folder.

    Raises:
        DataError: the folder holds no whole audit.
    """
    try:
        record = AuditedData.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{folder} holds no audit: audit the data again.") from error
    return record.model_copy(update={"path": folder})


def _is_audited(folder: Path) -> bool:
    try:
        load_outcome(folder)
    except DataError:
        return False
    return (folder / versions.SAMPLES).is_file() and (folder / "report.html").is_file()


def _is_whole(folder: Path) -> bool:
    try:
        record = datasets.load(folder)
        arrays = datasets.open_arrays(folder)
    except DataError:
        return False
    counts = {name: len(indices) for name, indices in arrays.indices.items()}
    return (folder / versions.SAMPLES).is_file() and counts == record.counts and len(arrays.images) == len(arrays)


def _arrange(audited: AuditedData, building: Path, folder: Path) -> None:
    found = image_store.open_store(audited.store)
    samples = versions.read_samples(audited.path / versions.SAMPLES)
    objects = found.objects()
    if objects is None:
        number = {name: label for label, name in enumerate(audited.class_names)}
        labels = np.array([number[name] for name in samples.class_names], np.int64)
    else:
        labels = np.zeros(len(samples), np.int64)
    split = np.asarray(samples.split)
    indices = {name: np.flatnonzero(split == name).astype(np.int64) for name in SPLITS}
    for name, rows in {**indices, "labels": labels}.items():
        # numpy's own save cuts a small file silently where the disk is full
        with ArrayWriter(building / f"{name}.npy", rows.shape, rows.dtype) as file:
            file.put(0, rows)
    (building / versions.SAMPLES).write_bytes((audited.path / versions.SAMPLES).read_bytes())
    used = np.sort(np.concatenate(list(indices.values())))
    mean, std = found.mean_and_std(indices["train"])
    content = found.measures()["content"]
    said, names = (labels, audited.class_names) if objects is None else _numbered(samples.class_names)

    def digest(positions: NDArray[np.int64]) -> str:
        return versions.dataset_digest(content[positions], names, said[positions])

    def class_counts(positions: NDArray[np.int64]) -> dict[str, int]:
        if objects is None:
            return _class_counts(labels[positions], audited.class_names)
        return dict(zip(audited.class_names, objects.counts[positions].sum(axis=0).tolist(), strict=True))

    record = PreparedData(
        path=folder,
        images=audited.store,
        digest=digest(used),
        test_digest=digest(indices["test"]),
        source=audited.source,
        kind=audited.kind,
        class_names=audited.class_names,
        height=found.record.height,
        width=found.record.width,
        channels=found.record.channels,
        counts={name: len(indices[name]) for name in SPLITS},
        class_counts={name: class_counts(indices[name]) for name in SPLITS},
        mean=mean,
        std=std,
        findings=audited.findings,
    )
    (building / datasets.RECORD).write_text(record.model_dump_json(indent=1), encoding="utf-8")


def _class_counts(labels: NDArray[np.int64], class_names: tuple[str, ...]) -> dict[str, int]:
    counts = Counter(labels.tolist())
    return {name: counts[label] for label, name in enumerate(class_names)}
