"""The experiment: one frozen model, one section a stage.

It is the YAML file, the flow's parameters, the form in the Prefect UI and the parameters in MLflow. Values that mean
"not set" are neutral ones (empty text, 0, ``auto``), so that every field is a plain field of a form.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from recognition.data_settings import Audit, Data, Limits
from recognition.families import FAMILIES, LIBRARIES, Task, task_of
from recognition.section import Section, setting
from recognition.settings import PromotionMetric, tracking_settings

__all__ = [
    "Audit",
    "Augmentation",
    "Data",
    "Evaluation",
    "Experiment",
    "Limits",
    "Model",
    "Registration",
    "Training",
    "digest_of",
]

Preset = Literal["auto", "none", "shift_rotate", "flip_crop", "photo", "objects", "strong"]
Normalization = Literal["auto", "dataset", "half", "imagenet", "none"]
PRESETS: tuple[str, ...] = get_args(Preset)
Width = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 4096})]
"""Of a layer; the schema says the bounds, `Model` checks them."""
Monitor = Literal[
    "auto", "val/loss", "val/accuracy", "val/f1_macro", "val/psnr", "val/frechet_distance", "val/map", "val/map_50",
    "val/mask_map_50", "val/dice_macro", "val/iou_macro",
]  # fmt: skip


class Augmentation(Section):
    """How training images are varied and how all images are normalised."""

    preset: Preset = setting(
        "auto",
        "A named policy. auto: objects for images with boxes or masks, shift_rotate for small gray ones, flip_crop for"
        " small colour ones, photo for larger ones.",
    )
    transforms: tuple[dict[str, dict[str, Any]], ...] = setting(
        (),
        "Albumentations transforms in order, each as {Name: {argument: value}}; they replace the preset. @height and"
        " @width stand for the prepared size.",
        examples=[[{"HorizontalFlip": {"p": 0.5}}]],
    )
    normalization: Normalization = setting(
        "auto",
        "Mean and standard deviation that pixels are normalised with: of the training images (dataset), 0.5 and 0.5"
        " (half), ImageNet's, or none (only divided by 255). auto: ImageNet's for pretrained networks, else dataset.",
    )
    mixup: float = setting(0.0, "Alpha of mixup's Beta distribution. 0: no mixup.", ge=0, le=10)
    cutmix: float = setting(
        0.0,
        "Alpha of CutMix's Beta distribution. 0: no CutMix. With mixup too, each batch draws one of them.",
        ge=0,
        le=10,
    )
    preview: int = setting(8, "Columns of the preview grid.", unit="images", ge=1, le=32)


class Model(Section):
    """Which network learns, and with which weights it starts."""

    task: Literal["auto", Task] = setting(
        "auto",
        "What is learned: the class of an image, to compress and restore it, to make new ones, boxes around objects, a"
        " mask of classes, or a mask for each object. auto: what the network is for; without one what the data say.",
    )
    network: str = setting(
        "auto",
        "One of ours (cnn, rnn, cnn_rnn, vit, encoder; dense_autoencoder, conv_autoencoder; dcgan; retinanet,"
        " fasterrcnn; unet; maskrcnn), timm/<name> or torchvision/<name>. auto: the task's first.",
        examples=["auto", "cnn", "vit", "unet", "timm/resnet18", "torchvision/mobilenet_v3_small"],
    )
    # empty once it is read: left out of what is kept of an experiment, and of its digest
    backbone: str = Field(
        "",
        description="A network of timm or torchvision that the list of network does not have in a form, as timm/<name>"
        " or torchvision/<name>; the same as naming it in network. Leave network at auto with it.",
        examples=["timm/resnet26", "torchvision/wide_resnet50_2"],
        exclude=True,
    )
    head: Literal["auto", "softmax", "sigmoid"] = setting(
        "auto",
        "softmax: one logit a class and cross-entropy. sigmoid: one logit and binary cross-entropy, for two classes."
        " auto: sigmoid for two classes.",
    )
    channels: tuple[Width, ...] = setting(
        (),
        "cnn, cnn_rnn, conv_autoencoder, encoder: output channels of each convolution block. Empty: fitted to the image"
        " size, or those of an autoencoder in weights.",
        examples=[[32, 64]],
    )
    kernel_size: int = setting(3, "cnn: side of the convolution kernels.", unit="pixels", ge=1, le=11)
    padding: Literal["same", "valid"] = setting("same", "cnn: pad convolutions to keep the size, or do not.")
    pooled_blocks: int = setting(
        -1, "cnn: how many blocks, from the first, end in a 2x2 max-pool. -1: all of them.", ge=-1, le=16
    )
    batch_norm: bool = setting(True, "cnn: batch normalisation after each convolution.")
    neck: Literal["auto", "flatten", "average"] = setting(
        "auto", "cnn: how the last feature map becomes a vector. auto: flatten up to 8x8, else its average."
    )
    dense: tuple[Width, ...] = setting(
        (),
        "cnn: units of each dense layer before the output; dense_autoencoder: of each layer before the code.",
        unit="units",
        examples=[[64]],
    )
    width: int = setting(
        0,
        "rnn, cnn_rnn: hidden units; vit: numbers a token; dcgan, unet, retinanet, fasterrcnn, maskrcnn: channels of"
        " the first stage. 0: fitted.",
        ge=0,
        le=4096,
    )
    depth: int = setting(
        0, "rnn, cnn_rnn: recurrent layers; vit: blocks; unet: times the image is halved. 0: fitted.", ge=0, le=64
    )
    heads: int = setting(0, "vit: attention heads; they divide width. 0: one for each 32 of width.", ge=0, le=64)
    patch_size: int = setting(
        0,
        "vit, rnn: side of the square patches that are read in order. 0: fitted for vit, whole rows for rnn.",
        unit="pixels",
        ge=0,
        le=64,
    )
    positions: Literal["learned", "sinusoidal"] = setting("learned", "vit: how patches know where they lie.")
    cell: Literal["lstm", "gru", "rnn"] = setting("lstm", "rnn, cnn_rnn: the recurrent cell.")
    bidirectional: bool = setting(False, "rnn, cnn_rnn: also read from the end.")
    code: int = setting(
        0,
        "Autoencoders, encoder: numbers that an image is compressed to; dcgan: numbers of the noise. 0: 64, or those of"
        " an autoencoder in weights.",
        ge=0,
        le=65_536,
    )
    variational: bool = setting(False, "Autoencoders: learn a distribution of codes (VAE).")
    conditional: bool = setting(True, "dcgan: make images of a class that is asked for.")
    adapter_rank: int = setting(
        0,
        "Low-rank adapters of this rank learn beside frozen attention and linear layers; they are added to the weights"
        " when the model is saved. 0: none.",
        ge=0,
        le=256,
    )
    dropout: float = setting(
        0.0,
        "Dropout before the output (and after each dense layer). 0 leaves a torchvision network's own.",
        unit="fraction",
        ge=0,
        lt=1,
    )
    pretrained: bool = setting(False, "timm and torchvision: start from the hub's pretrained weights.")
    weights: str = setting(
        "",
        "What to start from: a local file (.safetensors, or .pt/.pth that holds tensors only), or a registered model"
        " (models:/name@champion, models:/name/1). The output layer is left as it is initialised where its shape is"
        " another. With network: encoder, those of an autoencoder.",
        examples=["weights.safetensors", "models:/fashion_mnist-autoencoder@champion"],
    )

    @model_validator(mode="before")
    @classmethod
    def _backbone_is_the_network(cls, said: Any) -> Any:
        """Move ``backbone`` into ``network``, so that everything else knows one name."""
        if not isinstance(said, dict) or not isinstance(said.get("backbone", ""), str) or not said.get("backbone"):
            return said
        backbone, network = said["backbone"], said.get("network", "auto")
        if not backbone.startswith(tuple(f"{library}/" for library in LIBRARIES)):
            raise ValueError(f"backbone {backbone!r} must be timm/<name> or torchvision/<name>; ours go into network")
        if network not in ("auto", backbone):
            raise ValueError(f"network is {network!r} and backbone {backbone!r}: empty one of them (network: auto)")
        return said | {"network": backbone, "backbone": ""}

    @field_validator("channels", "dense")
    @classmethod
    def _widths_are_positive(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 1 <= width <= 4096 for width in widths) or len(widths) > 16:
            raise ValueError("must be at most 16 numbers from 1 to 4096")
        return widths

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, network: str) -> str:
        if network != "auto":
            task_of(network)
        return network

    @model_validator(mode="after")
    def _network_is_for_the_task(self) -> Self:
        if self.network == "auto":
            return self
        task = task_of(self.network)
        if self.task not in ("auto", task):
            raise ValueError(
                f"network {self.network!r} is for {task}, not for {self.task}: leave one of model.network and"
                " model.task out"
            )
        return self

    @model_validator(mode="after")
    def _pools_fit_blocks(self) -> Self:
        if self.channels and self.pooled_blocks > len(self.channels):
            raise ValueError(f"pooled_blocks is {self.pooled_blocks}, but channels names {len(self.channels)} blocks")
        return self


class Training(Section):
    """How the network learns, for how long and on what."""

    epochs: int = setting(15, "Passes over the training images.", unit="epochs", ge=1, le=10_000)
    batch_size: int = setting(64, "Images a step, over all devices.", unit="images", ge=1, le=65_536)
    optimizer: Literal["adam", "adamw", "sgd"] = setting("adamw", "Adam, AdamW, or SGD with momentum.")
    learning_rate: float = setting(2e-3, "The schedule's highest learning rate.", gt=0, le=100)
    momentum: float = setting(0.9, "SGD: momentum (Nesterov's).", ge=0, lt=1)
    weight_decay: float = setting(
        1e-2, "L2 penalty (adam, sgd) or decoupled weight decay (adamw); not on biases and normalisation.", ge=0, le=10
    )
    l1: float = setting(0.0, "Factor of the L1 penalty on weights.", ge=0, le=10)
    loss: Literal["cross_entropy", "focal"] = setting("cross_entropy", "Cross-entropy, or focal loss.")
    focal_gamma: float = setting(2.0, "Focal loss: how much easy images count less.", ge=0, le=10)
    label_smoothing: float = setting(0.0, "Share of a label spread over all classes.", unit="fraction", ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = setting(
        "none", "balanced: each class weighs in the loss inversely to its count."
    )
    schedule: Literal["constant", "cosine", "one_cycle", "step"] = setting(
        "one_cycle", "How the learning rate moves, step by step."
    )
    warmup_epochs: float = setting(
        0.0, "Linear warm-up before constant, cosine and step schedules.", unit="epochs", ge=0, le=1000
    )
    step_epochs: int = setting(10, "step: epochs between two drops.", unit="epochs", ge=1, le=10_000)
    step_factor: float = setting(0.1, "step: what the rate is multiplied by at a drop.", gt=0, lt=1)
    gradient_clip: float = setting(0.0, "Largest norm of the gradient. 0: not clipped.", ge=0, le=1e6)
    accumulate: int = setting(1, "Batches whose gradients are added up for one step.", unit="batches", ge=1, le=1024)
    ema_decay: float = setting(
        0.0, "Decay of the exponential moving average of the weights, used for scoring. 0: none.", ge=0, lt=1
    )
    early_stopping: int = setting(
        0, "Stop when the monitored score has not improved for so many epochs. 0: never.", unit="epochs", ge=0, le=1000
    )
    monitor: Monitor = setting(
        "auto", "The validation score whose best epoch is kept. auto: val/loss for classes, else the task's main score."
    )
    noise: float = setting(
        0.0,
        "Autoencoders: standard deviation of the noise that is put on the images they read; they learn to restore the"
        " clean ones.",
        unit="of full brightness",
        ge=0,
        le=1,
    )
    reconstruction_loss: Literal["mse", "l1", "bce"] = setting(
        "mse", "Autoencoders: squared, absolute or cross-entropy loss."
    )
    beta: float = setting(1.0, "Variational autoencoders: factor of the Kullback-Leibler term.", ge=0, le=1000)
    adversarial_loss: Literal["wgan_gp", "hinge", "non_saturating"] = setting(
        "hinge",
        "GANs: Wasserstein distance with gradient penalty; hinge and non-saturating use spectral normalisation.",
    )
    gradient_penalty: float = setting(10.0, "wgan_gp: factor of the gradient penalty.", ge=0, le=1000)
    critic_steps: int = setting(
        1, "GANs: steps of the discriminator for each of the generator.", unit="steps", ge=1, le=20
    )
    freeze: Literal["none", "backbone", "staged"] = setting(
        "none",
        "Transfer learning. backbone: only the head learns until unfreeze_epoch. staged: from there on one more stage"
        " learns each epoch, the last first.",
    )
    unfreeze_epoch: int = setting(
        0, "Epoch from which a frozen backbone learns. 0: backbone never, staged from the first.", unit="epochs", ge=0
    )
    layer_decay: float = setting(
        1.0, "Each stage's learning rate is that of the stage above it times this. 1: all alike.", gt=0, le=1
    )
    precision: Literal["32", "bf16", "16"] = setting("32", "Arithmetic: 32 bits, or mixed with bfloat16 or float16.")
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = setting("auto", "auto: a GPU where there is one.")
    devices: int = setting(1, "Devices that share each batch.", unit="devices", ge=1, le=1024)
    loader_workers: int = setting(
        -1,
        "Processes that augment images. 0: none. -1: fitted to the images, the policy and the machine.",
        ge=-1,
        le=256,
    )
    deterministic: bool = setting(False, "Only algorithms that give the same bits each time.")


class Evaluation(Section):
    """What is measured on the test images."""

    batch_size: int = setting(256, "Images scored at once.", unit="images", ge=1, le=65_536)
    top_k: int = setting(5, "A label counts as found among so many best guesses (test/top<k>_accuracy).", ge=2, le=1000)
    threshold: float = setting(0.5, "sigmoid: the probability from which the second class is said.", gt=0, lt=1)
    mistakes: int = setting(16, "Most confident mistakes shown.", unit="images", ge=0, le=100)
    explanations: int = setting(
        4,
        "Classifiers: so many right, wrong and uncertain images each are shown with what the network looked at.",
        unit="images",
        ge=0,
        le=32,
    )
    probe: bool = setting(
        False,
        "Classifiers: also score a linear probe and nearest prototypes on the frozen start weights' features.",
    )
    examples: int = setting(12, "Images shown of each figure of other tasks.", unit="images", ge=1, le=64)
    score_threshold: float = setting(
        0.5, "Detection: boxes from this confidence on are shown and answered.", gt=0, lt=1
    )
    judge: str = setting(
        "",
        "GANs: a registered classifier of the same classes (models:/name@champion), in whose feature space samples are"
        " judged. Empty: the champion of the data's name.",
    )
    samples: int = setting(1000, "GANs: samples that are judged.", unit="images", ge=16, le=100_000)


class Registration(Section):
    """Under which name the model is registered, and when it becomes champion."""

    enabled: bool = setting(True, "Register the model. Off: the run keeps it, the registry does not.")
    model_name: str = setting(
        "", "Name in the registry. Empty: the data's name, with the task behind it where that is not classification."
    )
    metric: PromotionMetric = Field(
        default_factory=lambda: tracking_settings().promotion.metric,
        description="The test score that decides about champion. auto: the task's main score. Default: mlflow.yaml's.",
    )
    minimum_gain: float = Field(
        default_factory=lambda: tracking_settings().promotion.minimum_gain,
        ge=-1,
        le=1,
        description="How much better than the champion a new version must be. Default: mlflow.yaml's.",
    )
    description: str = setting("", "A sentence for the registered version.")

    @field_validator("model_name")
    @classmethod
    def _name_fits_a_registry(cls, name: str) -> str:
        if set(name) & set("/:@") or name != name.strip():
            raise ValueError("must not hold '/', ':', '@' or blanks around it")
        return name


class Experiment(Section):
    """Everything that decides a run."""

    name: str = setting("", "What people read in Prefect and MLflow. Empty: the data's name.", examples=["digits_cnn"])
    seed: int = setting(0, "Seed of initialisation, shuffling and augmentation.", ge=0, le=2**32 - 1)
    data: Data = Field(default=Data(), description=str(Data.__doc__))
    augmentation: Augmentation = Field(default=Augmentation(), description=str(Augmentation.__doc__))
    model: Model = Field(default=Model(), description=str(Model.__doc__))
    training: Training = Field(default=Training(), description=str(Training.__doc__))
    evaluation: Evaluation = Field(default=Evaluation(), description=str(Evaluation.__doc__))
    registration: Registration = Field(default_factory=Registration, description=str(Registration.__doc__))

    @model_validator(mode="after")
    def _scores_are_of_the_task(self) -> Self:
        if self.task is not None:
            self.check_scores(self.task)
        return self

    @property
    def data_name(self) -> str:
        """The data's short name: a data set's own, or the folder's or archive's without its ending."""
        last = PurePosixPath(self.data.source.split("?")[0].rstrip("/")).name or "images"
        for ending in (".zip", ".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tar"):
            if last.lower().endswith(ending):
                return last[: -len(ending)]
        return last

    @property
    def run_name(self) -> str:
        return self.name or self.data_name

    @property
    def task(self) -> Task | None:
        """What is learned, where the settings say it; else the data decide."""
        if self.model.task != "auto":
            return self.model.task
        return None if self.model.network == "auto" else task_of(self.model.network)

    def registered_name(self, task: Task) -> str:
        """The name of the registered model, for what was learned."""
        cleaned = "".join("-" if character in "/:@ " else character for character in self.data_name)
        return self.registration.model_name or cleaned + FAMILIES[task].suffix

    def promotion_metric(self, task: Task) -> str:
        """The test score that decides about champion, for what was learned."""
        metric = self.registration.metric
        return FAMILIES[task].metric if metric == "auto" else metric

    def check_scores(self, task: Task) -> None:
        """Refuse a promotion metric or a monitored score that models of a task do not have.

        Raises:
            ValueError: with those that they have.
        """
        family = FAMILIES[task]
        asked = {
            "registration.metric": (self.registration.metric, family.metrics),
            "training.monitor": (self.training.monitor, family.monitors),
        }
        for setting_name, (score, known) in asked.items():
            if score != "auto" and score not in known:
                raise ValueError(
                    f"{setting_name}: models for {task} have no {score}; use auto, or one of {', '.join(known)}"
                )

    @property
    def digest(self) -> str:
        """SHA-256 over all settings but the name: two experiments with one digest ask for the same work."""
        return digest_of(self.model_dump(mode="json", exclude={"name"}))

    def flattened(self) -> dict[str, str]:
        """Every setting as ``section.key`` and text, as MLflow's parameters hold it."""
        return _flat(self.model_dump(mode="json"))


def digest_of(content: Any) -> str:
    """SHA-256 (hex) of JSON-like content, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = _as_text(value)
    return flat


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
