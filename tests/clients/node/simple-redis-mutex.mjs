// simple-redis-mutex: a release is published, and wakes those that wait.

import assert from 'node:assert/strict';
import { lock, tryLock } from 'simple-redis-mutex';
import { assertTtl, check, connectIoredis, connectNodeRedis, contend, CriticalSection, eventually, key } from './support.mjs';

const probe = connectIoredis();
const redisName = (name) => `@simple-redis-mutex:lock-${name}`;

for (const RESP of [2, 3]) {
  const client = await connectNodeRedis({ RESP });

  check(`RESP${RESP}: acquires, excludes and releases`, async () => {
    const name = key();
    const [held, release] = await tryLock(client, name);
    assert.ok(held);
    const [taken] = await tryLock(client, name);
    assert.equal(taken, false);
    await release();
    assert.equal(await probe.exists(redisName(name)), 0);
    // A second release must not free the next holder's lock.
    const [again, releaseAgain] = await tryLock(client, name);
    assert.ok(again);
    await release();
    assert.equal(await probe.exists(redisName(name)), 1);
    await releaseAgain();
  });

  check(`RESP${RESP}: many contend, and a release wakes a waiter`, async () => {
    const [section, name] = [new CriticalSection(), key()];
    const tokens = [];
    await contend(8, async () => {
      for (let round = 0; round < 5; round++) {
        // Without the published message, a wait would take a minute.
        const release = await lock(client, name, { pollingInterval: 60_000 });
        tokens.push(release.fencingToken);
        await section.visit();
        await release();
      }
    });
    assert.equal(section.visits, 40);
    assert.deepEqual(tokens, tokens.toSorted((a, b) => a - b));
  });

  check(`RESP${RESP}: extends`, async () => {
    const name = key();
    const release = await lock(client, name, { timeout: 20_000 });
    await probe.pexpire(redisName(name), 1_000);
    await release.refreshTimeout();
    await assertTtl(probe, redisName(name), 19_000, 20_000);
    await release();
  });

  check(`RESP${RESP}: expires, and refuses to release for another`, async () => {
    const name = key();
    const release = await lock(client, name, { timeout: 50 });
    await eventually(async () => (await tryLock(client, name))[0]);
    await release();
    assert.equal(await probe.exists(redisName(name)), 1);
  });

  check(`RESP${RESP}: gives up after its time`, async () => {
    const name = key();
    const release = await lock(client, name);
    await assert.rejects(lock(client, name, { failAfter: 50 }), /could not be acquired/);
    await release();
  });
}
