// redis-semaphore: Mutex, Semaphore and MultiSemaphore, and their forms over three servers.

import assert from 'node:assert/strict';
import {
  LostLockError, MultiSemaphore, Mutex, RedlockMultiSemaphore, RedlockMutex, RedlockSemaphore, Semaphore, TimeoutError,
} from 'redis-semaphore';
import {
  assertTtl, check, connectIoredis, contend, CriticalSection, eventually, ioredisVersions, key, urls,
} from './support.mjs';

const probe = connectIoredis();
const ONCE = { acquireAttemptsLimit: 1 };

for (const [version, Redis] of Object.entries(ioredisVersions)) {
  const one = () => connectIoredis(Redis);
  const three = () => urls.map((url) => connectIoredis(Redis, url));
  // Each kind, with how many may hold it at once.
  const kinds = {
    Mutex: [1, (name, options) => new Mutex(one(), name, options)],
    Semaphore: [3, (name, options) => new Semaphore(one(), name, 3, options)],
    MultiSemaphore: [2, (name, options) => new MultiSemaphore(one(), name, 5, 2, options)],
    RedlockMutex: [1, (name, options) => new RedlockMutex(three(), name, options)],
    RedlockSemaphore: [3, (name, options) => new RedlockSemaphore(three(), name, 3, options)],
    RedlockMultiSemaphore: [2, (name, options) => new RedlockMultiSemaphore(three(), name, 5, 2, options)],
  };

  for (const [kind, [limit, create]] of Object.entries(kinds)) {
    check(`${version}: ${kind} is held by at most ${limit}`, async () => {
      const name = key();
      const holders = Array.from({ length: limit }, () => create(name, ONCE));
      for (const holder of holders) await holder.acquire();
      await assert.rejects(create(name, ONCE).acquire(), TimeoutError);
      assert.equal(await create(name, ONCE).tryAcquire(), false);
      await holders[0].release();
      const next = create(name, ONCE);
      await next.acquire();
      await Promise.all([...holders, next].map((holder) => holder.release()));
      assert.equal(await probe.exists(`mutex:${name}`, `semaphore:${name}`), 0);
    });

    check(`${version}: ${kind} expires, and its holder hears of it`, async () => {
      const name = key();
      const lost = new Promise((resolve) => {
        const options = { lockTimeout: 200, refreshInterval: 600, onLockLost: resolve };
        create(name, options).acquire();
      });
      assert.ok((await lost) instanceof LostLockError);
      const next = create(name, ONCE);
      await next.acquire();
      await next.release();
    });

    check(`${version}: ${kind} is refreshed while it is held`, async () => {
      const name = key();
      const holders = Array.from({ length: limit }, () => create(name, { lockTimeout: 800, refreshInterval: 100 }));
      for (const holder of holders) await holder.acquire();
      const end = Date.now() + 1_000;
      while (Date.now() < end) assert.equal(await create(name, { ...ONCE, refreshInterval: 0 }).tryAcquire(), false);
      for (const holder of holders) {
        assert.ok(holder.isAcquired);
        await holder.release();
      }
    });
  }

  check(`${version}: many contend for a Mutex`, async () => {
    const [section, name] = [new CriticalSection(), key()];
    await contend(8, async () => {
      const mutex = new Mutex(one(), name, { lockTimeout: 30_000, retryInterval: 3 });
      for (let round = 0; round < 5; round++) {
        await mutex.acquire();
        await section.visit();
        await mutex.release();
      }
    });
    assert.equal(section.visits, 40);
  });

  check(`${version}: many contend for a Semaphore`, async () => {
    const name = key();
    let [inside, visits] = [0, 0];
    await contend(8, async () => {
      const semaphore = new Semaphore(one(), name, 3, { lockTimeout: 30_000, retryInterval: 3 });
      for (let round = 0; round < 5; round++) {
        await semaphore.acquire();
        assert.ok(++inside <= 3, 'more than three hold the semaphore');
        await one().ping();
        inside--;
        visits++;
        await semaphore.release();
      }
    });
    assert.equal(visits, 40);
  });

  check(`${version}: a Mutex passes from one process to another`, async () => {
    const name = key();
    const first = new Mutex(one(), name, { lockTimeout: 5_000, refreshInterval: 0 });
    await first.acquire();
    const options = { identifier: first.identifier, acquiredExternally: true, lockTimeout: 20_000 };
    const second = new Mutex(one(), name, options);
    await second.acquire();
    await assertTtl(probe, `mutex:${name}`, 19_000, 20_000);
    await second.release();
    await eventually(async () => !(await probe.exists(`mutex:${name}`)));
  });
}
