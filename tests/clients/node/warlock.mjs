// warlock (node-redis-warlock), through the callbacks of node-redis 3.

import assert from 'node:assert/strict';
import { promisify } from 'node:util';
import Warlock from 'node-redis-warlock';
import { createClient } from 'redis-3';
import { assertTtl, atEnd, check, connectIoredis, contend, CriticalSection, eventually, key, url } from './support.mjs';

const probe = connectIoredis();

function create() {
  const client = createClient(url);
  atEnd(() => client.end(true));
  const warlock = Warlock(client);
  return {
    // The library calls back with a function that unlocks, or false, and with the id.
    lock: (name, ttl) =>
      new Promise((resolve, reject) => {
        warlock.lock(name, ttl, (error, unlock, id) =>
          error ? reject(error) : resolve(unlock && { id, unlock: promisify(unlock) }));
      }),
    unlock: promisify(warlock.unlock),
    optimistic: promisify(warlock.optimistic),
    touch: warlock.touch,
  };
}

check('acquires, excludes and releases', async () => {
  const [first, second, name] = [create(), create(), key()];
  const lock = await first.lock(name, 10_000);
  assert.equal(await probe.get(`${name}:lock`), lock.id);
  assert.equal(await second.lock(name, 10_000), false);
  assert.equal(await lock.unlock(), 1);
  assert.ok(await second.lock(name, 10_000));
});

check('many contend', async () => {
  const [section, name] = [new CriticalSection(), key()];
  await contend(8, async () => {
    const warlock = create();
    for (let round = 0; round < 5; round++) {
      const unlock = promisify(await warlock.optimistic(name, 30_000, 5_000, 3));
      await section.visit();
      assert.equal(await unlock(), 1);
    }
  });
  assert.equal(section.visits, 40);
});

check('extends', async () => {
  const [warlock, name] = [create(), key()];
  const lock = await warlock.lock(name, 5_000);
  assert.equal(await warlock.touch(name, lock.id, 20_000), 'OK');
  await assertTtl(probe, `${name}:lock`, 19_000, 20_000);
});

check('refuses to release and to extend for another', async () => {
  const [warlock, name] = [create(), key()];
  const lock = await warlock.lock(name, 10_000);
  assert.equal(await warlock.unlock(name, 'not its id'), 0);
  assert.equal(await warlock.touch(name, 'not its id', 20_000), 0);
  assert.equal(await probe.get(`${name}:lock`), lock.id);
});

check('expires', async () => {
  const [first, second, name] = [create(), create(), key()];
  const lock = await first.lock(name, 50);
  await eventually(() => second.lock(name, 10_000));
  assert.equal(await lock.unlock(), 0);
});

check('gives up after its attempts', async () => {
  const [first, second, name] = [create(), create(), key()];
  await first.lock(name, 10_000);
  await assert.rejects(second.optimistic(name, 10_000, 3, 5), /unable to obtain lock/);
});
