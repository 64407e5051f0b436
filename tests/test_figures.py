"""Figures are whole PNG files of sensible size, show what they are given, and take every edge case."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib import rcParams
from PIL import Image

from recognition import figures, galleries

Pixels = npt.NDArray[np.uint8]
Reader = Callable[[npt.NDArray[np.int64]], Pixels]


def pixels_of(path: Path) -> Pixels:
    """Decode the PNG wholly; 150 to 3000 pixels across and 600 kB at most are what a browser shows at once."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert 150 <= image.width <= 3000
        assert 80 <= image.height <= 3000
        pixels = np.asarray(image.convert("RGB"))
    assert path.stat().st_size < 600_000
    return pixels


def colours_of(pixels: Pixels) -> set[tuple[int, ...]]:
    return set(map(tuple, np.unique(pixels.reshape(-1, 3), axis=0).tolist()))


def digest_of(path: Path) -> str:
    return hashlib.sha256(pixels_of(path).tobytes()).hexdigest()


def predictions_for(num_classes: int, count: int = 400) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    generator = np.random.default_rng(num_classes)
    labels = generator.integers(0, num_classes, count)
    exponentials = np.exp(generator.normal(size=(count, num_classes)) + 3 * np.eye(num_classes)[labels])
    return labels, exponentials / exponentials.sum(axis=1, keepdims=True)


def names_of(num_classes: int) -> list[str]:
    return [f"class {index}" for index in range(num_classes)]


@pytest.mark.parametrize("num_classes", [2, 20, 100])
def test_confusion_matrix_is_drawn_for_few_and_many_classes(tmp_path: Path, num_classes: int) -> None:
    generator = np.random.default_rng(0)
    matrix = generator.integers(0, 3, (num_classes, num_classes)) + 50 * np.eye(num_classes, dtype=np.int64)
    figures.confusion_matrix(matrix, names_of(num_classes), tmp_path / "confusion.png")
    pixels_of(tmp_path / "confusion.png")


def test_confusion_matrix_is_blue_where_right_and_red_where_wrong(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.png", tmp_path / "wrong.png"
    figures.confusion_matrix(np.array([[9, 0], [0, 9]]), ["a", "b"], right)
    figures.confusion_matrix(np.array([[0, 9], [9, 0]]), ["a", "b"], wrong)

    def more_blue_than_red(path: Path) -> int:
        pixels = pixels_of(path).astype(int)
        return int((pixels[..., 2] > pixels[..., 0] + 80).sum() - (pixels[..., 0] > pixels[..., 2] + 80).sum())

    assert more_blue_than_red(right) > 10_000
    assert more_blue_than_red(wrong) < -10_000


def test_confusion_matrix_colours_rows_by_share_not_by_count(tmp_path: Path) -> None:
    # With text of the same length, a rare class that is always right looks like a frequent one.
    figures.confusion_matrix(np.array([[10, 0], [0, 90]]), ["a", "b"], tmp_path / "confusion.png")
    pixels = pixels_of(tmp_path / "confusion.png")
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    dark = counts[(colours.sum(axis=1) < 300) & (counts > 5_000)]
    assert len(dark) == 1, "both cells of the diagonal have one colour"


def test_confusion_matrix_takes_an_empty_row_and_names_of_any_kind(tmp_path: Path) -> None:
    names = ["$5 and $10", "猫", "a very long name of a class that nobody will ever read to its end"]
    figures.confusion_matrix(np.array([[0, 0, 0], [1, 12_345, 0], [0, 2, 3]]), names, tmp_path / "confusion.png")
    pixels_of(tmp_path / "confusion.png")


def test_confusion_matrix_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\) does not fit 3"):
        figures.confusion_matrix(np.zeros((2, 2), dtype=np.int64), names_of(3), tmp_path / "confusion.png")
    with pytest.raises(ValueError, match="negative"):
        figures.confusion_matrix(np.array([[1, -1], [0, 1]]), names_of(2), tmp_path / "confusion.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_classes", [2, 30])
def test_curves_are_drawn_for_few_and_many_classes(tmp_path: Path, num_classes: int) -> None:
    labels, probabilities = predictions_for(num_classes)
    figures.precision_recall_curves(labels, probabilities, names_of(num_classes), tmp_path / "new" / "pr.png")
    figures.roc_curves(labels, probabilities, names_of(num_classes), tmp_path / "new" / "roc.png")
    pixels_of(tmp_path / "new" / "pr.png")
    pixels_of(tmp_path / "new" / "roc.png")


