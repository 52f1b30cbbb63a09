"""django-redis: cache.lock, and what projects use as locks: add, touch and set(nx=True)."""

import django
import pytest
from django.conf import settings
from redis.exceptions import LockError, LockNotOwnedError

from support import CriticalSection, contend, eventually


@pytest.fixture
def cache(url):
    if not settings.configured:
        backend = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"{url}/1"}
        settings.configure(CACHES={"default": backend})
        django.setup()
    from django.core.cache import cache

    return cache


def test_locks(cache, key):
    lock = cache.lock(key, timeout=10)
    assert lock.acquire(blocking=False)
    assert lock.owned()
    other = cache.lock(key, timeout=10)
    assert not other.acquire(blocking=False)
    assert 0 < cache.ttl(key) <= 10
    lock.release()
    assert other.acquire(blocking=False)
    other.release()


def test_many_contend(cache, key):
    section = CriticalSection()

    def work(_):
        for _ in range(5):
            with cache.lock(key, timeout=30, sleep=0.002):
                with section:
                    pass

    contend(range(8), work)
    assert section.visits == 40


def test_extends(cache, key):
    with cache.lock(key, timeout=10) as lock:
        assert lock.extend(100, replace_ttl=True)
        assert 90 < cache.ttl(key) <= 100
    assert not lock.locked()


def test_refuses_to_release_for_another(cache, key):
    lock = cache.lock(key, timeout=10)
    assert lock.acquire()
    assert cache.delete(key)
    assert cache.lock(key, timeout=10).acquire(token="someone else")
    with pytest.raises(LockNotOwnedError):
        lock.release()


def test_expires(cache, key):
    lock = cache.lock(key, timeout=0.1)
    assert lock.acquire()
    with cache.lock(key, timeout=10, sleep=0.005, blocking_timeout=5):
        with pytest.raises(LockError):
            lock.release()


def test_add_is_a_lock(cache, key):
    assert cache.add(key, "mine", timeout=10)
    assert not cache.add(key, "yours", timeout=10)
    assert cache.get(key) == "mine"
    assert cache.touch(key, 100)
    assert 90 < cache.ttl(key) <= 100
    assert cache.delete(key)
    assert cache.add(key, "yours", timeout=0.1)
    eventually(lambda: cache.add(key, "third", timeout=10))


def test_set_takes_nx(cache, key):
    assert cache.set(key, 1, timeout=10, nx=True)
    assert not cache.set(key, 2, timeout=10, nx=True)
    assert cache.incr(key) == 2
    assert cache.persist(key) and cache.ttl(key) is None
    assert cache.expire(key, 10) and 0 < cache.ttl(key) <= 10


def test_finds_keys_by_pattern(cache, key):
    for number in range(25):
        assert cache.set(f"{key}:{number}", number, timeout=10)
    assert len(cache.get_many([f"{key}:{number}" for number in range(25)])) == 25
    assert len(list(cache.iter_keys(f"{key}:*"))) == 25
    assert cache.delete_pattern(f"{key}:*") == 25
