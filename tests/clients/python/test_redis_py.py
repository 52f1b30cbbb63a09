"""redis-py's Lock, synchronous, in RESP2 and RESP3."""

import time

import pytest
import redis
from redis.exceptions import ConnectionError, LockError, LockNotOwnedError

from support import CriticalSection, background, contend, eventually


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def connect(request, url):
    clients = []

    def connect(**options):
        clients.append(redis.Redis.from_url(url, protocol=request.param, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_acquires_and_releases(connect, key):
    client = connect()
    lock = client.lock(key, timeout=10)
    assert not lock.locked()
    assert lock.acquire(blocking=False)
    assert lock.locked() and lock.owned()
    assert client.get(key) == lock.local.token
    assert 9_000 < client.pttl(key) <= 10_000
    lock.release()
    assert not lock.locked()
    assert client.exists(key) == 0


def test_excludes_another_client(connect, key):
    first, second = connect().lock(key, timeout=10), connect().lock(key, timeout=10)
    assert first.acquire()
    assert not second.acquire(blocking=False)
    assert not second.acquire(blocking_timeout=0.05)
    assert second.locked() and not second.owned()
    first.release()
    assert second.acquire(blocking=False)
    second.release()


def test_holds_without_a_timeout(connect, key):
    client = connect()
    lock = client.lock(key)
    assert lock.acquire(token="a name of the caller's choice")
    assert client.ttl(key) == -1
    assert client.get(key) == b"a name of the caller's choice"
    lock.release()


def test_decodes_responses(connect, key):
    lock = connect(decode_responses=True).lock(key, timeout=10)
    with lock:
        assert lock.owned()
        assert lock.extend(5)
    assert not lock.locked()


def test_many_contend(connect, key):
    section = CriticalSection()

    def work(client):
        for _ in range(5):
            with client.lock(key, timeout=30, sleep=0.002):
                with section:
                    pass

    contend([connect() for _ in range(8)], work)
    assert section.visits == 40


def test_extends(connect, key):
    client = connect()
    lock = client.lock(key, timeout=10)
    assert lock.acquire()
    assert lock.extend(10)
    assert 19_000 < client.pttl(key) <= 20_000
    assert lock.extend(5, replace_ttl=True)
    assert 4_000 < client.pttl(key) <= 5_000
    assert lock.reacquire()
    assert 9_000 < client.pttl(key) <= 10_000
    lock.release()


def test_refuses_to_release_or_extend_for_another(connect, key):
    client = connect()
    lock = client.lock(key, timeout=10)
    assert lock.acquire()
    client.set(key, "someone else")
    with pytest.raises(LockNotOwnedError):
        lock.extend(10)
    with pytest.raises(LockNotOwnedError):
        lock.reacquire()
    with pytest.raises(LockNotOwnedError):
        lock.release()
    assert client.get(key) == b"someone else"
    client.delete(key)


def test_expires(connect, key):
    client, other = connect(), connect()
    lock = client.lock(key, timeout=0.1)
    assert lock.acquire()
    successor = other.lock(key, timeout=10, sleep=0.005)
    start = time.monotonic()
    assert successor.acquire(blocking_timeout=5)
    assert time.monotonic() - start < 5
    with pytest.raises(LockNotOwnedError):
        lock.extend(1)
    with pytest.raises(LockNotOwnedError):
        lock.release()
    assert successor.owned()
    successor.release()


def test_waits_for_a_release(connect, key):
    holder, waiter = connect().lock(key, timeout=30), connect().lock(key, timeout=30, sleep=0.005)
    assert holder.acquire()
    # Each thread has its own token unless told otherwise, so the waiter releases where it acquired.
    waited = background(lambda: waiter.acquire(blocking_timeout=10) and waiter.release() is None)
    assert not waited.done()
    holder.release()
    assert waited.result(timeout=10)


def test_is_a_context_manager(connect, key):
    client = connect()
    with client.lock(key, timeout=10) as lock:
        assert lock.owned()
        with pytest.raises(LockError):
            with connect().lock(key, timeout=10, blocking_timeout=0.02):
                raise AssertionError("two hold the lock at the same time")
    assert client.exists(key) == 0


def test_raises_what_it_documents(connect, key):
    client = connect()
    lock = client.lock(key)
    with pytest.raises(LockError, match="unlocked"):
        lock.release()
    with pytest.raises(LockError, match="unlocked"):
        lock.extend(1)
    assert lock.acquire()
    with pytest.raises(LockError, match="no timeout"):
        lock.extend(1)
    lock.release()


def test_pings_and_survives_a_lost_connection(connect, key):
    client, killer = connect(), connect()
    lock = client.lock(key, timeout=30, thread_local=False)
    assert lock.acquire()
    for id in [entry["id"] for entry in killer.client_list() if int(entry["id"]) != killer.client_id()]:
        killer.client_kill_filter(_id=id)
    # The library retries once by itself; the reset can reach it later.
    def answers():
        try:
            return client.ping()
        except ConnectionError:
            return False

    eventually(answers)
    assert lock.owned()
    lock.release()
