// The snippet in JavaScript of the README, as it is printed.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import test from 'node:test';

import { connectIoredis, ioredisVersions } from './support.mjs';

const readme = await readFile(new URL('../../../README.md', import.meta.url), 'utf8');
const snippet = readme.match(/^```js\n(.*?)^```$/ms)[1];
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
