"""Fixtures. Everything a test starts is stopped when it ends."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from harness import Millrace, Redis, Scripted  # noqa: E402
from nameserver import NameServer  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: measures memory, CPU or time, or needs the whole "
                            "machine; ./dev runs it with no other test beside it")


@pytest.fixture(scope="session")
def shared_redis():
    """Four real servers for tests that only read and write keys."""
    servers = [Redis() for _ in range(4)]
    yield servers
    for s in servers:
        s.kill()


@pytest.fixture
def redis4(shared_redis):
    for s in shared_redis:
        assert s.ask("FLUSHALL") == b"+OK"
    return shared_redis


@pytest.fixture
def redis1(redis4):
    return redis4[0]


@pytest.fixture
def names(start):
    return start(NameServer)


@pytest.fixture
def start():
    """start(Millrace, ...), start(Redis, ...), start(Scripted, ...): stopped at the end."""
    started = []

    def make(kind, *args, **kwargs):
        thing = kind(*args, **kwargs)
        started.append(thing)
        return thing

    yield make
    trouble = []
    for thing in reversed(started):
        try:
            if isinstance(thing, Millrace):
                thing.stop()
            elif isinstance(thing, Scripted):
                thing.close()
            elif thing.alive():
                thing.kill()
        except Exception as e:  # the others must end anyway
            trouble.append(e)
    if trouble:
        raise trouble[0]
