"""The section ``data``: which images, what is done about what is wrong with them, how they are split and prepared."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from recognition.access import ADDRESS_WITH_CREDENTIALS
from recognition.section import Section, setting

Policy = Literal["fail", "quarantine", "warn"]
LeakPolicy = Literal["auto", "fail", "move", "quarantine", "warn"]


class Audit(Section):
    """What is done about each kind of finding: stop (fail), leave the images out and list them (quarantine), or list
    them only (warn)."""

    unreadable: Literal["fail", "quarantine"] = setting(
        "fail", "Files that are empty, cut off, damaged, or no images at all."
    )
    wrong_extension: Policy = setting("warn", "Files whose content is of another format than their name says.")
    animated: Policy = setting("warn", "Files with several frames or pages; only the first is used.")
    converted: Policy = setting(
        "warn", "Images with a palette, transparency, 16 bits or CMYK colours, converted to 8-bit gray or RGB."
    )
    odd_size: Policy = setting("warn", "Images far smaller or larger than the others.")
    odd_aspect: Policy = setting("warn", "Images whose ratio of width to height is far from the others'.")
    dark: Policy = setting("warn", "Images that are almost black.")
    bright: Policy = setting("warn", "Images that are almost white.")
    blurry: Policy = setting("warn", "Images with far less fine detail than the others.")
    constant: Policy = setting("warn", "Images of one single colour.")
    exact_duplicates: Policy = setting(
        "warn", "The same pixels more than once in one split, with one label; quarantine keeps one of them."
    )
    near_duplicates: Policy = setting(
        "warn",
        "Resized, re-encoded or mirrored copies in one split, with one label; quarantine keeps one of them.",
    )
    leaks: LeakPolicy = setting(
        "auto",
        "Copies of one image in two splits that the source gives. move: into the split that is held out most (test,"
        " then val). quarantine: those that are held out less are left out. auto: move, but warn for a named data set,"
        " whose published test set is kept. Splits that we make never part copies.",
    )
    conflicting_labels: Policy = setting("quarantine", "The same pixels, or a near copy, under two labels.")
    invalid_boxes: Literal["fail", "quarantine"] = setting(
        "fail",
        "Boxes without area or outside of their image. quarantine: these boxes are left out; their images stay.",
    )
    missing_annotations: Policy = setting(
        "fail", "Images without a file of boxes or masks. warn: they count as images without objects."
    )
    invalid_masks: Literal["fail", "quarantine"] = setting(
        "fail", "Masks that are empty, unreadable or of another size than their image."
    )
    few_images: Literal["fail", "warn"] = setting("warn", "Classes with fewer images than minimum_per_class.")
    imbalance: Literal["fail", "warn"] = setting("warn", "The largest class more than 10 times the smallest.")
    missing_class: Literal["fail", "warn"] = setting("fail", "A split without any image of some class.")
    minimum_per_class: int = setting(10, "A class with fewer is a finding.", unit="images", ge=1, le=1_000_000)


class Limits(Section):
    """What a source may hold at most; a source that holds more is refused before it fills disk or memory."""

    files: int = setting(5_000_000, "Files in an archive, a folder or a manifest.", unit="files", ge=1)
    gigabytes: float = setting(500.0, "Content of an archive when unpacked, or of a download.", unit="GB", gt=0)
    file_megabytes: float = setting(1024.0, "A single file.", unit="MB", gt=0)
    compression: float = setting(
        500.0, "How many times larger the content of an archive may be than the archive.", unit="times", ge=1
    )


class Data(Section):
    """Which images, what is done about what is wrong with them, how they are split, and the size they get."""

    source: str = setting(
        "digits",
        "A data set's name (digits, mnist, fashion_mnist, cifar10, cifar100); a folder with one sub-folder per class,"
        " or of images with boxes (COCO, Pascal VOC) or masks; a zip or tar of such a folder; a manifest (.csv or"
        " .parquet with paths or addresses and labels); or hf:<name> for a Hugging Face data set. All but names by"
        " path, http(s), or s3://, gs://, az:// address.",
        examples=["digits", "/data/flowers", "https://example.org/flowers.zip", "s3://bucket/labels.csv"],
        refused=ADDRESS_WITH_CREDENTIALS,
    )
    mirror: str = setting(
        "",
        "A base address of your own for the named data sets (http, https, file or a folder), under which"
        " <data set>/<original file name> lies. Empty: the public mirrors.",
        refused=ADDRESS_WITH_CREDENTIALS,
    )
    checksum: str = setting(
        "", "What an archive must hash to, as sha256:<hex> or md5:<hex>. Empty: not checked.", examples=["sha256:…"]
    )
    path_column: str = setting(
        "", "Manifests and Hugging Face: the column of images. Empty: image, path, file, filename, url or the like."
    )
    label_column: str = setting(
        "", "Manifests and Hugging Face: the column of labels. Empty: label, class, category or the like."
    )
    split_column: str = setting(
        "", "Manifests: the column that says train, val or test. Empty: split, if there is one."
    )
    group_column: str = setting(
        "",
        "Manifests: the column of groups (patient, camera, video) that no two splits may share. Empty: group, if there"
        " is one.",
    )
    group_pattern: str = setting(
        "",
        "A regular expression that finds the group in an image's path; its first pair of brackets, or all of it, is the"
        " group's name. No two splits share a group.",
        examples=[r"^.*/(patient\d+)_"],
    )
    per_class: int = setting(
        0,
        "Few-shot learning: only so many training images of each class are used, drawn by split_seed and draw. 0: all.",
        unit="images",
        ge=0,
        le=1_000_000,
    )
    draw: int = setting(0, "Few-shot learning: which draw of the training images, counted from 0.", ge=0, le=9999)
    draws: int = setting(
        1,
        "Few-shot learning: train so many networks, each on a draw of its own from this one on. test/ holds the scores"
        " of the first, which is registered, draws/ means and standard deviations of all.",
        unit="draws",
        ge=1,
        le=100,
    )
    image_size: int = setting(
        0,
        "Side of the prepared square images. 0: as stored when all images are of one size, else fitted to them.",
        unit="pixels",
        ge=0,
        le=1024,
    )
    channels: Literal["auto", "gray", "rgb"] = setting(
        "auto", "Gray (1 channel) or colour (3 channels). auto: gray when every image is gray."
    )
    resize: Literal["crop", "pad", "stretch"] = setting(
        "crop",
        "How an image of another shape is brought to size: its middle cropped, its short sides padded with black,"
        " or stretched.",
    )
    storage: Literal["auto", "array", "shards"] = setting(
        "auto",
        "How prepared images are kept: as one array of pixels, or as shards of JPEG-encoded images. auto: shards where"
        " the array would be larger than 4 GB.",
    )
    test_fraction: float = setting(
        0.2, "Share of the images kept for the test, where the source has no test set.", unit="fraction", gt=0, lt=0.9
    )
    val_fraction: float = setting(
        0.1,
        "Share of the images that are not test kept for validation, where the source has no validation set.",
        unit="fraction",
        gt=0,
        lt=0.9,
    )
    split_seed: int = setting(
        0, "Seed of the split, apart from the training seed: every repeat is judged on the same images.", ge=0
    )
    folds: int = setting(
        0,
        "k of k-fold cross-validation: the images that are not test are cut into so many folds, of which one is the"
        " validation set. 0: val_fraction decides.",
        unit="folds",
        ge=0,
        le=100,
    )
    fold: int = setting(0, "Which fold is the validation set, counted from 0.", ge=0, le=99)
    frozen_test: str = setting(
        "",
        "A run's id, or its samples.parquet: exactly its test images are the test set, whatever images have come since."
        " Empty: none.",
    )
    audit: Audit = Field(default=Audit(), description=str(Audit.__doc__))
    limits: Limits = Field(default=Limits(), description=str(Limits.__doc__))

    @field_validator("source")
    @classmethod
    def _source_is_given(cls, source: str) -> str:
        if not source.strip():
            raise ValueError("must name a data set, a folder, an archive or a manifest")
        return source.strip()

    @field_validator("checksum")
    @classmethod
    def _checksum_names_its_kind(cls, checksum: str) -> str:
        lengths = {"sha256": 64, "md5": 32}
        kind, _, value = checksum.partition(":")
        if checksum and (lengths.get(kind) != len(value) or set(value.lower()) - set("0123456789abcdef")):
            raise ValueError("must be sha256:<64 hex digits> or md5:<32 hex digits>")
        return checksum.lower()

    @field_validator("group_pattern")
    @classmethod
    def _pattern_is_one(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _draws_are_of_few(self) -> Self:
        if not self.per_class and (self.draw or self.draws > 1):
            raise ValueError("draw and draws are for few-shot learning: set data.per_class too")
        return self

    @model_validator(mode="after")
    def _fold_is_one_of_folds(self) -> Self:
        if self.folds == 1:
            raise ValueError("folds must be 0 or at least 2")
        if self.fold and not self.folds:
            raise ValueError(f"fold is {self.fold}, but there are no folds: set data.folds too")
        if self.fold and self.fold >= self.folds:
            raise ValueError(f"fold is {self.fold}, but folds are counted from 0 to {max(self.folds - 1, 0)}")
        return self
