"""pottery's Redlock, AIORedlock and NextID over three servers."""

import asyncio

import pytest
import redis
import redis.asyncio
from pottery import (
    AIORedlock,
    ExtendUnlockedLock,
    NextID,
    QuorumIsImpossible,
    QuorumNotAchieved,
    Redlock,
    ReleaseUnlockedLock,
    TooManyExtensions,
    synchronize,
)

from support import CriticalSection, contend, eventually


@pytest.fixture
def masters(urls):
    return {redis.Redis.from_url(url) for url in urls}


def test_acquires_and_releases(masters, key):
    lock = Redlock(key=key, masters=masters, auto_release_time=10)
    assert not lock.locked()
    assert lock.acquire(blocking=False)
    assert 9 < lock.locked() < 10
    assert all(master.exists(f"redlock:{key}") for master in masters)
    lock.release()
    assert not lock.locked()


def test_excludes_another_client(masters, key):
    first, second = (Redlock(key=key, masters=masters, auto_release_time=10) for _ in range(2))
    assert first.acquire()
    assert not second.acquire(blocking=False)
    assert not second.acquire(timeout=0.1)
    assert not second.locked()
    first.release()
    assert second.acquire(blocking=False)
    second.release()


def test_many_contend(urls, key):
    section = CriticalSection()

    def work(masters):
        for _ in range(3):
            with Redlock(key=key, masters=masters, auto_release_time=30):
                with section:
                    pass

    contend([{redis.Redis.from_url(url) for url in urls} for _ in range(4)], work)
    assert section.visits == 12


def test_extends(masters, key):
    lock = Redlock(key=key, masters=masters, auto_release_time=10, num_extensions=1)
    assert lock.acquire()
    for master in masters:
        master.pexpire(f"redlock:{key}", 5_000)
    assert lock.locked() < 5
    lock.extend()
    # It returns when a majority has extended, and the third server may be a moment behind.
    eventually(lambda: 9 < lock.locked() < 10)
    with pytest.raises(TooManyExtensions):
        lock.extend()
    lock.release()


def test_refuses_to_release_for_another(masters, key):
    owner, other = (Redlock(key=key, masters=masters, auto_release_time=10) for _ in range(2))
    assert owner.acquire()
    with pytest.raises(ReleaseUnlockedLock):
        other.release()
    with pytest.raises(ExtendUnlockedLock):
        other.extend()
    assert owner.locked()


def test_expires(masters, key):
    lock = Redlock(key=key, masters=masters, auto_release_time=0.5)
    assert lock.acquire()
    successor = Redlock(key=key, masters=masters)
    assert successor.acquire(timeout=5)
    assert not lock.locked()
    with pytest.raises(ReleaseUnlockedLock):
        lock.release()
    successor.release()


def test_is_a_context_manager(masters, key):
    with Redlock(key=key, masters=masters) as lock:
        assert lock.locked()
        with pytest.raises(QuorumNotAchieved):
            with Redlock(key=key, masters=masters, context_manager_blocking=False):
                raise AssertionError("two hold the lock at the same time")
    assert not lock.locked()


def test_synchronizes_a_function(masters, key):
    section = CriticalSection()

    @synchronize(key=key, masters=masters, auto_release_time=30)
    def visit():
        with section:
            pass

    contend(range(4), lambda _: visit())
    assert section.visits == 4


def test_a_minority_may_be_down(urls, key):
    masters = {redis.Redis.from_url(url) for url in [*urls[:2], "redis://127.0.0.1:1"]}
    with Redlock(key=key, masters=masters) as lock:
        assert lock.locked()


def test_a_majority_may_not_be_down(url, key):
    down = ["redis://127.0.0.1:1", "redis://127.0.0.1:2"]
    masters = {redis.Redis.from_url(each) for each in [url, *down]}
    with pytest.raises(QuorumIsImpossible):
        Redlock(key=key, masters=masters, raise_on_redis_errors=True).acquire(blocking=False)
    eventually(lambda: not redis.Redis.from_url(url).exists(f"redlock:{key}"))


def test_ids_are_unique_and_grow(urls, key):
    ids = []

    def work(masters):
        generator = NextID(key=key, masters=masters, num_tries=100)
        ids.extend(next(generator) for _ in range(5))

    contend([{redis.Redis.from_url(url) for url in urls} for _ in range(2)], work)
    assert len(set(ids)) == 10


async def test_works_with_asyncio(urls, key):
    section = CriticalSection()

    async def work():
        masters = {redis.asyncio.Redis.from_url(url) for url in urls}
        for _ in range(3):
            async with AIORedlock(key=key, masters=masters, auto_release_time=30) as lock:
                assert await lock.locked()
                await lock.extend()
                await section.visit()
        for master in masters:
            await master.aclose()

    await asyncio.gather(*(work() for _ in range(4)))
    assert section.visits == 12
