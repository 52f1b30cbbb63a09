// The snippets in JavaScript of the README and of docs/migrating.md, as they are printed.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import test from 'node:test';
import Redlock from 'redlock-5';

import { connectIoredis, eventually, ioredisVersions, urls } from './support.mjs';

const snippets = async (page) => {
  const text = await readFile(new URL(`../../../${page}`, import.meta.url), 'utf8');
  return [...text.matchAll(/^```js\n(.*?)^```$/gms)].map((found) => found[1]);
};
const [snippet] = await snippets('README.md');
const [before, connected, after] = await snippets('docs/migrating.md');
const AsyncFunction = (async () => {}).constructor;
const run = new AsyncFunction('redis', 'randomUUID', 'work', snippet);

for (const [name, Redis] of Object.entries(ioredisVersions)) {
  test(`${name}: the snippet works`, async () => {
    const redis = connectIoredis(Redis);
    const worked = [];
    await run(redis, randomUUID, async (token) => worked.push(token));
    assert.equal(worked.length, 1);
    assert.ok(worked[0] > 0);
    assert.equal(await redis.call('FENCE', 'invoice:42'), null);
  });
}

test('migrating from Redlock: with three servers, then with one', async () => {
  const servers = urls.map((url) => connectIoredis(undefined, url));
  const held = async () => {
    const values = await Promise.all(servers.map((server) => server.get('invoice:42')));
    return values.filter((value) => value !== null).length;
  };
  const seen = [];
  const work = async () => seen.push(await held());
  const threefold = new AsyncFunction('Redlock', 'redisA', 'redisB', 'redisC', 'work', before);
  await threefold(Redlock, ...servers, work);
  assert.ok(seen[0] >= 2, `${seen[0]} is a majority`);
  await eventually(async () => (await held()) === 0);
  const Redis = function (port, host) {
    assert.deepEqual([port, host], [7379, 'octostore']);
    return servers[0];
  };
  const uses = before.slice(before.indexOf('\n'));
  await new AsyncFunction('Redlock', 'Redis', 'work', connected + uses)(Redlock, Redis, work);
  assert.deepEqual([seen[1], await held()], [1, 0]);
});

test('migrating from Redlock: without the library', () => assert.equal(after, snippet));