def test_curves_of_one_class_and_of_absent_classes_are_no_error(tmp_path: Path) -> None:
    labels, probabilities = predictions_for(4)
    kept = labels != 3
    figures.roc_curves(labels[kept], probabilities[kept], names_of(4), tmp_path / "absent.png")
    figures.precision_recall_curves(labels[kept], probabilities[kept], names_of(4), tmp_path / "absent_pr.png")
    only = labels == 1
    figures.roc_curves(labels[only], probabilities[only], names_of(4), tmp_path / "one.png")
    figures.precision_recall_curves(labels[only], probabilities[only], names_of(4), tmp_path / "one_pr.png")
    assert len({digest_of(path) for path in tmp_path.iterdir()}) == 4


def test_curves_refuse_what_scores_refuse(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sum to"):
        figures.roc_curves(np.array([0, 1]), np.full((2, 2), 0.9), names_of(2), tmp_path / "roc.png")


HISTORY = {"train/loss": [1.0, 0.5, 0.4], "val/loss": [1.1, 0.6, 0.7], "val/accuracy": [0.5, 0.8, 0.79]}


@pytest.mark.parametrize(
    "history",
    [
        HISTORY,
        {key: values[:1] for key, values in HISTORY.items()},
        {"train/loss": [1.0, 0.5]},
        {"val/accuracy": [0.1, 0.2]},
        {
            **HISTORY,
            "val/loss": [float("nan"), 0.6, float("nan")],
            "val/f1_macro": [],
            "epoch/learning_rate": [1e-3] * 3,
        },
        {},
        {"train/loss": [float("nan")]},
    ],
    ids=["usual", "one epoch", "no validation", "no loss", "gaps", "nothing", "only NaN"],
)
def test_learning_curves_take_any_history(tmp_path: Path, history: dict[str, list[float]]) -> None:
    figures.learning_curves(history, tmp_path / "learning.png")
    pixels_of(tmp_path / "learning.png")


def test_best_epoch_is_that_of_the_lowest_validation_loss(tmp_path: Path) -> None:
    figures.learning_curves(HISTORY, tmp_path / "found.png")
    for epoch in (1, 2):
        figures.learning_curves(HISTORY, tmp_path / f"{epoch}.png", best_epoch=epoch)
    found = digest_of(tmp_path / "found.png")
    assert [digest_of(tmp_path / f"{epoch}.png") == found for epoch in (1, 2)] == [True, False]
    with pytest.raises(ValueError, match="best_epoch is 3; the history holds epochs 0 to 2"):
        figures.learning_curves(HISTORY, tmp_path / "wrong.png", best_epoch=3)


def test_learning_rates_are_no_scores(tmp_path: Path) -> None:
    figures.learning_curves(HISTORY, tmp_path / "without.png")
    figures.learning_curves({**HISTORY, "epoch/learning_rate": [0.1, 0.2, 0.1]}, tmp_path / "with.png")
    assert digest_of(tmp_path / "without.png") == digest_of(tmp_path / "with.png")


# One flat colour an image, so that a picture's colours say which images it shows.
FLAT_COLOURS = [(250, 10, 200), (10, 250, 200), (200, 250, 10), (10, 100, 250), (250, 100, 10), (90, 10, 250)]
FLAT_IMAGES = np.array(FLAT_COLOURS, dtype=np.uint8)[:, None, None, :].repeat(8, axis=1).repeat(8, axis=2)


def draw_mistakes(path: Path, predictions: list[int], count: int, images: Pixels | Reader = FLAT_IMAGES) -> Pixels:
    confidences = np.array([0.9, 0.6, 0.8, 0.99, 0.7, 0.5])
    labels = np.zeros(6, dtype=np.int64)
    ids = [f"folder/{index}.png" for index in range(6)]
    galleries.most_confident_mistakes(images, labels, np.array(predictions), confidences, ["a", "b"], ids, count, path)
    return pixels_of(path)


def test_mistakes_show_the_wrong_images_of_highest_confidence_only(tmp_path: Path) -> None:
    # Wrong are 0 (0.9), 1 (0.6), 2 (0.8) and 4 (0.7); 3 is surest, but right.
    shown = colours_of(draw_mistakes(tmp_path / "mistakes.png", [1, 1, 1, 0, 1, 0], count=2))
    assert [colour in shown for colour in FLAT_COLOURS] == [True, False, True, False, False, False]


def test_mistakes_are_ordered_by_confidence(tmp_path: Path) -> None:
    pixels = draw_mistakes(tmp_path / "mistakes.png", [1, 1, 1, 0, 1, 0], count=4)
    positions = [tuple(np.argwhere((pixels == FLAT_COLOURS[index]).all(axis=2))[0]) for index in (0, 2, 4, 1)]
    assert len({row for row, _ in positions}) == 1
    assert positions == sorted(positions, key=lambda position: position[1])


def test_mistakes_read_no_more_images_than_they_show(tmp_path: Path) -> None:
    asked: list[list[int]] = []

    def read(positions: npt.NDArray[np.int64]) -> Pixels:
        asked.append(positions.tolist())
        return FLAT_IMAGES[positions]

    from_function = draw_mistakes(tmp_path / "function.png", [1, 1, 1, 0, 1, 0], 2, read)
    assert asked == [[0, 2]]
    assert (from_function == draw_mistakes(tmp_path / "array.png", [1, 1, 1, 0, 1, 0], 2)).all()


def test_small_images_are_enlarged_without_blur(tmp_path: Path) -> None:
    board = np.zeros((6, 8, 8, 3), dtype=np.uint8)
    board[:, ::2, ::2] = (10, 250, 200)
    pixels = draw_mistakes(tmp_path / "mistakes.png", [1, 0, 0, 0, 0, 0], count=1, images=board)
    greenish = np.abs(pixels.astype(int) - (10, 250, 200)).sum(axis=2) < 200
    assert greenish.sum() > 1_000
    # Only where a tile meets the frame do colours mix.
    assert (pixels[greenish] == (10, 250, 200)).all(axis=1).mean() > 0.97


@pytest.mark.parametrize("size", [(8, 8, 1), (28, 20, 3), (200, 220, 1)])
def test_mistakes_take_gray_small_and_oblong_images(tmp_path: Path, size: tuple[int, int, int]) -> None:
    images = np.tile(np.linspace(0, 255, size[1], dtype=np.uint8)[None, None, :, None], (6, size[0], 1, size[2]))
    draw_mistakes(tmp_path / "mistakes.png", [1] * 6, count=16, images=images)


def test_a_figure_says_that_there_are_no_mistakes(tmp_path: Path) -> None:
    shown = colours_of(draw_mistakes(tmp_path / "mistakes.png", [0] * 6, count=16))
    assert not shown & set(FLAT_COLOURS)
    assert len(shown) > 2, "there is text"


def test_mistakes_refuse_other_images_counts_and_lengths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count is 0"):
        draw_mistakes(tmp_path / "mistakes.png", [1] * 6, count=0)
    with pytest.raises(ValueError, match=r"uint8 of shape \(1, 3, 8, 8\)"):
        draw_mistakes(tmp_path / "mistakes.png", [1] * 6, count=1, images=FLAT_IMAGES.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match="5 predictions"):
        draw_mistakes(tmp_path / "mistakes.png", [1] * 5, count=1)


def test_preview_shows_every_original_above_its_augmented_image(tmp_path: Path) -> None:
    augmented = FLAT_IMAGES[[1, 0, 3, 2, 5, 4]][:, :6]
    galleries.preview_grid(FLAT_IMAGES, augmented, tmp_path / "preview.png", names_of(6))
    pixels = pixels_of(tmp_path / "preview.png")
    for index, colour in enumerate(FLAT_COLOURS):
        rows, columns = np.nonzero((pixels == colour).all(axis=2))
        above, below = rows < len(pixels) / 2, rows > len(pixels) / 2
        assert above.sum() > 500
        assert below.sum() > 500
        places = np.array([columns[above].mean(), columns[below].mean()]) / pixels.shape[1] * 6
        neighbour = index + 1 if index % 2 == 0 else index - 1
        assert places.astype(int).tolist() == [index, neighbour]


@pytest.mark.parametrize("count", [1, 9])
def test_preview_takes_one_and_many_gray_images(tmp_path: Path, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    galleries.preview_grid(images, images[:, ::-1], tmp_path / "preview.png")
    pixels_of(tmp_path / "preview.png")


def test_preview_refuses_numbers_that_differ(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="6 originals, 5 augmented images"):
        galleries.preview_grid(FLAT_IMAGES, FLAT_IMAGES[:5], tmp_path / "preview.png")
    with pytest.raises(ValueError, match="2 titles"):
        galleries.preview_grid(FLAT_IMAGES, FLAT_IMAGES, tmp_path / "preview.png", ["a", "b"])


def test_drawing_leaves_no_global_state_and_repeats_to_the_byte(tmp_path: Path) -> None:
    before = dict(rcParams)
    for name in ("first.png", "second.png"):
        figures.learning_curves(HISTORY, tmp_path / name)
    assert dict(rcParams) == before
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
