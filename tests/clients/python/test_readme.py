"""The snippet in Python of the README, as it is printed."""

import pathlib
import re
import uuid

import redis

README = pathlib.Path(__file__).resolve().parents[3] / "README.md"


def snippet():
    found = re.search(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return found[1]


def test_the_snippet_works(url):
    port = int(url.rsplit(":", 1)[1])
    code = snippet()
    assert "port=7379" in code
    worked = []
    names = {"redis": redis, "uuid": uuid, "work": worked.append}
    exec(code.replace("port=7379", f"port={port}"), names)
    assert worked == [names["token"]] and worked[0] > 0
    assert names["r"].execute_command("FENCE", "invoice:42") is None
