// ioredis with a cluster of servers: over any of them, and with Sentinel.

import assert from 'node:assert/strict';
import { atEnd, check, eventually, ioredisVersions, key, urls } from './support.mjs';

const NAME = 'octostore';
const addresses = (urls) => urls.map((url) => ({ host: new URL(url).hostname, port: Number(new URL(url).port) }));
// From the loss of the leader to the next grant.
const MILLISECONDS_MAX = 5000;
const sentinels = addresses(urls);
const onlySentinels = addresses(process.env.SENTINELS.split(','));

function connect(Redis, options) {
  const client = new Redis({ retryStrategy: () => 50, sentinelRetryStrategy: () => 50, ...options });
  client.on('error', () => {});
  atEnd(() => client.disconnect());
  return client;
}

/** The result of a call, or null while there is no leader. */
const attempt = (call) => call.catch(() => null);

for (const [version, Redis] of Object.entries(ioredisVersions)) {
  check(`${version}: every server serves a plain client`, async () => {
    const [name, clients] = [key(), sentinels.map((address) => connect(Redis, address))];
    await eventually(() => attempt(clients[0].set(name, 'me', 'PX', 60_000, 'NX')));
    for (const client of clients) {
      assert.equal(await client.get(name), 'me');
      assert.equal(await client.set(name, 'other', 'PX', 60_000, 'NX'), null);
    }
  });

  check(`${version}: Sentinel leads to the leader`, async () => {
    const [name, client] = [key(), connect(Redis, { sentinels, name: NAME })];
    assert.equal((await client.role())[0], 'master');
    assert.equal(await client.set(name, 'me', 'PX', 60_000, 'NX'), 'OK');
    const reader = connect(Redis, sentinels[0]);
    assert.equal(await reader.get(name), 'me');
  });

  check(`${version}: servers are sentinels at ports of their own`, async () => {
    const [name, client] = [key(), connect(Redis, { sentinels: onlySentinels, name: NAME })];
    assert.equal(await client.set(name, 'me', 'PX', 60_000, 'NX'), 'OK');
    assert.deepEqual(await connect(Redis, onlySentinels[0]).role(), ['sentinel', [NAME]]);
  });
}

check('clients go on when the leader is killed', async () => {
  const versions = Object.values(ioredisVersions);
  const clients = versions.map((Redis) => connect(Redis, { sentinels, name: NAME }));
  const names = clients.map(key);
  for (const [number, client] of clients.entries()) {
    assert.equal(await client.set(names[number], 'me', 'PX', 60_000, 'NX'), 'OK');
  }
  const asked = connect(versions[0], sentinels[0]);
  const [, port] = await asked.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', NAME);
  const place = sentinels.findIndex((address) => address.port === Number(port));
  process.kill(Number(process.env.PROCESSES.split(',')[place]), 'SIGKILL');
  const killed = Date.now();
  clients.push(connect(versions[0], sentinels[(place + 1) % sentinels.length]));
  for (const client of clients) {
    const name = key();
    await eventually(() => attempt(client.set(name, 'me', 'PX', 60_000, 'NX').then((set) => set ?? client.get(name))));
    assert.ok(Date.now() - killed < MILLISECONDS_MAX);
    assert.equal(await client.get(names[0]), 'me', 'what was acknowledged is still there');
  }
});
