"""redis-py with users and TLS, in RESP2 and RESP3."""

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError, ResponseError
from redis.retry import Retry

from certificates import path, renew
from support import eventually


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def protocol(request):
    return request.param


@pytest.fixture
def connect(url, protocol):
    clients = []

    def connect(username=None, password=None, certificate="client", roots="roots", **options):
        if certificate:
            options["ssl_certfile"] = path(f"{certificate}.pem")
            options["ssl_keyfile"] = path(f"{certificate}.key")
        options.update(protocol=protocol, retry=Retry(NoBackoff(), 0), decode_responses=True)
        options.update(username=username, password=password, ssl_ca_certs=path(f"{roots}.pem"))
        clients.append(redis.Redis.from_url(url, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def worker(connect):
    return connect("worker", "worker-password")


def test_locks_as_a_user(worker, key):
    assert worker.acl_whoami() == "worker"
    with worker.lock(f"jobs.{key}", timeout=10) as lock:
        assert lock.owned() and lock.extend(5)
    assert worker.exists(f"jobs.{key}") == 0


def test_credentials_in_the_url(url, protocol):
    url = url.replace("rediss://", "rediss://worker:worker-password@")
    own = dict(ssl_certfile=path("client.pem"), ssl_keyfile=path("client.key"))
    options = dict(own, ssl_ca_certs=path("roots.pem"), protocol=protocol, decode_responses=True)
    with redis.Redis.from_url(url, **options) as client:
        assert client.acl_whoami() == "worker"


def test_other_keys_channels_and_commands_are_refused(worker, key):
    with pytest.raises(NoPermissionError, match="access a key"):
        worker.set(key, "value")
    with pytest.raises(NoPermissionError, match="access a key"):
        worker.lock(key, timeout=10).acquire()
    with pytest.raises(NoPermissionError, match="access a channel"):
        worker.publish(key, "message")
    with pytest.raises(NoPermissionError, match="'flushall'"):
        worker.flushall()
    with pytest.raises(NoPermissionError, match="'acl|setuser'"):
        worker.acl_setuser("worker", enabled=True, nopass=True)


def test_transactions_and_scripts_are_refused_as_their_commands_are(worker, key):
    with pytest.raises(ResponseError, match="permissions|previous errors"):
        worker.pipeline(transaction=True).set(f"jobs.{key}", "value").set(key, "value").execute()
    with pytest.raises(ResponseError, match="access a key|ACL failure"):
        worker.eval("return redis.call('set', ARGV[1], 'value')", 0, key)
    assert worker.exists(f"jobs.{key}") == 0


def test_subscribes_to_its_channels(worker, key):
    subscriber = worker.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe(f"jobs.{key}")
    assert eventually(lambda: worker.publish(f"jobs.{key}", "released"))
    assert eventually(subscriber.get_message)["data"] == "released"
    subscriber.close()


@pytest.mark.parametrize("user, password", [("worker", "wrong"), ("stranger", "worker-password")])
def test_wrong_credentials_are_refused(connect, user, password):
    with pytest.raises(AuthenticationError, match="invalid username-password pair"):
        connect(user, password).ping()


def test_no_credentials_are_refused(connect):
    with pytest.raises(AuthenticationError):
        connect().ping()


def test_the_certificate_names_the_user(connect, key):
    client = connect(certificate="worker")
    assert client.acl_whoami() == "worker"
    with pytest.raises(NoPermissionError):
        client.get(key)


@pytest.mark.parametrize("certificate", [None, "expired", "foreign"])
def test_other_certificates_are_refused(connect, certificate):
    with pytest.raises(ConnectionError):
        connect("worker", "worker-password", certificate).ping()


def test_a_user_that_is_switched_off_loses_its_connections(connect):
    admin = connect("admin", "admin-password")
    admin.acl_setuser("passing", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"])
    client = connect("passing", "secret", single_connection_client=True)
    assert client.ping()
    admin.acl_setuser("passing", enabled=False)
    with pytest.raises(ConnectionError):
        client.ping()
    with pytest.raises(AuthenticationError):
        client.ping()
    admin.acl_deluser("passing")


@pytest.mark.parametrize("protocol", [3])
def test_a_running_client_outlives_its_server_s_certificate(connect):
    def is_trusted():
        try:
            return connect("worker", "worker-password", roots="new-ca").ping()
        except ConnectionError:
            return False

    client = connect("worker", "worker-password", single_connection_client=True)
    id = client.client_id()
    assert not is_trusted()
    renew()
    eventually(is_trusted)
    assert client.client_id() == id
