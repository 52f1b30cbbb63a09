import os
import uuid

import pytest


@pytest.fixture
def urls():
    """The servers' URLs."""
    return os.environ["SERVERS"].split(",")


@pytest.fixture
def url(urls):
    return urls[0]


@pytest.fixture
def key():
    """A name that no other test uses."""
    return uuid.uuid4().hex
