// redlock-universal: locks on one server and on three, through ioredis and node-redis.

import assert from 'node:assert/strict';
import {
  createLock, createRedlock, IoredisAdapter, LockAcquisitionError, LockManager, NodeRedisAdapter,
} from 'redlock-universal';
import {
  assertTtl, check, connectIoredis, connectNodeRedis, contend, CriticalSection, eventually, ioredisVersions, key, urls,
} from './support.mjs';

const probe = connectIoredis();
const connections = {
  'node-redis': async (url) => new NodeRedisAdapter(await connectNodeRedis({ url })),
};
for (const [version, Redis] of Object.entries(ioredisVersions)) {
  connections[version] = async (url) => new IoredisAdapter(connectIoredis(Redis, url));
}
const options = { retryAttempts: 0, ttl: 10_000 };

for (const [version, connect] of Object.entries(connections)) {
  const kinds = {
    lock: async (name, more) => createLock({ adapter: await connect(urls[0]), key: name, ...options, ...more }),
    redlock: async (name, more) =>
      createRedlock({ adapters: await Promise.all(urls.map(connect)), key: name, ...options, ...more }),
  };

  for (const [kind, create] of Object.entries(kinds)) {
    check(`${version}: ${kind} acquires, excludes and releases`, async () => {
      const name = key();
      const [first, second] = [await create(name), await create(name)];
      const handle = await first.acquire();
      assert.equal(await probe.get(name), handle.value);
      await assert.rejects(second.acquire(), LockAcquisitionError);
      assert.equal(await first.release(handle), true);
      await second.release(await second.acquire());
      assert.equal(await probe.exists(name), 0);
    });

    check(`${version}: ${kind} extends`, async () => {
      const name = key();
      const lock = await create(name);
      const handle = await lock.acquire();
      assert.equal(await lock.extend(handle, 20_000), true);
      await assertTtl(probe, name, 19_000, 20_000);
      await lock.release(handle);
    });

    check(`${version}: ${kind} refuses to release and to extend for another`, async () => {
      const name = key();
      const lock = await create(name);
      const handle = await lock.acquire();
      const stolen = { ...handle, value: 'not its value' };
      assert.equal(await lock.extend(stolen, 20_000).catch(() => false), false);
      assert.equal(await lock.release(stolen).catch(() => false), false);
      assert.equal(await probe.get(name), handle.value);
    });

    check(`${version}: ${kind} expires`, async () => {
      const name = key();
      const [first, second] = [await create(name, { ttl: 500 }), await create(name)];
      const handle = await first.acquire();
      await eventually(() => second.acquire().catch(() => null));
      assert.equal(await first.release(handle).catch(() => false), false);
    });

    check(`${version}: many contend for a ${kind}`, async () => {
      const [section, name] = [new CriticalSection(), key()];
      await contend(4, async () => {
        const lock = await create(name, { ttl: 30_000, retryAttempts: 2_000, retryDelay: 5 });
        for (let round = 0; round < 3; round++) {
          await lock.using(() => section.visit());
        }
      });
      assert.equal(section.visits, 12);
    });
  }

  check(`${version}: a batch is taken as a whole`, async () => {
    const names = [key(), key(), key()];
    const manager = new LockManager({ nodes: [await connect(urls[0])], defaultTTL: 10_000, defaultRetryAttempts: 0 });
    const handles = await manager.acquireBatch(names);
    await assert.rejects(manager.acquireBatch([key(), names[1]], { retryAttempts: 0 }), LockAcquisitionError);
    await manager.releaseBatch(handles);
    assert.equal(await probe.exists(...names), 0);
  });

  check(`${version}: a lock can be inspected`, async () => {
    const name = key();
    const adapter = await connect(urls[0]);
    const lock = createLock({ adapter, key: name, ...options });
    assert.equal(await lock.isLocked(name), false);
    const handle = await lock.acquire();
    assert.equal(await lock.isLocked(name), true);
    const { value, ttl } = await adapter.inspect(name);
    assert.equal(value, handle.value);
    assert.ok(9_000 < ttl && ttl <= 10_000);
    await lock.release(handle);
  });
}
