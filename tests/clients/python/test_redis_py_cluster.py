"""redis-py with the shards of a cluster, as a client of Redis Cluster."""

import os
import signal
import time
from urllib.parse import urlparse

import pytest
import redis
import redis.asyncio
from redis.cluster import ClusterNode, RedisCluster

from support import eventually

# From the loss of a leader to the next grant.
SECONDS_MAX = 5
KEYS = 30


@pytest.fixture
def nodes(urls):
    return [ClusterNode(urlparse(url).hostname, urlparse(url).port) for url in urls]


@pytest.fixture(params=[2, 3])
def client(request, nodes):
    with RedisCluster(startup_nodes=nodes, protocol=request.param) as client:
        yield client


def test_the_slots_are_found(client, urls):
    assert len(client.get_primaries()) == 2
    assert len(client.get_nodes()) == len(urls)
    slots = client.cluster_slots()
    assert sorted(slots) == [(0, 8191), (8192, 16383)]
    assert client.cluster_info()["cluster_state"] == "ok"
    assert len(client.cluster_nodes()) == len(urls)
    assert len(client.cluster_shards()) == 2


def test_keys_of_all_shards_are_served(client, key):
    keys = [f"{key}:{n}" for n in range(KEYS)]
    assert len({client.get_node_from_key(name).port for name in keys}) == 2
    for name in keys:
        assert client.set(name, "me", nx=True, px=60_000)
        assert client.set(name, "other", nx=True) is None
    assert client.mget_nonatomic(keys) == [b"me"] * KEYS
    with client.pipeline() as pipeline:
        for name in keys:
            pipeline.get(name)
        assert pipeline.execute() == [b"me"] * KEYS
    name = keys[0]
    assert client.cluster_countkeysinslot(client.cluster_keyslot(name)) == 1


def test_locks_work(client, key):
    for n in range(KEYS):
        name = f"{key}:{n}"
        lock = client.lock(name, timeout=60)
        assert lock.acquire(blocking=False)
        assert not client.lock(name, timeout=60).acquire(blocking=False)
        assert lock.extend(10) and lock.owned()
        lock.release()
        assert client.get(name) is None


def test_tokens_increase_per_key(client, key):
    tokens = []
    for _ in range(3):
        tokens.append(client.execute_command("LOCK", key, "me", "PX", 60_000))
        client.execute_command("UNLOCK", key, "me")
    assert tokens == sorted(set(tokens))


def test_keys_with_a_tag_are_used_together(client, key):
    one, two = f"{{{key}}}:1", f"{{{key}}}:2"
    assert client.mset({one: "a", two: "b"})
    script = "return {redis.call('get', KEYS[1]), redis.call('get', KEYS[2])}"
    assert client.eval(script, 2, one, two) == [b"a", b"b"]


async def test_asyncio(urls, key):
    nodes = [redis.asyncio.cluster.ClusterNode(urlparse(url).hostname, urlparse(url).port) for url in urls]
    async with redis.asyncio.RedisCluster(startup_nodes=nodes) as client:
        for n in range(KEYS):
            name = f"{key}:{n}"
            lock = client.lock(name, timeout=60)
            assert await lock.acquire(blocking=False)
            await lock.release()


def test_clients_go_on_when_a_leader_is_killed(nodes, urls, key):
    client = RedisCluster(startup_nodes=nodes, socket_timeout=2)
    keys = [f"{key}:{n}" for n in range(KEYS)]
    for name in keys:
        assert client.set(name, "me", nx=True, px=60_000)
    # The first shard has a standby.
    first = next(name for name in keys if client.keyslot(name) < 8192)
    leader = client.get_node_from_key(first).port
    place = [urlparse(url).port for url in urls].index(leader)
    os.kill(int(os.environ["PROCESSES"].split(",")[place]), signal.SIGKILL)
    killed = time.monotonic()

    def progress(name):
        try:
            return client.set(f"{name}:new", "me", nx=True, px=60_000) or client.get(f"{name}:new")
        except redis.RedisError:
            return None

    for name in keys:
        assert eventually(lambda: progress(name))
        assert client.get(name) == b"me", "what was acknowledged is still there"
    assert time.monotonic() - killed < SECONDS_MAX
