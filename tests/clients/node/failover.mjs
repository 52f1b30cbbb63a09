// Takes and releases locks until it is killed, as one of the clients of ../failover; see there.
//
//     node failover.mjs plain|sentinel|cluster

import { closeSync, existsSync, openSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Cluster, Redis } from 'ioredis';

const TTL_S = 30;
const PAUSE_MS = 5;
const RETRY_PAUSE_MS = 20;
// A server that is stopped answers nothing.
const options = { commandTimeout: 2000, connectTimeout: 1000, maxRetriesPerRequest: 1 };

const kind = process.argv[2];
const keys = process.env.KEYS.split(',');
const addresses = process.env.SERVERS.split(',').map((url) => {
  const { hostname: host, port } = new URL(url);
  return { host, port: Number(port) };
});

let client;

function connect() {
  const retry = { retryStrategy: () => 50, sentinelRetryStrategy: () => 50 };
  if (kind === 'sentinel') {
    client = new Redis({ ...options, ...retry, sentinels: addresses, name: 'octostore' });
  } else if (kind === 'cluster') {
    const redisOptions = { commandTimeout: 2000, connectTimeout: 1000 };
    client = new Cluster(addresses, { clusterRetryStrategy: () => 50, retryDelayOnFailover: 50, redisOptions });
  } else {
    // Any server, and the next one when that fails.
    addresses.push(addresses.shift());
    client = new Redis({ ...options, ...addresses[0], retryStrategy: () => null });
  }
  client.on('error', () => {});
}

/** The answer to a request, which is repeated until there is one. */
async function untilAnswered(request) {
  for (;;) {
    try {
      return await request();
    } catch (error) {
      console.error(String(error));
      if (kind === 'plain') {
        client.disconnect();
        connect();
      }
      await delay(RETRY_PAUSE_MS);
    }
  }
}

/** Notes whether another client is here, too, and whether one with a larger token was. */
function witness(key, token) {
  const inside = join(process.env.WITNESS, key);
  const newest = `${inside}.token`;
  try {
    closeSync(openSync(inside, 'wx'));
  } catch {
    console.log(`two-holders ${key}`);
    return;
  }
  if (existsSync(newest) && Number(readFileSync(newest)) >= token) {
    console.log(`old-token ${key}`);
  }
  writeFileSync(newest, String(token));
  unlinkSync(inside);
}

connect();
for (;;) {
  const [key, owner] = [keys[Math.floor(Math.random() * keys.length)], randomUUID()];
  // The same owner gets the same grant, if the answer to the first request was lost.
  const token = await untilAnswered(() => client.call('LOCK', key, owner, 'EX', TTL_S));
  if (token === null) {
    await delay(PAUSE_MS);
    continue;
  }
  witness(key, token);
  await untilAnswered(() => client.call('UNLOCK', key, owner));
  console.log(`took ${key} ${token}`);
}
