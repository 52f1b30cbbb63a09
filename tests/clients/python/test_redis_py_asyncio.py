"""redis-py's Lock, asynchronous, in RESP2 and RESP3."""

import asyncio

import pytest
import redis.asyncio
from redis.exceptions import LockError, LockNotOwnedError

from support import CriticalSection


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
async def connect(request, url):
    clients = []

    def connect(**options):
        clients.append(redis.asyncio.Redis.from_url(url, protocol=request.param, **options))
        return clients[-1]

    yield connect
    for client in clients:
        await client.aclose()


async def test_acquires_and_releases(connect, key):
    client = connect()
    lock = client.lock(key, timeout=10)
    assert await lock.acquire(blocking=False)
    assert await lock.locked() and await lock.owned()
    assert await client.get(key) == lock.local.token
    assert 9_000 < await client.pttl(key) <= 10_000
    await lock.release()
    assert not await lock.locked()


async def test_excludes_another_client(connect, key):
    first, second = connect().lock(key, timeout=10), connect().lock(key, timeout=10)
    assert await first.acquire()
    assert not await second.acquire(blocking=False)
    assert not await second.acquire(blocking_timeout=0.05)
    await first.release()
    assert await second.acquire(blocking=False)
    await second.release()


async def test_many_contend(connect, key):
    section = CriticalSection()

    async def work(client):
        for _ in range(5):
            async with client.lock(key, timeout=30, sleep=0.002):
                await section.visit()

    await asyncio.gather(*(work(connect()) for _ in range(8)))
    assert section.visits == 40


async def test_extends(connect, key):
    client = connect()
    lock = client.lock(key, timeout=10)
    assert await lock.acquire()
    assert await lock.extend(10)
    assert 19_000 < await client.pttl(key) <= 20_000
    assert await lock.extend(5, replace_ttl=True)
    assert 4_000 < await client.pttl(key) <= 5_000
    assert await lock.reacquire()
    assert 9_000 < await client.pttl(key) <= 10_000
    await lock.release()


async def test_refuses_to_release_or_extend_for_another(connect, key):
    client = connect()
    lock = client.lock(key, timeout=10)
    assert await lock.acquire()
    await client.set(key, "someone else")
    with pytest.raises(LockNotOwnedError):
        await lock.extend(10)
    with pytest.raises(LockNotOwnedError):
        await lock.release()
    assert await client.get(key) == b"someone else"


async def test_expires(connect, key):
    lock = connect().lock(key, timeout=0.1)
    assert await lock.acquire()
    successor = connect().lock(key, timeout=10, sleep=0.005)
    assert await successor.acquire(blocking_timeout=5)
    with pytest.raises(LockNotOwnedError):
        await lock.release()
    assert await successor.owned()
    await successor.release()


async def test_waits_for_a_release(connect, key):
    holder, waiter = connect().lock(key, timeout=30), connect().lock(key, timeout=30, sleep=0.005)
    assert await holder.acquire()
    waited = asyncio.create_task(waiter.acquire(blocking_timeout=10))
    await connect().ping()
    assert not waited.done()
    await holder.release()
    assert await waited
    await waiter.release()


async def test_is_a_context_manager(connect, key):
    async with connect().lock(key, timeout=10) as lock:
        assert await lock.owned()
        with pytest.raises(LockError):
            async with connect().lock(key, timeout=10, blocking_timeout=0.02):
                raise AssertionError("two hold the lock at the same time")
    assert not await lock.locked()


async def test_raises_what_it_documents(connect, key):
    lock = connect().lock(key)
    with pytest.raises(LockError, match="unlocked"):
        await lock.release()
    assert await lock.acquire()
    with pytest.raises(LockError, match="no timeout"):
        await lock.extend(1)
    await lock.release()
