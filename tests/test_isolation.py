"""Stages in processes of their own: results, events, the user's mistakes, defects, deaths."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

import pytest

from recognition.errors import DataError, StageError, StorageError
from recognition.events import Emit, Event, Message, Progress
from tasks.isolation import run_isolated

HERE = "test_isolation"


def add(first: int, second: int, *, emit: Emit) -> int:
    emit(Progress("add", 1, 1, "sums"))
    return first + second


def describe(*, emit: Emit) -> dict[str, object]:
    import logging

    logging.getLogger("recognition").warning("said by the stage")
    return {
        "pid": os.getpid(),
        "prefect": "prefect" in sys.modules,
        "torch": "torch" in sys.modules,
        "home": os.environ.get("RECOGNITION_HOME"),
        "main": sys.modules["__main__"].__name__,
    }


def refuse(*, emit: Emit) -> None:
    raise DataError("no images in there")


def break_down(*, emit: Emit) -> None:
    raise ZeroDivisionError("a defect")


def fill_the_disk(*, emit: Emit) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die(*, emit: Emit) -> None:
    os.kill(os.getpid(), 9)


def leave(*, emit: Emit) -> None:
    os._exit(3)


def loiter(path: str, *, emit: Emit) -> None:
    Path(path).write_text(str(os.getpid()))
    emit(Progress("loiter", 0, 1, "naps"))
    time.sleep(300)


def rank(*, emit: Emit) -> tuple[str, str]:
    if os.environ["RANK"] != "0":
        emit(Progress("rank", 1, 1, "others"))
    return os.environ["RANK"], os.environ["WORLD_SIZE"]


def fail_on_rank_1(*, emit: Emit) -> None:
    if os.environ["RANK"] == "1":
        raise DataError("rank 1 has no images")
    time.sleep(300)


@pytest.fixture(autouse=True)
def stages_can_import_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes get this process's sys.path; tests are on it by pytest's doing."""
    assert str(Path(__file__).parent) in sys.path


def test_a_stage_returns_its_result_and_its_events() -> None:
    events: list[Event] = []
    assert run_isolated(f"{HERE}:add", 2, 3, on_event=events.append) == 5
    assert events == [Progress("add", 1, 1, "sums")]


def test_a_stage_has_torch_at_hand_and_never_saw_prefect(state: Path) -> None:
    import prefect

    events: list[Event] = []
    found = run_isolated(f"{HERE}:describe", on_event=events.append)
    assert prefect is not None
    assert found["pid"] != os.getpid()
    assert (found["prefect"], found["torch"]) == (False, True)
    assert found["home"] == str(state)
    assert events == [Message(30, "said by the stage")]


def test_a_users_mistake_arrives_as_itself() -> None:
    with pytest.raises(DataError, match="no images in there"):
        run_isolated(f"{HERE}:refuse")


def test_a_defect_arrives_with_its_traceback() -> None:
    with pytest.raises(StageError, match="ZeroDivisionError: a defect"):
        run_isolated(f"{HERE}:break_down")


def test_a_full_disk_is_a_message_that_names_the_state_folder(state: Path) -> None:
    with pytest.raises(StorageError, match=f"{state} cannot be written: no space is left"):
        run_isolated(f"{HERE}:fill_the_disk")


def test_a_killed_stage_is_said_to_be_killed_and_what_to_try() -> None:
    with pytest.raises(StageError, match=r"killed \(signal 9\).*batch_size"):
        run_isolated(f"{HERE}:die")


def test_a_stage_that_leaves_without_a_result_is_an_error() -> None:
    with pytest.raises(StageError, match="ended with code 3"):
        run_isolated(f"{HERE}:leave")


def test_an_interrupted_stage_is_ended(tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_isolated(f"{HERE}:loiter", str(tmp_path / "pid"), on_event=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_several_ranks_join_one_job_and_rank_0_answers() -> None:
    events: list[Event] = []
    assert run_isolated(f"{HERE}:rank", processes=3, on_event=events.append) == ("0", "3")
    assert len(events) == 2


def test_a_mistake_on_one_rank_ends_the_others() -> None:
    with pytest.raises(DataError, match="rank 1 has no images"):
        run_isolated(f"{HERE}:fail_on_rank_1", processes=2)
