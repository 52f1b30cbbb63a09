// node-redlock 5 over three servers.

import assert from 'node:assert/strict';
import Redlock, { ExecutionError, Lock } from 'redlock-5';
import {
  check, connectIoredis, contend, CriticalSection, eventually, ioredisVersions, key, urls,
} from './support.mjs';

const probe = connectIoredis();

for (const [version, Redis] of Object.entries(ioredisVersions)) {
  const create = (options, servers = urls) => {
    const locks = new Redlock(servers.map((url) => connectIoredis(Redis, url)), { retryCount: 0, ...options });
    locks.on('error', () => {});
    return locks;
  };

  check(`${version}: acquires, excludes and releases`, async () => {
    const [first, second, name] = [create(), create(), key()];
    const lock = await first.acquire([name], 10_000);
    // It resolves with a majority, and the server asked here may be a moment behind.
    await eventually(async () => (await probe.get(name)) === lock.value);
    await assert.rejects(second.acquire([name], 10_000), ExecutionError);
    await lock.release();
    await (await second.acquire([name], 10_000)).release();
    await eventually(async () => !(await probe.exists(name)));
  });

  check(`${version}: many contend`, async () => {
    const [section, name] = [new CriticalSection(), key()];
    // Between its attempts, a client keeps the servers that it won. With three servers, three
    // clients can each keep one until the locks expire, so here they contend for one server.
    await contend(8, async () => {
      const locks = create({ retryCount: -1, retryDelay: 5, retryJitter: 3 }, urls.slice(0, 1));
      for (let round = 0; round < 5; round++) {
        const lock = await locks.acquire([name], 30_000);
        await section.visit();
        await lock.release();
      }
    });
    assert.equal(section.visits, 40);
  });

  check(`${version}: extends`, async () => {
    const name = key();
    const lock = await (await create().acquire([name], 5_000)).extend(20_000);
    await eventually(async () => (await probe.pttl(name)) > 19_000);
    await lock.release();
  });

  check(`${version}: refuses to release and to extend for another`, async () => {
    const [locks, name] = [create(), key()];
    const lock = await locks.acquire([name], 10_000);
    const stolen = new Lock(locks, [name], 'not its value', [], Date.now() + 10_000);
    await assert.rejects(stolen.extend(10_000), ExecutionError);
    await assert.rejects(stolen.release(), ExecutionError);
    await eventually(async () => (await probe.get(name)) === lock.value);
  });

  check(`${version}: expires`, async () => {
    const name = key();
    const lock = await create().acquire([name], 500);
    await eventually(() => create().acquire([name], 10_000).catch(() => null));
    await assert.rejects(lock.extend(1_000), ExecutionError);
    await assert.rejects(lock.release(), ExecutionError);
  });

  check(`${version}: locks several resources at once`, async () => {
    const names = [key(), key(), key()];
    const lock = await create().acquire(names, 10_000);
    await assert.rejects(create().acquire([names[2]], 10_000), ExecutionError);
    await lock.release();
    await eventually(async () => !(await probe.exists(...names)));
  });

  check(`${version}: extends by itself while a routine runs`, async () => {
    const name = key();
    const locks = create({ automaticExtensionThreshold: 600 });
    const holder = await locks.using([name], 1_000, async (signal) => {
      const first = await eventually(() => probe.get(name));
      const end = Date.now() + 1_500;
      while (Date.now() < end) {
        assert.equal(await probe.get(name), first);
        assert.ok(!signal.aborted);
      }
      return first;
    });
    assert.ok(holder);
    await eventually(async () => !(await probe.exists(name)));
  });

  check(`${version}: a minority may be down`, async () => {
    const locks = create({}, [...urls.slice(0, 2), 'redis://127.0.0.1:1']);
    const lock = await locks.acquire([key()], 10_000);
    await lock.extend(10_000).then((extended) => extended.release());
  });
}
