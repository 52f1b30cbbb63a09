// ioredis-lock

import assert from 'node:assert/strict';
import ioredisLock from 'ioredis-lock';
import {
  assertTtl, check, connectIoredis, contend, CriticalSection, eventually, ioredisVersions, key,
} from './support.mjs';

const { createLock, LockAcquisitionError, LockExtendError, LockReleaseError } = ioredisLock;
const probe = connectIoredis();

for (const [version, Redis] of Object.entries(ioredisVersions)) {
  const create = (options) => createLock(connectIoredis(Redis), options);

  check(`${version}: acquires, excludes and releases`, async () => {
    const [first, second, name] = [create(), create(), key()];
    await first.acquire(name);
    await assert.rejects(second.acquire(name), LockAcquisitionError);
    await first.release();
    await second.acquire(name);
    await second.release();
    assert.equal(await probe.exists(name), 0);
  });

  check(`${version}: many contend`, async () => {
    const [section, name] = [new CriticalSection(), key()];
    await contend(8, async () => {
      const lock = create({ timeout: 30_000, retries: 5_000, delay: 3 });
      for (let round = 0; round < 5; round++) {
        await lock.acquire(name);
        await section.visit();
        await lock.release();
      }
    });
    assert.equal(section.visits, 40);
  });

  check(`${version}: extends`, async () => {
    const [lock, name] = [create({ timeout: 5_000 }), key()];
    await lock.acquire(name);
    await lock.extend(20_000);
    await assertTtl(probe, name, 19_000, 20_000);
    await lock.release();
  });

  check(`${version}: expires, and refuses to release or extend for another`, async () => {
    const [first, second, third, name] = [create({ timeout: 50 }), create({ timeout: 50 }), create(), key()];
    await first.acquire(name);
    await eventually(() => second.acquire(name).then(() => true, () => false));
    await assert.rejects(first.release(), LockReleaseError);
    await eventually(() => third.acquire(name).then(() => true, () => false));
    await assert.rejects(second.extend(1_000), LockExtendError);
    await third.release();
  });

  check(`${version}: raises what it documents`, async () => {
    const lock = create();
    await assert.rejects(lock.release(), LockReleaseError);
    await assert.rejects(lock.extend(1_000), LockExtendError);
    await lock.acquire(key());
    await assert.rejects(lock.acquire(key()), LockAcquisitionError);
    await lock.release();
  });
}
