// node-redlock 4 over three servers, through ioredis and through node-redis 3.

import assert from 'node:assert/strict';
import { createClient } from 'redis-3';
import Redlock from 'redlock-4';
import {
  assertTtl, atEnd, check, connectIoredis, contend, CriticalSection, eventually, ioredisVersions, key, urls,
} from './support.mjs';

const probe = connectIoredis();
const connections = {
  'node-redis 3': (url) => {
    const client = createClient(url);
    client.on('error', () => {});
    atEnd(() => client.end(true));
    return client;
  },
};
for (const [version, Redis] of Object.entries(ioredisVersions)) {
  connections[version] = (url) => connectIoredis(Redis, url);
}

for (const [version, connect] of Object.entries(connections)) {
  const create = (options) => new Redlock(urls.map(connect), { retryCount: 0, ...options });

  check(`${version}: acquires, excludes and releases`, async () => {
    const [first, second, name] = [create(), create(), key()];
    const lock = await first.lock(name, 10_000);
    assert.equal(await probe.get(name), lock.value);
    await assert.rejects(second.lock(name, 10_000), Redlock.LockError);
    await lock.unlock();
    await (await second.lock(name, 10_000)).unlock();
    assert.equal(await probe.exists(name), 0);
  });

  check(`${version}: many contend`, async () => {
    const [section, name] = [new CriticalSection(), key()];
    // Attempts that overlap split the votes, so the delays are long against an attempt.
    await contend(3, async () => {
      const locks = create({ retryCount: -1, retryDelay: 60, retryJitter: 50 });
      for (let round = 0; round < 3; round++) {
        const lock = await locks.lock(name, 30_000);
        await section.visit();
        await lock.unlock();
      }
    });
    assert.equal(section.visits, 9);
  });

  check(`${version}: extends`, async () => {
    const name = key();
    const lock = await create().lock(name, 5_000);
    await lock.extend(20_000);
    await assertTtl(probe, name, 19_000, 20_000);
    await lock.unlock();
  });

  check(`${version}: refuses to release and to extend for another`, async () => {
    const [locks, name] = [create(), key()];
    const lock = await locks.lock(name, 10_000);
    const stolen = new Redlock.Lock(locks, [name], 'not its value', Date.now() + 10_000);
    await assert.rejects(stolen.unlock(), Redlock.LockError);
    await assert.rejects(stolen.extend(10_000), Redlock.LockError);
    assert.equal(await probe.get(name), lock.value);
  });

  check(`${version}: expires`, async () => {
    const [locks, name] = [create(), key()];
    const lock = await locks.lock(name, 500);
    await eventually(() => create().lock(name, 10_000).catch(() => null));
    await assert.rejects(lock.extend(1_000), /expired/);
    await assert.rejects(lock.unlock(), Redlock.LockError);
  });

  check(`${version}: locks several resources at once`, async () => {
    const [locks, names] = [create(), [key(), key(), key()]];
    const lock = await locks.lock(names, 10_000);
    await assert.rejects(create().lock(names[2], 10_000), Redlock.LockError);
    await lock.extend(20_000);
    for (const name of names) await assertTtl(probe, name, 19_000, 20_000);
    await lock.unlock();
    assert.equal(await probe.exists(...names), 0);
  });
}
