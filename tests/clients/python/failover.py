"""Takes and releases locks until it is killed, as one of the clients of ../failover; see there.

    failover.py plain|sentinel|cluster|http
"""

import http.client
import json
import os
import pathlib
import random
import sys
import time
import uuid
from urllib.parse import urlparse

import redis
from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

TTL_S = 30
# A server that is stopped answers nothing.
TIMEOUT_S = 2
PAUSE_S = 0.005
RETRY_PAUSE_S = 0.02


def options():
    """Of a connection. By default, redis-py waits for up to seconds between its attempts."""
    return {"socket_timeout": TIMEOUT_S, "retry": Retry(ConstantBackoff(RETRY_PAUSE_S), 3)}


def addresses():
    urls = [urlparse(url) for url in os.environ["SERVERS"].split(",")]
    return [(url.hostname, url.port) for url in urls]


class Redis:
    """Over a client of redis-py."""

    def __init__(self, client):
        self.client = client

    def take(self, key, owner):
        return self.client.execute_command("LOCK", key, owner, "EX", TTL_S)

    def release(self, key, owner):
        self.client.execute_command("UNLOCK", key, owner)

    def fail(self):
        """A request has failed. These clients find the leader by themselves."""


class Plain(Redis):
    """Connects to any server, and to the next one when that fails."""

    def __init__(self):
        self.addresses = addresses()
        self.fail()

    def fail(self):
        self.addresses.append(self.addresses.pop(0))
        host, port = self.addresses[0]
        self.client = redis.Redis(host, port, **options())


class Http:
    """The same with the interface of OctoStore. The user holds the lock: there is one client like this."""

    def __init__(self):
        self.addresses = addresses()
        self.lease = None
        self.fail()

    def fail(self):
        self.addresses.append(self.addresses.pop(0))
        self.connection = http.client.HTTPConnection(*self.addresses[0], timeout=TIMEOUT_S)

    def post(self, path, body):
        self.connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = self.connection.getresponse()
        answer = response.read()
        if response.status >= 500:
            raise http.client.HTTPException(f"{response.status} {answer}")
        return json.loads(answer)

    def take(self, key, _):
        answer = self.post(f"/locks/{key}/acquire", {"ttl_seconds": TTL_S})
        if answer["status"] != "acquired":
            return None
        self.lease = answer["lease_id"]
        return answer["fencing_token"]

    def release(self, key, _):
        self.post(f"/locks/{key}/release", {"lease_id": self.lease})


def connect(kind):
    if kind == "plain":
        return Plain()
    if kind == "http":
        return Http()
    if kind == "sentinel":
        sentinel = Sentinel(addresses(), sentinel_kwargs=options())
        return Redis(sentinel.master_for("octostore", **options()))
    nodes = [ClusterNode(*address) for address in addresses()]
    return Redis(RedisCluster(startup_nodes=nodes, socket_timeout=TIMEOUT_S))


def until_answered(connected, request):
    """The answer to a request, which is repeated until there is one."""
    while True:
        try:
            return request()
        except (redis.RedisError, http.client.HTTPException, OSError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            connected.fail()
            time.sleep(RETRY_PAUSE_S)


def witness(key, token):
    """Notes whether another client is here, too, and whether one with a larger token was."""
    folder = pathlib.Path(os.environ["WITNESS"])
    inside, newest = folder / key, folder / f"{key}.token"
    try:
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        print(f"two-holders {key}", flush=True)
        return
    if newest.exists() and int(newest.read_text()) >= token:
        print(f"old-token {key}", flush=True)
    newest.write_text(str(token))
    inside.unlink()


def main():
    connected = until_answered(Redis(None), lambda: connect(sys.argv[1]))
    keys = os.environ["KEYS"].split(",")
    while True:
        key, owner = random.choice(keys), uuid.uuid4().hex
        # The same owner gets the same grant, if the answer to the first request was lost.
        token = until_answered(connected, lambda: connected.take(key, owner))
        if token is None:
            time.sleep(PAUSE_S)
            continue
        witness(key, token)
        until_answered(connected, lambda: connected.release(key, owner))
        print(f"took {key} {token}", flush=True)


main()
