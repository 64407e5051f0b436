"""The promotion rule, and models that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from recognition import registry, tracking
from recognition.errors import ModelError, TrackingError


def test_the_first_version_becomes_champion() -> None:
    assert registry.judge(0.1, "f1_macro", 0.0, "test", None).promote


@pytest.mark.parametrize(
    ("score", "gain", "promoted"),
    [
        (0.90, 0.0, True),
        (0.8999, 0.0, False),
        (0.95, 0.0, True),
        (0.90, 0.01, False),
        (0.91, 0.01, True),
        (0.89, -0.02, True),
    ],
)
def test_a_challenger_needs_the_champions_score_plus_the_minimum_gain(
    score: float, gain: float, promoted: bool
) -> None:
    assert registry.judge(score, "f1_macro", gain, "test", (0.90, "test")).promote is promoted


def test_scores_on_other_test_images_are_not_compared() -> None:
    verdict = registry.judge(1.0, "f1_macro", 0.0, "test", (0.5, "another"))
    assert not verdict.promote
    assert "other test images" in verdict.reason


def test_a_model_that_is_not_registered_is_named_with_those_that_are(state: Path) -> None:
    tracking.client().create_registered_model("cats")
    for ask in (registry.fetch_bundle, registry.run_of):
        with pytest.raises(ModelError, match=r"no model models:/dogs@champion.*Registered here: cats"):
            ask("models:/dogs@champion")
    with pytest.raises(ModelError, match="no model dogs "):
        registry.fetch_bundle("dogs")


def test_a_run_that_does_not_exist_is_refused_by_its_id(state: Path) -> None:
    with pytest.raises(TrackingError, match="no run " + "a" * 32):
        registry.fetch_bundle("a" * 32)


def test_a_run_without_a_model_says_so(state: Path) -> None:
    store = tracking.client()
    run_id = store.create_run(store.create_experiment("empty")).info.run_id
    with pytest.raises(ModelError, match="ended before registration"):
        registry.fetch_bundle(run_id)


def test_a_bundle_is_found_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    assert registry.fetch_bundle(str(tmp_path)) == tmp_path
