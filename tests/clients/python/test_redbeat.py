"""RedBeat's scheduler: one of several beats holds the lock and runs the schedule."""

import datetime
import types

import celery
import pytest
from celery.schedules import schedule
from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.schedulers import acquire_distributed_beat_lock, get_redis
from redis.exceptions import LockError, LockNotOwnedError

from support import background

ONE_MINUTE = datetime.timedelta(minutes=1)


@pytest.fixture
def app(url, key):
    app = celery.Celery("beat", broker=url, backend=url)
    app.conf.update(
        redbeat_redis_url=url,
        redbeat_key_prefix=f"{key}:",
        redbeat_lock_timeout=10,
        beat_max_loop_interval=0.01,
        beat_schedule={"static": {"task": "tasks.static", "schedule": 60.0}},
    )
    return app


def scheduler(app):
    """A scheduler as `celery beat` starts it, before it has the lock."""
    return RedBeatScheduler(app=app, lazy=False)


def take_lock(beat):
    acquire_distributed_beat_lock(sender=types.SimpleNamespace(scheduler=beat))
    return beat.lock


def test_one_beat_holds_the_lock(app):
    first, second = scheduler(app), scheduler(app)
    assert take_lock(first)
    waiting = background(lambda: take_lock(second) and second.lock.release() is None)
    client = get_redis(app)
    assert 0 < client.pttl(app.redbeat_conf.lock_key) <= 10_000
    assert not waiting.done()
    first.close()
    assert waiting.result(timeout=10)


def test_a_tick_extends_the_lock_to_its_timeout(app):
    beat = scheduler(app)
    take_lock(beat)
    client = get_redis(app)
    client.pexpire(app.redbeat_conf.lock_key, 1_000)
    beat.tick()
    assert 9_000 < client.pttl(app.redbeat_conf.lock_key) <= 10_000
    beat.close()
    assert not client.exists(app.redbeat_conf.lock_key)


def test_a_beat_that_lost_the_lock_stops(app):
    beat = scheduler(app)
    take_lock(beat)
    get_redis(app).set(app.redbeat_conf.lock_key, "another beat")
    with pytest.raises(LockNotOwnedError):
        beat.tick()
    with pytest.raises(LockError):
        beat.lock.release()


def test_a_beat_that_died_is_replaced(app):
    app.conf.redbeat_lock_timeout = 1
    dead, successor = scheduler(app), scheduler(app)
    take_lock(dead)
    assert take_lock(successor)
    with pytest.raises(LockNotOwnedError):
        dead.tick()
    successor.close()


def test_due_entries_are_sent_and_rescheduled(app):
    beat = scheduler(app)
    take_lock(beat)
    entry = RedBeatSchedulerEntry("due", "tasks.due", schedule(60), app=app).save()
    client = get_redis(app)
    assert client.hexists(entry.key, "definition")
    assert client.smembers(app.redbeat_conf.statics_key) == {"static"}
    entry.reschedule(last_run_at=app.now() - datetime.timedelta(hours=1))
    beat.tick()
    assert client.llen("celery") == 1
    assert app.now() - RedBeatSchedulerEntry.from_key(entry.key, app=app).last_run_at < ONE_MINUTE
    assert client.zscore(app.redbeat_conf.schedule_key, entry.key) > app.now().timestamp()
    entry.delete()
    assert client.zrank(app.redbeat_conf.schedule_key, entry.key) is None
    beat.close()
