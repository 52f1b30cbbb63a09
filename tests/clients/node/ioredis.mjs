// ioredis: the lock that its users write by hand, with a custom command for the release.

import assert from 'node:assert/strict';
import { check, connectIoredis, contend, CriticalSection, eventually, ioredisVersions, key } from './support.mjs';

const RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

for (const [version, Redis] of Object.entries(ioredisVersions)) {
  const connect = (options) => {
    const client = connectIoredis(Redis, undefined, options);
    client.defineCommand('release', { numberOfKeys: 1, lua: RELEASE });
    return client;
  };

  check(`${version}: sets, excludes and releases`, async () => {
    const [first, second, name] = [connect(), connect(), key()];
    assert.equal(await first.set(name, 'first', 'PX', 10_000, 'NX'), 'OK');
    assert.equal(await second.set(name, 'second', 'PX', 10_000, 'NX'), null);
    assert.equal(await second.release(name, 'second'), 0);
    assert.equal(await first.release(name, 'first'), 1);
    assert.equal(await second.set(name, 'second', 'PX', 10_000, 'NX'), 'OK');
  });

  check(`${version}: many contend`, async () => {
    const [section, name] = [new CriticalSection(), key()];
    await contend(8, async (index) => {
      const client = connect();
      for (let round = 0; round < 5; round++) {
        await eventually(() => client.set(name, index, 'PX', 30_000, 'NX'));
        await section.visit();
        assert.equal(await client.release(name, index), 1);
      }
    });
    assert.equal(section.visits, 40);
  });

  check(`${version}: expires`, async () => {
    const [first, second, name] = [connect(), connect(), key()];
    assert.equal(await first.set(name, 'first', 'PX', 50, 'NX'), 'OK');
    await eventually(() => second.set(name, 'second', 'PX', 10_000, 'NX'));
    assert.equal(await first.release(name, 'first'), 0);
  });

  check(`${version}: pipelines and transactions`, async () => {
    const [client, name] = [connect(), key()];
    const pipeline = await client.pipeline().set(name, '1').incr(name).release(name, '2').exec();
    assert.deepEqual(pipeline, [[null, 'OK'], [null, 2], [null, 1]]);
    const transaction = await client.multi().set(name, '1', 'NX').pexpire(name, 1_000).get(name).exec();
    assert.deepEqual(transaction, [[null, 'OK'], [null, 1], [null, '1']]);
    await client.watch(name);
    await connect().set(name, 'changed');
    assert.equal(await client.multi().del(name).exec(), null);
  });

  check(`${version}: a script error reaches the caller`, async () => {
    const client = connect();
    await assert.rejects(client.eval('return redis.call("nonsense")', 0), /unknown|Unknown/);
    await assert.rejects(client.eval('return {err = "MINE of my own"}', 0), /MINE of my own/);
  });

  check(`${version}: subscribes`, async () => {
    const [subscriber, name] = [connect(), key()];
    const received = new Promise((resolve) => subscriber.on('message', (...message) => resolve(message)));
    assert.equal(await subscriber.subscribe(name), 1);
    assert.equal(await connect().publish(name, 'released'), 1);
    assert.deepEqual(await received, [name, 'released']);
  });

  check(`${version}: reconnects and selects its database again`, async () => {
    const [client, other, name] = [connect({ db: 3 }), connect({ db: 3 }), key()];
    await client.set(name, 'mine');
    await other.client('KILL', 'ID', await client.client('ID'));
    assert.equal(await eventually(() => client.get(name).catch(() => null)), 'mine');
    assert.equal(await connect().get(name), null);
  });
}
