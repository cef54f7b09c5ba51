"""The process that reads for this one: it answers again and again, and whatever it does, this one goes on."""

import os
import signal
import time
from contextlib import closing

import pytest

from emfm.errors import EMError
from emfm.io.guarded import Guarded

GIB = 2**30


def work(what: str, value: float = 0) -> object:
    """What the process is asked to do."""
    if what == "sleep":
        time.sleep(value)
    elif what == "die":
        os._exit(3)
    elif what == "grow":
        return len(bytes(int(value)))
    elif what == "fail":
        raise EMError("x.dm4: no image")
    elif what == "print":
        os.write(1, b"a library prints this\n")
    elif what == "variables":
        return sorted(os.environ)
    return os.getpid()


@pytest.fixture
def guarded():
    with closing(Guarded(work)) as process:
        yield process


def ask(guarded: Guarded, what: str, value: float = 0, seconds: float = 60) -> object:
    return guarded.ask("x.dm4", GIB, seconds, what=what, value=value)


def test_one_process_answers_every_question_and_another_one_after_it_died(guarded):
    first = ask(guarded, "")
    assert first != os.getpid()
    assert ask(guarded, "print") == first
    with pytest.raises(EMError, match=r"^x.dm4: no image$"):
        ask(guarded, "fail")
    assert ask(guarded, "") == first
    with pytest.raises(EMError, match=r"^x.dm4: the file is damaged, or unpacks to more than 1 GiB$"):
        ask(guarded, "die")
    assert ask(guarded, "") != first


def test_a_question_that_takes_too_long_is_given_up(guarded):
    ask(guarded, "")
    started = time.monotonic()
    with pytest.raises(EMError, match=r"^x.dm4: reading took more than 1 s and was stopped$"):
        ask(guarded, "sleep", 60, seconds=1)
    assert time.monotonic() - started < 20
    assert isinstance(ask(guarded, ""), int)


def test_memory_beyond_the_limit_is_refused(guarded):
    pytest.importorskip("resource")
    assert ask(guarded, "grow", GIB // 4) == GIB // 4
    with pytest.raises(EMError, match="unpacks to more than 1 GiB"):
        ask(guarded, "grow", 2 * GIB)


def test_the_process_finds_no_token(guarded, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = ask(guarded, "variables")
    assert "HF_TOKEN" not in found and "PYTHONPATH" in found


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the interruption comes from a timer of POSIX")
def test_a_question_that_was_interrupted_does_not_answer_the_next_one(guarded):
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    first = ask(guarded, "")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            ask(guarded, "sleep", 2)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ask(guarded, "grow", 5) == 5
    assert ask(guarded, "") != first
