// node-redis: SET NX, its scripts, WATCH and its pool.

import assert from 'node:assert/strict';
import { createClientPool, defineScript, WatchError } from 'redis';
import { createClient as createClient4 } from 'redis-4';
import { atEnd, check, connectNodeRedis, contend, CriticalSection, eventually, key, url } from './support.mjs';

const scripts = {
  release: defineScript({
    NUMBER_OF_KEYS: 1,
    SCRIPT: "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end",
    parseCommand(parser, name, owner) {
      parser.pushKey(name);
      parser.push(owner);
    },
    transformReply: undefined,
  }),
};

for (const RESP of [2, 3]) {
  const connect = () => connectNodeRedis({ RESP, scripts });

  check(`RESP${RESP}: sets, excludes and releases`, async () => {
    const [first, second, name] = [await connect(), await connect(), key()];
    assert.equal(await first.set(name, 'first', { NX: true, PX: 10_000 }), 'OK');
    assert.equal(await second.set(name, 'second', { NX: true, PX: 10_000 }), null);
    assert.equal(await second.release(name, 'second'), 0);
    assert.equal(await first.get(name), 'first');
    assert.equal(await first.release(name, 'first'), 1);
  });

  check(`RESP${RESP}: many contend`, async () => {
    const [section, name] = [new CriticalSection(), key()];
    await contend(8, async (index) => {
      const client = await connect();
      for (let round = 0; round < 5; round++) {
        await eventually(() => client.set(name, `${index}`, { NX: true, PX: 30_000 }));
        await section.visit();
        assert.equal(await client.release(name, `${index}`), 1);
      }
    });
    assert.equal(section.visits, 40);
  });

  check(`RESP${RESP}: extends under WATCH, and not after a change`, async () => {
    const [client, other, name] = [await connect(), await connect(), key()];
    await client.set(name, 'mine', { PX: 5_000 });
    await client.watch(name);
    assert.equal(await client.get(name), 'mine');
    assert.deepEqual(await client.multi().pExpire(name, 20_000).exec(), [1]);
    await client.watch(name);
    await other.set(name, 'yours');
    await assert.rejects(client.multi().del(name).exec(), WatchError);
    assert.equal(await client.get(name), 'yours');
  });
}

check('its pool runs commands and transactions', async () => {
  const pool = await createClientPool({ url, scripts }, { maximum: 4 }).connect();
  atEnd(() => pool.destroy());
  const name = key();
  const sets = await contend(8, () => pool.set(name, 'one', { NX: true, PX: 10_000 }));
  assert.equal(sets.filter((reply) => reply === 'OK').length, 1);
  assert.deepEqual(await pool.multi().get(name).del(name).exec(), ['one', 1]);
});

check('it subscribes and unsubscribes', async () => {
  const [subscriber, publisher, name] = [await connectNodeRedis(), await connectNodeRedis(), key()];
  const received = new Promise((resolve) => subscriber.subscribe(name, resolve));
  await eventually(() => publisher.publish(name, 'released'));
  assert.equal(await received, 'released');
  await subscriber.unsubscribe(name);
  assert.equal(await publisher.publish(name, 'released'), 0);
  assert.equal(await subscriber.ping(), 'PONG');
});

check('version 4: sets, excludes, and releases by EVALSHA', async () => {
  const client = createClient4({ url });
  atEnd(() => client.disconnect());
  await client.connect();
  const name = key();
  assert.equal(await client.set(name, 'mine', { NX: true, PX: 10_000 }), 'OK');
  assert.equal(await client.set(name, 'yours', { NX: true, PX: 10_000 }), null);
  const sha = await client.scriptLoad(scripts.release.SCRIPT);
  assert.deepEqual(await client.scriptExists(sha), [true]);
  assert.equal(await client.evalSha(sha, { keys: [name], arguments: ['yours'] }), 0);
  assert.equal(await client.evalSha(sha, { keys: [name], arguments: ['mine'] }), 1);
});
