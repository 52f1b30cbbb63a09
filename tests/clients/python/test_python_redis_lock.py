"""python-redis-lock: SET NX, scripts that push to a list, and BLPOP."""

import time

import pytest
import redis
import redis_lock

from support import CriticalSection, background, contend, eventually


@pytest.fixture
def connect(url):
    clients = []

    def connect():
        clients.append(redis.Redis.from_url(url))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_acquires_and_releases(connect, key):
    client = connect()
    lock = redis_lock.Lock(client, key, expire=10)
    assert lock.acquire(blocking=False)
    assert lock.locked()
    assert lock.get_owner_id() == lock.id
    assert 0 < client.ttl(f"lock:{key}") <= 10
    lock.release()
    assert not lock.locked()


def test_excludes_another_client(connect, key):
    first, second = (redis_lock.Lock(connect(), key, expire=10) for _ in range(2))
    assert first.acquire()
    assert not second.acquire(blocking=False)
    first.release()
    assert second.acquire(blocking=False)
    second.release()


def test_a_release_wakes_the_blocked_pop(connect, key):
    holder, waiter = (redis_lock.Lock(connect(), key, expire=60) for _ in range(2))
    assert holder.acquire()
    waited = background(lambda: waiter.acquire(timeout=50))
    eventually(lambda: any(client["cmd"] == "blpop" for client in connect().client_list()))
    start = time.monotonic()
    holder.release()
    assert waited.result(timeout=10)
    assert time.monotonic() - start < 10, "the pop ended at its timeout, not at the push"
    waiter.release()


def test_a_wait_ends_at_its_timeout(connect, key):
    holder, waiter = (redis_lock.Lock(connect(), key, expire=30) for _ in range(2))
    assert holder.acquire()
    assert not waiter.acquire(timeout=1)
    holder.release()


def test_many_contend(connect, key):
    section = CriticalSection()

    def work(client):
        for _ in range(5):
            with redis_lock.Lock(client, key, expire=30):
                with section:
                    pass

    contend([connect() for _ in range(8)], work)
    assert section.visits == 40


def test_extends(connect, key):
    client = connect()
    lock = redis_lock.Lock(client, key, expire=10)
    assert lock.acquire()
    lock.extend(expire=100)
    assert 90 < client.ttl(f"lock:{key}") <= 100
    lock.release()


def test_renews_by_itself(connect, key):
    client = connect()
    lock = redis_lock.Lock(client, key, expire=1, auto_renewal=True)
    renewals = []
    extend = lock.extend
    lock.extend = lambda **options: renewals.append(extend(**options))
    lock._lock_renewal_interval = 0.1
    with lock:
        eventually(lambda: len(renewals) > 11)
        assert lock.get_owner_id() == lock.id
    assert not lock.locked()


def test_refuses_to_release_for_another(connect, key):
    owner, other = (redis_lock.Lock(connect(), key, expire=10) for _ in range(2))
    assert owner.acquire()
    with pytest.raises(redis_lock.NotAcquired):
        other.release()
    with pytest.raises(redis_lock.NotAcquired):
        other.extend(5)
    assert owner.get_owner_id() == owner.id
    # The id is what owns a lock: another process that knows it can release it.
    redis_lock.Lock(connect(), key, id=owner.id).release()
    assert not owner.locked()


def test_expires(connect, key):
    client = connect()
    lock = redis_lock.Lock(client, key, expire=1)
    assert lock.acquire()
    successor = redis_lock.Lock(connect(), key, expire=30)
    eventually(lambda: successor.acquire(blocking=False))
    with pytest.raises(redis_lock.NotAcquired):
        lock.release()
    successor.release()


def test_raises_what_it_documents(connect, key):
    client = connect()
    lock = redis_lock.Lock(client, key)
    assert lock.acquire()
    with pytest.raises(redis_lock.AlreadyAcquired):
        lock.acquire()
    with pytest.raises(redis_lock.NotExpirable):
        lock.extend(10)
    lock.release()
    with pytest.raises(redis_lock.NotAcquired):
        lock.release()
    with pytest.raises(redis_lock.NotAcquired):
        redis_lock.Lock(client, key).extend(1)


def test_resets(connect, key):
    client = connect()
    lock = redis_lock.Lock(client, key, expire=10)
    assert lock.acquire()
    redis_lock.Lock(connect(), key).reset()
    assert not lock.locked()


def test_resets_all(connect, key):
    client = connect()
    locks = [redis_lock.Lock(client, f"{key}:{n}", expire=10) for n in range(20)]
    assert all(lock.acquire() for lock in locks)
    redis_lock.reset_all(client)
    assert not any(lock.locked() for lock in locks)
