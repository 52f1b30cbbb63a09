"""redis-cli with users and TLS."""

import os
import subprocess
from urllib.parse import urlsplit

import pytest

from certificates import path


@pytest.fixture
def cli(url):
    def cli(*words, user="worker", password="worker-password", certificate="client", options=()):
        arguments = ["redis-cli", "--tls", "--cacert", path("roots.pem"), "-h", "localhost"]
        arguments += ["-p", str(urlsplit(url).port), *options]
        if certificate:
            arguments += ["--cert", path(f"{certificate}.pem"), "--key", path(f"{certificate}.key")]
        environment = dict(os.environ)
        if user:
            arguments += ["--user", user]
            environment["REDISCLI_AUTH"] = password
        finished = subprocess.run(
            [*arguments, *words], env=environment, capture_output=True, text=True, timeout=60
        )
        return (finished.stdout + finished.stderr).strip()

    return cli


@pytest.mark.parametrize("options", [(), ("-3",)], ids=["AUTH", "HELLO"])
def test_locks_as_a_user(cli, key, options):
    assert int(cli("LOCK", f"jobs.{key}", "me", options=options).split()[-1]) > 0
    assert "worker" in cli("ACL", "WHOAMI", options=options)


def test_other_keys_and_commands_are_refused(cli, key):
    assert "NOPERM No permissions to access a key" in cli("LOCK", key, "me")
    assert "NOPERM User worker has no permissions to run the 'flushall' command" in cli("FLUSHALL")


def test_wrong_credentials_are_refused(cli):
    assert "WRONGPASS" in cli("PING", password="wrong")
    assert "NOAUTH" in cli("PING", user=None)


def test_the_certificate_names_the_user(cli):
    assert cli("ACL", "WHOAMI", user=None, certificate="worker").strip('"') == "worker"


@pytest.mark.parametrize("certificate", [None, "expired", "foreign"])
def test_other_certificates_are_refused(cli, certificate):
    assert "PONG" not in cli("PING", certificate=certificate)
