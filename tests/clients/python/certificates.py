"""What the tests with users and TLS share."""

import os
import pathlib

FOLDER = pathlib.Path(os.environ.get("CERTIFICATES", ""))


def path(name):
    return str(FOLDER / name)


def renew():
    """Replaces the server's certificate by one that `new-ca` has signed."""
    for suffix in ("pem", "key"):
        os.replace(path(f"renewed.{suffix}"), path(f"server.{suffix}"))
