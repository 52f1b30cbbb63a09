"""redis-py with a cluster of servers: over any of them, and with Sentinel."""

import os
import signal
import time
from urllib.parse import urlparse

import pytest
import redis
from redis.sentinel import Sentinel

from support import eventually

NAME = "octostore"
# From the loss of the leader to the next grant.
SECONDS_MAX = 5


@pytest.fixture
def addresses(urls):
    return [(urlparse(url).hostname, urlparse(url).port) for url in urls]


@pytest.fixture
def sentinel(addresses):
    return Sentinel(addresses, socket_timeout=2)


def attempt(call):
    """The result of a call, or None while there is no leader."""
    try:
        return call()
    except redis.RedisError:
        return None


def test_every_server_serves_a_plain_client(urls, key):
    clients = [redis.Redis.from_url(url) for url in urls]
    assert eventually(lambda: attempt(lambda: clients[0].set(key, "me", nx=True, px=60_000)))
    for client in clients:
        assert client.get(key) == b"me"
        assert client.set(key, "other", nx=True, px=60_000) is None


def test_sentinel_names_the_leader_and_the_standbys(sentinel, addresses):
    leader = sentinel.discover_master(NAME)
    standbys = sentinel.discover_slaves(NAME)
    assert sorted([leader, *standbys]) == sorted(addresses)


def test_the_leader_serves_a_client_of_sentinel(sentinel, key):
    leader = sentinel.master_for(NAME)
    with leader.lock(key, timeout=60):
        assert sentinel.slave_for(NAME).get(key) is not None
    assert leader.get(key) is None


def test_servers_are_sentinels_at_ports_of_their_own(addresses):
    urls = [urlparse(url) for url in os.environ["SENTINELS"].split(",")]
    sentinel = Sentinel([(url.hostname, url.port) for url in urls], socket_timeout=2)
    leader = sentinel.discover_master(NAME)
    assert sorted([leader, *sentinel.discover_slaves(NAME)]) == sorted(addresses)
    asked = sentinel.sentinels[0]
    assert asked.role() == [b"sentinel", [NAME.encode()]]
    assert asked.info("sentinel")["sentinel_masters"] == 1
    others = {other["port"] for other in asked.sentinel_sentinels(NAME)}
    assert others == {url.port for url in urls[1:]}
    with pytest.raises(redis.ResponseError, match="unknown command"):
        asked.get("key")


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_protocols_find_the_leader(addresses, protocol):
    sentinel = Sentinel(addresses, sentinel_kwargs={"protocol": protocol}, protocol=protocol)
    assert sentinel.master_for(NAME).ping()
    assert sentinel.discover_master(NAME) in addresses


def test_clients_go_on_when_the_leader_is_killed(sentinel, urls, addresses, key):
    host, port = sentinel.discover_master(NAME)
    assert sentinel.master_for(NAME).set(key, "me", nx=True, px=60_000)
    place = addresses.index((host, port))
    os.kill(int(os.environ["PROCESSES"].split(",")[place]), signal.SIGKILL)
    killed = time.monotonic()
    # The one with Sentinel finds the new leader; the others are connected to the standbys.
    clients = [sentinel.master_for(NAME)]
    clients += [redis.Redis.from_url(url) for n, url in enumerate(urls) if n != place]
    for number, client in enumerate(clients):
        own = f"{key}:{number}"
        assert eventually(lambda: attempt(lambda: client.set(own, "me", nx=True, px=60_000) or client.get(own)))
        assert time.monotonic() - killed < SECONDS_MAX
        assert client.get(key) == b"me", "what was acknowledged is still there"
