"""What the tests of all libraries share."""

import asyncio
import concurrent.futures
import threading
import time

WAIT_SECONDS_MAX = 10


def eventually(condition):
    """Polls until the condition holds, and returns its value."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.005)
    return value


async def eventually_async(condition):
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not (value := await condition()):
        assert time.monotonic() < deadline, "the condition never held"
        await asyncio.sleep(0.005)
    return value


class CriticalSection:
    """Fails when two are in it at the same time, and counts the visits."""

    def __init__(self):
        self.inside = 0
        self.visits = 0

    def __enter__(self):
        self.inside += 1
        assert self.inside == 1, "two hold the lock at the same time"

    def __exit__(self, *_):
        # Reading and writing apart loses visits that overlap.
        visits = self.visits
        time.sleep(0.001)
        self.visits = visits + 1
        self.inside -= 1

    async def visit(self):
        self.inside += 1
        assert self.inside == 1, "two hold the lock at the same time"
        visits = self.visits
        await asyncio.sleep(0.001)
        self.visits = visits + 1
        self.inside -= 1


def background(work, *arguments):
    """Runs `work` on a thread that does not keep the process alive; the future has its result."""
    future = concurrent.futures.Future()

    def run():
        try:
            future.set_result(work(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def contend(clients, work):
    """Runs `work(client)` on a thread for each of the clients, and raises what one of them raised."""
    for future in concurrent.futures.as_completed([background(work, client) for client in clients]):
        future.result()
