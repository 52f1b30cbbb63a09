"""redlock-py over three servers."""

import pytest
import redis
import redlock

from support import CriticalSection, contend, eventually


@pytest.fixture
def locks(urls):
    return redlock.Redlock(urls, retry_count=1)


def test_acquires_and_releases(locks, urls, key):
    lock = locks.lock(key, 10_000)
    assert lock.resource == key and 9_000 < lock.validity < 10_000
    for url in urls:
        client = redis.Redis.from_url(url)
        assert client.get(key) == lock.key
        assert 9_000 < client.pttl(key) <= 10_000
    locks.unlock(lock)
    assert not any(redis.Redis.from_url(url).exists(key) for url in urls)


def test_excludes_another_client(locks, urls, key):
    lock = locks.lock(key, 10_000)
    other = redlock.Redlock(urls, retry_count=2, retry_delay=0.01)
    assert other.lock(key, 10_000) is False
    locks.unlock(lock)
    assert other.lock(key, 10_000)


def test_many_contend(urls, key):
    section = CriticalSection()

    def work(locks):
        for _ in range(3):
            lock = locks.lock(key, 30_000)
            assert lock
            with section:
                pass
            locks.unlock(lock)

    contend([redlock.Redlock(urls, retry_count=5_000, retry_delay=0.005) for _ in range(5)], work)
    assert section.visits == 15


def test_refuses_to_release_for_another(locks, urls, key):
    lock = locks.lock(key, 10_000)
    locks.unlock(redlock.Lock(lock.validity, key, b"someone else"))
    assert all(redis.Redis.from_url(url).get(key) == lock.key for url in urls)


def test_expires(locks, urls, key):
    assert locks.lock(key, 500)
    assert eventually(lambda: redlock.Redlock(urls, retry_count=1, retry_delay=0.01).lock(key, 1_000))


def test_a_minority_may_be_taken(locks, urls, key):
    redis.Redis.from_url(urls[0]).set(key, "someone else")
    assert locks.lock(key, 10_000)
    assert redis.Redis.from_url(urls[0]).get(key) == b"someone else"


def test_a_failed_attempt_leaves_nothing(locks, urls, key):
    for url in urls[:2]:
        redis.Redis.from_url(url).set(key, "someone else")
    assert locks.lock(key, 10_000) is False
    assert not redis.Redis.from_url(urls[2]).exists(key)


def test_a_server_that_is_down_is_reported(urls, key):
    with pytest.raises(redlock.MultipleRedlockException):
        redlock.Redlock([*urls[:2], "redis://127.0.0.1:1"], retry_count=1).lock(key, 10_000)
