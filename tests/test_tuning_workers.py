"""Workers that stay: a fault costs one request, never the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge.tuning.workers import Fault, Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("tests.faulty.request")
    yield worker
    worker.close()


def test_a_worker_answers_one_request_after_the_other_and_is_the_same_process(worker: Worker) -> None:
    (first, one), (second, two) = worker.ask("one", 60), worker.ask({"a": [2, 1.5]}, 60)
    assert (one, two) == ("one", {"a": [2, 1.5]})
    assert first == second


def test_a_request_that_raises_is_a_fault_and_the_worker_goes_on(worker: Worker) -> None:
    (before, _) = worker.ask("before", 60)
    with pytest.raises(Fault, match=r"^ValueError: at all$"):
        worker.ask("raise", 60)
    assert worker.ask("after", 60) == [before, "after"]


def test_a_request_that_kills_its_worker_or_never_ends_is_a_fault_and_the_next_gets_another(worker: Worker) -> None:
    processes = [worker.ask("before", 60)[0]]
    for request, reason in (("die", "died with SIGSEGV"), ("hang", "within 1 s")):
        with pytest.raises(Fault, match=reason):
            worker.ask(request, 1)
        processes.append(worker.ask("after", 60)[0])
    assert len(set(processes)) == 3
