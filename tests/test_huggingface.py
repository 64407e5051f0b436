"""Hugging Face data sets, saved on disk or loaded by the library, become labelled images; no code of theirs runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sample_images import encoded, folder_of, pixels, write

from recognition.access import Access
from recognition.data_settings import Data, Limits
from recognition.errors import ConfigurationError, DataError, DownloadError
from recognition.pixels import NotAnImageError
from recognition.sources import Images, check_source, huggingface, open_source, signature

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def rows(*labels: Any, start: int = 0, **columns: list[Any]) -> Any:
    """A data set with a small image for each label."""
    images = [{"bytes": encoded(pixels(start + number)), "path": None} for number in range(len(labels))]
    return datasets.Dataset.from_dict({"image": images, "label": list(labels), **columns}).cast_column(
        "image", datasets.Image()
    )


def with_classes(part: Any, *names: str) -> Any:
    return part.cast_column("label", datasets.ClassLabel(names=list(names)))


def saved(target: Path, part: Any) -> Path:
    (datasets.DatasetDict(part) if isinstance(part, dict) else part).save_to_disk(str(target))
    return target


def opened(source: Path | str, tmp_path: Path, access: Access = Access(), **settings: object) -> Images:  # noqa: B008
    return open_source(Data.model_validate({"source": str(source), **settings}), tmp_path / "downloads", access=access)


def described(images: Images) -> list[tuple[str, str, str]]:
    names = [images.class_names[label] for label in images.labels]
    return list(zip(images.sample_ids, names, images.splits, strict=True))


def contents(images: Images) -> list[bytes]:
    assert images.read is not None
    return [images.read(index) for index in range(len(images))]


# saved on disk


def test_a_saved_data_set_is_recognised_and_read(tmp_path: Path) -> None:
    images = opened(saved(tmp_path / "pets", with_classes(rows(1, 0, 1), "dog", "cat")), tmp_path)
    assert described(images) == [("00000", "cat", ""), ("00001", "dog", ""), ("00002", "cat", "")]
    assert images.class_names == ("dog", "cat")  # in the order of the feature
    assert contents(images) == [encoded(pixels(seed)) for seed in range(3)]


@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_splits_are_known_by_name(tmp_path: Path, validation: str) -> None:
    parts = {"train": rows("a", "b"), validation: rows("a", start=2), "test": rows("b", start=3)}
    images = opened(saved(tmp_path / "pets", parts), tmp_path)
    assert described(images) == sorted(
        [
            ("test/00000", "b", "test"),
            ("train/00000", "a", "train"),
            ("train/00001", "b", "train"),
            (f"{validation}/00000", "a", "val"),
        ]
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train", "unsupervised", "extra"), r"splits whose meaning is not known: 'unsupervised', 'extra'\. Known are"),
        (("val", "validation", "train"), r"two splits of one meaning"),
        (("val", "test"), r"no split for training"),
    ],
)
def test_other_splits_are_refused_by_name(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(saved(tmp_path / "pets", {name: rows("a", "b") for name in names}), tmp_path)


def test_a_single_training_split_is_not_a_given_split(tmp_path: Path) -> None:
    assert opened(saved(tmp_path / "pets", {"train": rows("a", "b")}), tmp_path).splits == ("", "")


def test_numbers_as_labels_become_text_and_other_columns_are_kept(tmp_path: Path) -> None:
    part = rows(3, 10, 3, age=[1.0, None, 2.5], note=["x", "é", None], group=["p1", "p2", "p1"], boxes=[[1], [2], [3]])
    images = opened(saved(tmp_path / "pets", part), tmp_path)
    assert images.class_names == ("10", "3")
    assert images.metadata == {"age": ("1", "", "2.5"), "note": ("x", "é", "")}
    assert images.groups == ("p1", "p2", "p1")


def test_columns_are_found_by_their_kind_or_named(tmp_path: Path) -> None:
    part = rows("a", "b").rename_columns({"image": "scan", "label": "diagnosis"})
    path = saved(tmp_path / "scans", part)
    assert len(opened(path, tmp_path, label_column="diagnosis")) == 2
    with pytest.raises(DataError, match=r"no column is known as that of labels: it has 'scan', 'diagnosis'"):
        opened(path, tmp_path)
    with pytest.raises(ConfigurationError, match=r"data\.path_column 'picture' is no column of"):
        opened(path, tmp_path, path_column="picture", label_column="diagnosis")
    with pytest.raises(DataError, match=r"no single column of images"):
        opened(path, tmp_path, path_column="diagnosis", label_column="diagnosis")
    typed = part.cast_column("diagnosis", datasets.ClassLabel(names=["a", "b"]))
    assert opened(saved(tmp_path / "typed", typed), tmp_path).class_names == ("a", "b")


def test_rows_without_label_or_image(tmp_path: Path) -> None:
    parts = {"train": with_classes(rows(0, 1), "a", "b"), "test": with_classes(rows(0, -1), "a", "b")}
    with pytest.raises(DataError, match=r"rows 1 of the split 'test' have no label in 'label'"):
        opened(saved(tmp_path / "a", parts), tmp_path)
    with pytest.raises(DataError, match=r"rows 0 of the split '' have no label"):
        opened(saved(tmp_path / "b", rows(None, "a", "b")), tmp_path)
    part = datasets.Dataset.from_dict({"image": [None, {"bytes": b"", "path": None}], "label": ["a", "b"]})
    images = opened(saved(tmp_path / "c", part.cast_column("image", datasets.Image())), tmp_path)
    assert images.read is not None
    with pytest.raises(NotAnImageError, match="its row holds no image"):
        images.read(0)
    assert images.read(1) == b""


def test_classes_without_images_are_left_out_and_noted(tmp_path: Path) -> None:
    images = opened(saved(tmp_path / "pets", with_classes(rows(0, 2), "ant", "bee", "cat")), tmp_path)
    assert images.class_names == ("ant", "cat")
    assert [finding.message for finding in images.findings] == ["Classes without any image ('bee'): left out."]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"": rows("a", "a")}, r"all images have the label 'a'"),
        ({"train": rows("a", "b"), "test": rows("c")}, r"no image for training has the label 'c'"),
        ({"train": rows("a", "b"), "test": rows("a", other=["x"])}, r"'test' has other columns than the first"),
        ({"": rows(["a"], ["b"])}, r"'label' holds no single label per image"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(tmp_path: Path, parts: Mapping[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(saved(tmp_path / "pets", parts.get("", dict(parts))), tmp_path)


def test_more_rows_than_the_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 rows, more than data\.limits\.files \(2\)"):
        opened(saved(tmp_path / "pets", rows("a", "b", "a")), tmp_path, limits=Limits(files=2))


def test_the_fingerprint_follows_content_and_labels_not_the_place(tmp_path: Path) -> None:
    first = opened(saved(tmp_path / "pets", rows("a", "b")), tmp_path).fingerprint
    shutil.copytree(tmp_path / "pets", tmp_path / "copy")
    assert opened(tmp_path / "copy", tmp_path).fingerprint == first
    assert opened(saved(tmp_path / "turned", rows("b", "a")), tmp_path).fingerprint != first
    assert opened(saved(tmp_path / "other", rows("a", "b", start=5)), tmp_path).fingerprint != first
    before = signature(Data(source=str(tmp_path / "copy")))
    shutil.rmtree(tmp_path / "copy")
    saved(tmp_path / "copy", rows("b", "a", "b"))
    assert signature(Data(source=str(tmp_path / "copy"))) != before


@pytest.mark.parametrize("name", ["../../secret/data-00000-of-00001.arrow", "/etc/passwd", ".."])
def test_records_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / "pets", rows("a", "b"))
    state = json.loads((path / "state.json").read_text())
    state["_data_files"] = [{"filename": name}]
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="names a file outside of it"):
        opened(path, tmp_path)


def test_damaged_records_and_tables_are_refused(tmp_path: Path) -> None:
    for name, content in (("state.json", b"{"), ("state.json", b"[]"), ("data-00000-of-00001.arrow", b"ARROW1")):
        path = saved(tmp_path / "pets", rows("a", "b"))
        write(path / name, content)
        with pytest.raises(DataError, match="is damaged"):
            opened(path, tmp_path)
        shutil.rmtree(path)


def test_a_folder_of_images_beside_such_records_is_still_a_folder(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "root", "cat", "dog", count=1)
    write(root / "dataset_info.json", b"{}")
    assert opened(root, tmp_path).sample_ids == ("cat/0.png", "dog/0.png")


# files named by the rows


def naming(target: Path, *paths: str) -> Path:
    """A saved data set whose rows name files, which ``save_to_disk`` itself would put into it."""
    part = datasets.Dataset.from_dict(
        {"image": [{"bytes": None, "path": path} for path in paths], "label": ["a", "b"] * (len(paths) // 2)},
        features=datasets.Features(
            {
                "image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
                "label": datasets.Value("string"),
            }
        ),
    )
    part.save_to_disk(str(target))
    info = json.loads((target / "dataset_info.json").read_text())
    info["features"]["image"] = {"_type": "Image"}
    (target / "dataset_info.json").write_text(json.dumps(info))
    return target


def test_paths_in_the_images_are_their_ids_when_each_has_its_own(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "root", "cat", "dog", count=1)
    images = opened(naming(tmp_path / "set", *(str(root / f"{name}/0.png") for name in ("dog", "cat"))), tmp_path)
    assert described(images) == [("cat/0.png", "b", ""), ("dog/0.png", "a", "")]
    assert contents(images) == [(root / sample_id).read_bytes() for sample_id in images.sample_ids]
    twice = opened(naming(tmp_path / "twice", *[str(root / "cat/0.png")] * 2), tmp_path)
    assert twice.sample_ids == ("00000", "00001")


def test_files_outside_the_allowed_folders_are_not_read(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.png", encoded(pixels(1)))
    paths = [str(secret), "secret.png", "https://host/1.png", "zip://1.png::/etc/x.zip"]
    path = naming(tmp_path / "allowed" / "set", *paths)
    access = Access(restricted=True, roots=(tmp_path / "allowed",))
    images = opened(path, tmp_path, access)
    assert images.read is not None
    for index in range(len(paths)):
        with pytest.raises(NotAnImageError):
            images.read(index)
    for source in (str(tmp_path), f"hf:{tmp_path}"):
        with pytest.raises(ConfigurationError, match="may not be read"):
            check_source(Data(source=source), access)


# loaded by the library


def test_a_local_folder_is_loaded_by_the_library(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "root", "train/cat", "train/dog", "test/cat", "test/dog", count=1)
    images = opened(f"hf:{root}", tmp_path)
    assert described(images) == [
        ("test/cat/0.png", "cat", "test"),
        ("test/dog/0.png", "dog", "test"),
        ("train/cat/0.png", "cat", "train"),
        ("train/dog/0.png", "dog", "train"),
    ]
    assert contents(images) == [(root / sample_id).read_bytes() for sample_id in images.sample_ids]
    assert (tmp_path / "downloads" / "huggingface").is_dir()


def test_a_local_folder_of_parquet_files_is_loaded_by_the_library(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    for name, part in (("train", rows("a", "b")), ("test", rows("b", start=2))):
        part.to_parquet(str(tmp_path / "root" / f"{name}-00000-of-00001.parquet"))
    images = opened(f"hf:{tmp_path / 'root'}", tmp_path)
    assert described(images) == [
        ("test/00000", "b", "test"),
        ("train/00000", "a", "train"),
        ("train/00001", "b", "train"),
    ]
    assert contents(images)[0] == encoded(pixels(2))


def test_a_saved_folder_may_be_named_as_hugging_face(tmp_path: Path) -> None:
    assert len(opened(f"hf:{saved(tmp_path / 'pets', rows('a', 'b'))}", tmp_path)) == 2


def loading(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    """Put ``answer`` in the hub's place; what is asked of it is returned."""
    asked: list[tuple[Any, ...]] = []

    def load_dataset(
        path: str, name: str | None, *, cache_dir: str, download_mode: str | None, trust_remote_code: bool | None = None
    ) -> Any:
        asked.append((path, name, download_mode, trust_remote_code))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_data_set_of_the_hub_is_loaded_by_name_and_runs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = datasets.DatasetDict({"train": rows("a", "b"), "test": rows("a")})
    asked = loading(monkeypatch, parts)
    assert opened("hf:owner/pets:small", tmp_path).splits == ("test", "train", "train")
    open_source(Data(source="hf:mnist"), tmp_path, fresh=True)
    assert asked == [("owner/pets", "small", None, False), ("mnist", None, "force_redownload", False)]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ConnectionError("no route\nto host"), DownloadError, r"could not be fetched from the hub: no route\. Check"),
        (
            datasets.exceptions.DatasetNotFoundError("gone"),
            DataError,
            r"no such data set on the hub, or it needs a token",
        ),
        (ValueError("BuilderConfig 'x' not found"), ConfigurationError, r"hf:pets cannot be loaded: BuilderConfig 'x'"),
        (
            RuntimeError("Dataset scripts are no longer supported"),
            DataError,
            r"hf:pets cannot be loaded: Dataset scripts",
        ),
    ],
)
def test_what_the_hub_does_not_give_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], message: str
) -> None:
    loading(monkeypatch, error)
    with pytest.raises(kind, match=message):
        opened("hf:pets", tmp_path)


@pytest.mark.parametrize(
    "source", ["hf:", "hf:a/b/c", "hf:../x", "hf:a b", "hf:https://host/x", "hf:a:b/c", "hf:/nowhere"]
)
def test_what_is_no_name_on_the_hub_is_refused(source: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name of a"):
        check_source(Data(source=source))


def test_readers_of_the_library_are_no_data_sets(tmp_path: Path) -> None:
    """load_dataset("imagefolder") would read the current folder."""
    with pytest.raises(ConfigurationError, match="imagefolder is a reader of the library, not a data set"):
        opened("hf:imagefolder", tmp_path)


def test_a_worker_may_forbid_the_hub() -> None:
    check_source(Data(source="hf:mnist"), Access(restricted=True))
    with pytest.raises(ConfigurationError):
        check_source(Data(source="hf:mnist"), Access(restricted=True, schemes=("https",)))


def test_a_missing_library_is_named_with_the_way_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "pets", rows("a", "b"))
    monkeypatch.setattr(huggingface.importlib.util, "find_spec", lambda name: None)
    for source in ("hf:mnist", str(path)):
        with pytest.raises(ConfigurationError, match=r"uv pip install -e '.*\[huggingface\]'"):
            check_source(Data(source=source))
