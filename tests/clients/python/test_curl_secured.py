"""curl with users and TLS."""

import json
import os
import subprocess

import pytest

from certificates import path, renew
from support import eventually

HTTPS = os.environ.get("HTTPS", "")
WORKER = ("--user", "worker:worker-password")


def curl(route, *options, certificate="client", roots="roots"):
    """The status of a request, and its body; status 0 if there is no answer."""
    arguments = ["curl", "--silent", "--cacert", path(f"{roots}.pem"), "--write-out", "\n%{http_code}"]
    if certificate:
        arguments += ["--cert", path(f"{certificate}.pem"), "--key", path(f"{certificate}.key")]
    finished = subprocess.run(
        [*arguments, *options, HTTPS + route], capture_output=True, text=True, timeout=60
    )
    body, status = finished.stdout.rsplit("\n", 1)
    return int(status), body


def acquire(name, *options, **more):
    content = ("--header", "content-type: application/json", "--data", "{}")
    return curl(f"/locks/{name}/acquire", *content, *options, **more)


def test_locks_as_a_user(key):
    status, body = acquire(f"jobs.{key}", *WORKER)
    assert status == 200 and json.loads(body)["fencing_token"] > 0
    bearer = ("--header", "authorization: Bearer worker-password")
    status, body = curl(f"/locks/jobs.{key}", *bearer)
    assert status == 200 and json.loads(body)["status"] == "held"


def test_other_locks_and_paths_are_refused(key):
    assert acquire(key, *WORKER)[0] == 403
    assert curl("/metrics", *WORKER)[0] == 403
    assert curl("/metrics", "--user", "admin:admin-password")[0] == 200


def test_wrong_credentials_are_refused(key):
    assert acquire(f"jobs.{key}", "--user", "worker:wrong")[0] == 401
    assert acquire(f"jobs.{key}", "--header", "authorization: Bearer wrong")[0] == 401
    assert acquire(f"jobs.{key}")[0] == 401


def test_the_certificate_names_the_user(key):
    assert acquire(f"jobs.{key}", certificate="worker")[0] == 200
    assert acquire(key, certificate="worker")[0] == 403


@pytest.mark.parametrize("certificate", [None, "expired", "foreign"])
def test_other_certificates_are_refused(certificate):
    assert curl("/health")[0] == 200
    assert curl("/health", certificate=certificate)[0] == 0


def test_the_certificate_of_the_server_is_renewed():
    assert curl("/health", roots="new-ca")[0] == 0
    renew()
    eventually(lambda: curl("/health", roots="new-ca")[0] == 200)
    assert curl("/health", roots="ca")[0] == 0
