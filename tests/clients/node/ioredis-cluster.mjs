// ioredis with the shards of a cluster, as a client of Redis Cluster.

import assert from 'node:assert/strict';
import { Cluster as Cluster6 } from 'ioredis';
import Redis5 from 'ioredis-5';
import { atEnd, check, eventually, key, urls } from './support.mjs';

// From the loss of a leader to the next grant.
const MILLISECONDS_MAX = 5000;
const KEYS = 30;
const nodes = urls.map((url) => ({ host: new URL(url).hostname, port: Number(new URL(url).port) }));
const versions = { 'ioredis 5': Redis5.Cluster, 'ioredis 6': Cluster6 };

function connect(Cluster) {
  const client = new Cluster(nodes, { clusterRetryStrategy: () => 50, retryDelayOnFailover: 50 });
  client.on('error', () => {});
  atEnd(() => client.disconnect());
  return client;
}

const several = () => {
  const prefix = key();
  return Array.from({ length: KEYS }, (_, number) => `${prefix}:${number}`);
};

for (const [version, Cluster] of Object.entries(versions)) {
  check(`${version}: keys of all shards are served`, async () => {
    const client = connect(Cluster);
    const names = several();
    for (const name of names) {
      assert.equal(await client.set(name, 'me', 'PX', 60_000, 'NX'), 'OK');
      assert.equal(await client.set(name, 'other', 'PX', 60_000, 'NX'), null);
    }
    assert.equal(client.nodes('master').length, 2);
    const values = await Promise.all(names.map((name) => client.get(name)));
    assert.deepEqual(values, names.map(() => 'me'));
  });

  check(`${version}: scripts release locks`, async () => {
    const client = connect(Cluster);
    const script = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1]) or 0";
    for (const name of several()) {
      await client.set(name, 'me', 'PX', 60_000);
      assert.equal(await client.eval(script, 1, name, 'other'), 0);
      assert.equal(await client.eval(script, 1, name, 'me'), 1);
    }
  });

  check(`${version}: keys with a tag are used together`, async () => {
    const client = connect(Cluster);
    const tag = key();
    const [one, two] = [`{${tag}}:1`, `{${tag}}:2`];
    const replies = await client.multi().set(one, 'a').set(two, 'b').mget(one, two).exec();
    assert.deepEqual(replies.at(-1), [null, ['a', 'b']]);
  });
}

check('clients go on when a leader is killed', async () => {
  const clients = Object.values(versions).map(connect);
  const names = several();
  for (const name of names) {
    assert.equal(await clients[0].set(name, 'me', 'PX', 60_000, 'NX'), 'OK');
  }
  // The first shard has a standby.
  const [[, , [, port]]] = (await clients[0].cluster('SLOTS')).filter(([first]) => first === 0);
  const place = nodes.findIndex((node) => node.port === port);
  process.kill(Number(process.env.PROCESSES.split(',')[place]), 'SIGKILL');
  const killed = Date.now();
  for (const client of clients) {
    const attempt = (name) => client.set(name, 'me', 'PX', 60_000).catch(() => null);
    for (const name of names) {
      await eventually(() => attempt(`${name}:new`));
      assert.equal(await client.get(name), 'me', 'what was acknowledged is still there');
    }
    assert.ok(Date.now() - killed < MILLISECONDS_MAX);
  }
});
