// BullMQ's lock path: how a worker renews and releases the lock of the job that it runs. Its queues
// themselves need streams.

import assert from 'node:assert/strict';
import { Queue } from 'bullmq';
import { assertTtl, atEnd, check, connectIoredis, connectNodeRedis, eventually, ioredisVersions, key } from './support.mjs';

const probe = connectIoredis();

const connections = {
  'node-redis': () => connectNodeRedis(),
};
for (const [version, Redis] of Object.entries(ioredisVersions)) {
  connections[version] = async () => connectIoredis(Redis, undefined, { maxRetriesPerRequest: null });
}

for (const [version, connect] of Object.entries(connections)) {
  /** A queue, and the lock that its worker would have taken when it moved the job to active. */
  const create = async (ttl = 5_000) => {
    const queue = new Queue(key(), { connection: await connect() });
    atEnd(() => queue.close());
    await queue.waitUntilReady();
    const lock = queue.toKey('1') + ':lock';
    await probe.set(lock, 'token', 'PX', ttl);
    await probe.sadd(queue.toKey('stalled'), '1', '2');
    return { queue, lock, stalled: queue.toKey('stalled') };
  };

  check(`${version}: a worker extends its job's lock`, async () => {
    const { queue, lock, stalled } = await create();
    assert.equal(await queue.backend.extendLock('1', 'token', 20_000), 1);
    await assertTtl(probe, lock, 19_000, 20_000);
    assert.deepEqual(await probe.smembers(stalled), ['2']);
  });

  check(`${version}: another worker does not`, async () => {
    const { queue, lock, stalled } = await create();
    assert.equal(await queue.backend.extendLock('1', 'not its token', 20_000), 0);
    await assertTtl(probe, lock, 0, 5_000);
    assert.equal(await probe.scard(stalled), 2);
  });

  check(`${version}: a worker extends many locks in one script`, async () => {
    const { queue, lock, stalled } = await create();
    const failed = await queue.backend.extendLocks(['1', '2', '3'], ['token', 'token', 'token'], 20_000);
    assert.deepEqual(failed, ['2', '3']);
    await assertTtl(probe, lock, 19_000, 20_000);
    assert.deepEqual(await probe.smembers(stalled), ['2']);
  });

  check(`${version}: a lock that has expired cannot be extended`, async () => {
    const { queue, lock } = await create(50);
    await eventually(async () => !(await probe.exists(lock)));
    assert.equal(await queue.backend.extendLock('1', 'token', 20_000), 0);
    assert.equal(await probe.exists(lock), 0);
  });
}
