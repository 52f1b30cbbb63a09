"""aioredlock over three servers, through aioredis 1."""

import asyncio

import pytest
import redis
from aioredlock import Aioredlock, LockAcquiringError, LockError

from support import CriticalSection, eventually


@pytest.fixture
async def manager(urls):
    managers = []

    def manager(servers=urls, **options):
        options = {"retry_count": 1, **options}
        managers.append(Aioredlock(servers, **options))
        return managers[-1]

    yield manager
    for each in managers:
        await each.destroy()


async def test_acquires_and_releases(manager, urls, key):
    locks = manager()
    lock = await locks.lock(key, lock_timeout=10)
    assert lock.valid and await lock.is_locked()
    assert await locks.get_active_locks() == [lock]
    for url in urls:
        assert redis.Redis.from_url(url).get(key) == lock.id.encode()
    await lock.release()
    assert not lock.valid and not await locks.is_locked(key)


async def test_excludes_another_client(manager, key):
    lock = await manager().lock(key, lock_timeout=10)
    other = manager()
    with pytest.raises(LockAcquiringError):
        await other.lock(key, lock_timeout=10)
    await lock.release()
    assert await other.lock(key, lock_timeout=10)


async def test_many_contend(manager, url, key):
    # Between its attempts, a client keeps the servers that it won. With three servers, three
    # clients can each keep one until the locks expire, so here they contend for one server.
    section = CriticalSection()

    async def work(locks):
        for _ in range(3):
            async with await locks.lock(key, lock_timeout=30):
                await section.visit()

    options = {"retry_count": 5_000, "retry_delay_min": 0.001, "retry_delay_max": 0.01}
    await asyncio.gather(*(work(manager([url], **options)) for _ in range(5)))
    assert section.visits == 15


async def test_extends(manager, url, key):
    lock = await manager().lock(key, lock_timeout=5)
    await lock.lock_manager.extend(lock, lock_timeout=20)
    assert 19_000 < redis.Redis.from_url(url).pttl(key) <= 20_000


async def test_renews_by_itself(manager, url, key):
    client = redis.Redis.from_url(url)
    lock = await manager(internal_lock_timeout=1).lock(key)
    deadline = asyncio.get_running_loop().time() + 1.5
    while asyncio.get_running_loop().time() < deadline:
        assert client.get(key) == lock.id.encode()
        await asyncio.sleep(0.02)
    await lock.release()
    assert not client.exists(key)


async def test_refuses_to_release_for_another(manager, url, key):
    lock = await manager().lock(key, lock_timeout=10)
    thief = await manager().get_lock(key, lock.id)
    thief.id = "someone else"
    with pytest.raises(LockError):
        await thief.release()
    assert redis.Redis.from_url(url).get(key) == lock.id.encode()


async def test_is_recreated_from_its_id(manager, key):
    lock = await manager().lock(key, lock_timeout=10)
    other = manager()
    copy = await other.get_lock(key, lock.id)
    assert 0 < copy.lock_timeout <= 10
    await copy.release()
    assert not await other.is_locked(key)
    with pytest.raises(LockError):
        await other.get_lock(key, lock.id)


async def test_expires(manager, url, key):
    lock = await manager().lock(key, lock_timeout=0.5)
    client = redis.Redis.from_url(url)
    eventually(lambda: not client.exists(key))
    assert await manager(retry_count=50).lock(key, lock_timeout=10)
    with pytest.raises(LockError):
        await lock.extend()
