"""Comparing runs: settings that differ, scores side by side, flipped images, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT, House

from recognition import comparison, tracking
from recognition.comparison import flipped
from recognition.comparison_report import as_markdown
from recognition.errors import ComparisonError, ModelError, TrackingError

DIGEST = "ab" * 32


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A tracking store that the tests of this module share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOGNITION_HOME", str(tmp_path_factory.mktemp("compared")))
        yield


def run_of(
    folder: Path,
    answers: Mapping[str, str] | None = None,
    status: str = "FINISHED",
    task: str = "classification",
    digest: str = DIGEST,
    learning_rate: str = "0.002",
) -> str:
    """A run as the pipeline leaves it, with three test images, all of class "a"; its answers by file."""
    client = tracking.client()
    found = client.get_experiment_by_name("compared")
    place = found.experiment_id if found else client.create_experiment("compared", (folder / "artifacts").as_uri())
    tags = {"task": task, "data.test_digest": digest, "failure": "" if status == "FINISHED" else "DataError: no images"}
    run_id = str(client.create_run(place, tags=tags, run_name="three").info.run_id)
    tracking.log_parameters(
        run_id,
        {
            "name": run_id[:4],
            "training.learning_rate": learning_rate,
            "training.epochs": "4",
            "model.network": "auto",
            "resolved.model.network": "cnn",
        },
    )
    if answers is not None:
        right = sum(answer == "a" for answer in answers.values()) / len(answers)
        tracking.log_metrics(run_id, {"test/accuracy": right, "test/f1_macro": right, "test/f1/a": right})
        table = pd.DataFrame({"sample_id": list(answers), "correct": [answer == "a" for answer in answers.values()]})
        (folder / "predictions.parquet").write_bytes(table.to_parquet(index=False))
        tracking.log_file(run_id, folder / "predictions.parquet", "evaluation")
    client.set_terminated(run_id, status)
    return run_id


def test_settings_scores_classes_and_flips_of_two_runs(store: None, tmp_path: Path) -> None:
    first = run_of(tmp_path, {"1.png": "a", "2.png": "a", "3.png": "b"})
    second = run_of(tmp_path, {"1.png": "b", "2.png": "a", "3.png": "a"}, learning_rate="0.01")
    third = run_of(tmp_path, {"3.png": "a", "2.png": "a", "1.png": "a"})
    found = comparison.compare([first, second, third])
    # the name is no setting, and the same in all is not told
    assert found.settings == {"training.learning_rate": {first: "0.002", second: "0.01", third: "0.002"}}
    assert list(found.scores) == ["f1_macro", "accuracy"]
    assert found.best["accuracy"] == (third,)
    assert [run.run_id for run in found.winners] == [third]
    content = found.as_dict()
    assert content["differences"]["accuracy"]["estimate"] == 0
    assert (content["flips"]["right_to_wrong"], content["flips"]["wrong_to_right"]) == (1, 1)
    to_third = found.pairs[1]
    assert to_third.classes["a"].estimate == pytest.approx(1 / 3)
    assert to_third.flips is not None
    assert to_third.flips.files_wrong_to_right == ("3.png",)
    json.dumps(content)


def test_the_page_names_the_best_the_settings_and_the_flipped_files(store: None, tmp_path: Path) -> None:
    first = run_of(tmp_path, {"1|x.png": "a", "2.png": "b"})
    second = run_of(tmp_path, {"1|x.png": "b", "2.png": "b"}, learning_rate="0.01")
    page = as_markdown(comparison.compare([first, second]))
    assert f"**three** (`{first[:8]}`) is best by f1_macro: 0.5000; the next one has 0.0000." in page
    assert "| training.learning\\_rate" not in page
    assert "| training.learning_rate | 0.002 | 0.01 |" in page
    # a file's name is no border of a table
    assert "| 2 | 1 | 0 | worse: 1\\|x.png |" in page


def test_equal_runs_are_equally_best(store: None, tmp_path: Path) -> None:
    runs = [run_of(tmp_path, {"1.png": "a"}) for _ in range(2)]
    page = as_markdown(comparison.compare(runs))
    assert "are equally best by f1_macro: 1.0000." in page
    assert "Nothing: settings, data, device and code are the same." in page


def test_files_of_other_names_are_not_called_flipped(tmp_path: Path) -> None:
    for name, files in (("old", ["1", "2"]), ("new", ["1", "3"])):
        pd.DataFrame({"sample_id": files, "correct": [True, False]}).to_parquet(tmp_path / name, index=False)
    assert flipped(tmp_path / "old", tmp_path / "new") is None


def test_what_cannot_be_compared_is_refused_by_name(store: None, tmp_path: Path) -> None:
    good = run_of(tmp_path, {"1.png": "a"})
    refused = {
        run_of(tmp_path, status="FAILED"): "it is FAILED (DataError: no images), not FINISHED",
        run_of(tmp_path): "it holds no test scores",
        run_of(tmp_path, {"1.png": "a"}, digest="cd" * 32): "it was scored on other test images (cdcdcdcdcdcd",
    }
    without_predictions = run_of(tmp_path)
    tracking.log_metrics(without_predictions, {"test/accuracy": 1.0, "test/f1_macro": 1.0})
    refused[without_predictions] = "it holds no evaluation/predictions.parquet"
    of_another_task = run_of(tmp_path, task="segmentation")
    tracking.log_metrics(of_another_task, {"test/dice_macro": 1.0})
    refused[of_another_task] = "it is of another task (segmentation, not classification)"
    for run_id, reason in refused.items():
        with pytest.raises(ComparisonError) as said:
            comparison.compare([good, run_id])
        assert run_id in str(said.value)
        assert reason in str(said.value)
        assert "\n" not in str(said.value)


def test_too_few_runs_unknown_ids_and_two_choices_are_refused(store: None, tmp_path: Path) -> None:
    good = run_of(tmp_path, {"1.png": "a"})
    with pytest.raises(ComparisonError, match="Only 1 run to compare"):
        comparison.compare([good, good])
    with pytest.raises(TrackingError, match="There is no run 0000"):
        comparison.compare([good, "0" * 32])
    with pytest.raises(ModelError, match="There is no model nosuch"):
        comparison.compare([good, "nosuch"])
    with pytest.raises(ModelError, match="There is no model 'nosuch'"):
        comparison.find([], "nosuch", "", 5)
    with pytest.raises(TrackingError, match="There is no MLflow experiment 'nosuch'"):
        comparison.find([], "", "nosuch", 5)
    with pytest.raises(ComparisonError, match="one of them"):
        comparison.find([good], "digits", "", 5)


def test_of_an_experiment_the_newest_alike_are_compared_and_the_others_named(store: None, tmp_path: Path) -> None:
    older = run_of(tmp_path, {"1.png": "a"}, digest="ef" * 32)
    other = run_of(tmp_path, {"1.png": "a"}, digest="01" * 32)
    newest = run_of(tmp_path, {"1.png": "b"}, digest="ef" * 32)
    found = comparison.compare_newest("compared", 3)
    assert [run.run_id for run in found.runs] == [older, newest]
    assert list(found.left_out) == [other]
    assert f"- `{other}`: it was scored on other test images" in as_markdown(found)


@pytest.mark.server
def test_the_command_compares_two_real_runs(house: House, trained: dict[str, Any]) -> None:
    other = house.json(
        "train",
        str(ROOT / "experiments" / "digits_cnn.yaml"),
        "training.epochs=1",
        "registration.model_name=compared",
    )
    found = house.json("compare", trained["run_id"], other["run_id"])
    assert found["settings"]["training.epochs"] == {trained["run_id"]: "2", other["run_id"]: "1"}
    assert found["runs"][1]["model"] == "models:/compared/1"
    difference = other["metrics"]["test/accuracy"] - trained["metrics"]["test/accuracy"]
    assert found["differences"]["accuracy"]["estimate"] == pytest.approx(difference)
    # the images that flipped are the difference in accuracy
    flips = found["flips"]
    images = trained["metrics"]["data/test_images"]
    assert (flips["wrong_to_right"] - flips["right_to_wrong"]) / images == pytest.approx(difference)
    refused = house.run("compare", trained["run_id"], "0" * 32)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: There is no run {'0' * 32} in ")
