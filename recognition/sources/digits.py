"""The 1,797 scanned digits that come with scikit-learn: 8x8, gray, no network needed.

Source: https://archive.ics.uci.edu/dataset/80 (the test part of the UCI set), licence CC BY 4.0.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from recognition.access import Access
from recognition.data_settings import Data
from recognition.progress import Progress
from recognition.sources.labelled import Images


def digits(data: Data, downloads: Path, on_progress: Progress, access: Access, fresh: bool) -> Images:
    """scikit-learn's 1,797 scanned digits, 8x8 gray, embedded; ink values 0 to 16 become 0 to 255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    values = np.asarray(bunch.images, np.float64)
    labels = np.asarray(bunch.target, np.int64)
    pixels = np.rint(values * 255 / 16).astype(np.uint8)[..., np.newaxis]
    return Images(
        class_names=tuple(str(name) for name in bunch.target_names),
        sample_ids=tuple(f"{number:04d}" for number in range(len(labels))),
        labels=labels,
        splits=("",) * len(labels),
        fingerprint="digits:" + hashlib.sha256(pixels.tobytes() + labels.astype("<i8").tobytes()).hexdigest(),
        pixels=pixels,
    )
