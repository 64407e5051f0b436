"""Where things are: the state folder, and what ``mlflow.yaml`` and the environment say about tracking."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recognition.access import redacted
from recognition.errors import ConfigurationError, StorageError

PromotionMetric = Literal[
    "auto", "accuracy", "f1_macro", "f1_weighted", "recall_macro", "precision_macro", "roc_auc_macro", "psnr", "ssim",
    "mse", "probe_accuracy", "frechet_distance", "precision", "recall", "recognised", "map", "map_50", "map_75",
    "mar_100", "mask_map", "mask_map_50", "mask_map_75", "dice_macro", "iou_macro", "pixel_accuracy",
]  # fmt: skip


class Promotion(BaseModel):
    """The house rule for the alias ``champion``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: PromotionMetric = "auto"
    minimum_gain: float = Field(default=0.0, ge=-1.0, le=1.0)


class TrackingSettings(BaseModel):
    """The content of ``mlflow.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tracking_uri: str = ""
    artifact_location: str = ""
    experiment_name: str = "image-recognition"
    system_metrics: bool = True
    system_metrics_interval: int = Field(default=5, ge=1, le=600)
    ui_url: str = "http://127.0.0.1:5000"
    promotion: Promotion = Promotion()


def project_root() -> Path:
    """The folder that holds ``mlflow.yaml``: the checkout, or the current folder for an installed copy."""
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "mlflow.yaml").is_file() else Path.cwd()


def install_command(extra: str) -> str:
    """What to type to install an optional part of this project, which is on no package index."""
    return f"uv pip install -e '{project_root()}[{extra}]'"


def home() -> Path:
    """The state folder: ``RECOGNITION_HOME``, or ``var`` in the project. Made when it is missing.

    Raises:
        StorageError: it can't be made.
    """
    folder = _home_path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The state folder {folder} cannot be made ({error.strerror}): "
            "give a folder you may write to in RECOGNITION_HOME."
        ) from error
    return folder


def _home_path() -> Path:
    return Path(os.environ.get("RECOGNITION_HOME") or project_root() / "var").expanduser().resolve()


def run_folder(run_id: str) -> Path:
    """Where a run keeps its checkpoints, figures and tables."""
    return home() / "runs" / run_id


def _read(path: Path) -> TrackingSettings:
    try:
        return TrackingSettings.model_validate(yaml.safe_load(path.read_text()) or {})
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigurationError(f"{path} cannot be used: {error}") from error


def tracking_settings() -> TrackingSettings:
    """``mlflow.yaml``, with ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` in front of it.

    Raises:
        ConfigurationError: the file is no YAML or holds an unknown or impossible value.
    """
    path = project_root() / "mlflow.yaml"
    settings = _read(path) if path.is_file() else TrackingSettings()
    return settings.model_copy(
        update={
            "tracking_uri": os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking_uri,
            "experiment_name": os.environ.get("MLFLOW_EXPERIMENT_NAME") or settings.experiment_name,
        }
    )


def tracking_uri() -> str:
    """The address of the tracking store: a server, or the SQLite file of the state folder.

    Raises:
        ConfigurationError: a server's address holds a password. It is part of the links that runs leave behind.
    """
    uri = tracking_settings().tracking_uri or f"sqlite:///{home() / 'mlflow.db'}"
    if uri.startswith(("http://", "https://")) and "@" in urlsplit(uri).netloc:
        raise ConfigurationError(
            f"The tracking address {redacted(uri)} names a user, and runs record it: leave the user out, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment."
        )
    return uri


def tracking_address() -> str:
    """The tracking store's address as it may be shown: a database's without its password."""
    return redacted(tracking_uri())


def prepare_environment() -> None:
    """Set, where the user has not, what the libraries read from the environment when they are imported.

    Telemetry and update checks are off; idle OpenMP threads sleep instead of spinning; the temporary Prefect server
    gets the time its first start needs. With ``RECOGNITION_HOME`` set, Prefect's own state lies there too.
    """
    defaults = {
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        # in its memory a server would forget who holds a GPU's slot when it is started again, and never free it
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "recognition",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # seconds between signs of life, by which a run that is gone is told from one that is busy
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_WAIT_POLICY": "PASSIVE",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    if os.environ.get("RECOGNITION_HOME"):
        defaults["PREFECT_HOME"] = str(_home_path() / "prefect")
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
