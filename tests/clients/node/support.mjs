// What the tests of all libraries share.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import test, { after } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis as Redis6 } from 'ioredis';
import Redis5 from 'ioredis-5';
import { createClient } from 'redis';

export const urls = process.env.SERVERS.split(',');
export const url = urls[0];

/** The versions of ioredis that each library is run with. */
export const ioredisVersions = { 'ioredis 5': Redis5, 'ioredis 6': Redis6 };

const closing = [];
after(() => Promise.all(closing.map((close) => close())));

/** Closes something when all tests of the file have run. */
export function atEnd(close) {
  closing.push(close);
}

export function connectIoredis(Redis = Redis6, to = url, options = {}) {
  const client = new Redis(to, options);
  client.on('error', () => {});
  atEnd(() => client.disconnect());
  return client;
}

export async function connectNodeRedis(options = {}) {
  const client = createClient({ url, ...options });
  client.on('error', () => {});
  atEnd(() => client.destroy());
  return client.connect();
}

/** A name that no other test uses. */
export const key = () => randomUUID();

/** One check: a test that fails instead of hanging. */
export function check(name, work) {
  test(name, { timeout: 20_000 }, work);
}

/** Polls until the condition holds, and returns its value. */
export async function eventually(condition) {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < deadline, 'the condition never held');
    await delay(5);
  }
}

/** Fails when two are in it at the same time, and counts the visits. */
export class CriticalSection {
  inside = 0;
  visits = 0;

  async visit() {
    assert.equal(++this.inside, 1, 'two hold the lock at the same time');
    const visits = this.visits;
    await delay(1);
    this.visits = visits + 1;
    this.inside--;
  }
}

/** Runs `work` several times at once. */
export function contend(count, work) {
  return Promise.all(Array.from({ length: count }, (_, index) => work(index)));
}

export async function assertTtl(client, name, min, max) {
  const ttl = Number(await client.pttl(name));
  assert.ok(min < ttl && ttl <= max, `${ttl} ms are left, not ${min} to ${max}`);
}
