// ioredis with users and TLS.

import assert from 'node:assert/strict';
import { REFUSED, renew, tls } from './certificates.mjs';
import { check, connectIoredis, eventually, ioredisVersions, key, url } from './support.mjs';

const WORKER = { username: 'worker', password: 'worker-password' };

for (const [version, Redis] of Object.entries(ioredisVersions)) {
  const connect = (options, certificate, roots) =>
    connectIoredis(Redis, url, { ...options, tls: tls(certificate, roots), maxRetriesPerRequest: 0 });

  check(`${version}: locks as a user`, async () => {
    const [client, name] = [connect(WORKER), `jobs.${key()}`];
    assert.equal(await client.acl('WHOAMI'), 'worker');
    assert.equal(await client.set(name, 'me', 'PX', 10_000, 'NX'), 'OK');
    assert.equal(await client.del(name), 1);
  });

  check(`${version}: other keys, channels and commands are refused`, async () => {
    const [client, name] = [connect(WORKER), key()];
    await assert.rejects(client.set(name, 'me', 'NX'), /NOPERM.*access a key/);
    await assert.rejects(client.publish(name, 'released'), /NOPERM.*access a channel/);
    await assert.rejects(client.flushall(), /NOPERM.*'flushall'/);
    await assert.rejects(client.multi().set(`jobs.${name}`, 'me').get(name).exec(), /EXECABORT|NOPERM/);
    await assert.rejects(client.eval('return redis.call("get", KEYS[1])', 1, name), /NOPERM|ACL failure/);
    assert.equal(await client.exists(`jobs.${name}`), 0);
  });

  check(`${version}: wrong or no credentials are refused`, async () => {
    const problem = async (options) => {
      const client = connect({ ...options, retryStrategy: null });
      const problems = [];
      client.on('error', (error) => problems.push(error.message));
      await client.ping().catch((error) => problems.push(error.message));
      return problems.join(' ');
    };
    assert.match(await problem({ ...WORKER, password: 'wrong' }), /WRONGPASS/);
    assert.match(await problem({ ...WORKER, username: 'stranger' }), /WRONGPASS/);
    assert.match(await problem({}), /NOAUTH/);
  });

  check(`${version}: the certificate names the user`, async () => {
    const client = connect({}, 'worker');
    assert.equal(await client.acl('WHOAMI'), 'worker');
    await assert.rejects(client.get(key()), /NOPERM/);
  });

  check(`${version}: other certificates are refused`, async () => {
    for (const certificate of REFUSED) {
      await assert.rejects(connect({ ...WORKER, retryStrategy: null }, certificate).ping());
    }
  });

  check(`${version}: subscribes to its channels`, async () => {
    const [subscriber, name] = [connect(WORKER), `jobs.${key()}`];
    const received = new Promise((resolve) => subscriber.on('message', (...message) => resolve(message)));
    assert.equal(await subscriber.subscribe(name), 1);
    assert.equal(await connect(WORKER).publish(name, 'released'), 1);
    assert.deepEqual(await received, [name, 'released']);
  });
}

check('a running client outlives the certificate of its server', async () => {
  const connect = (roots) => connectIoredis(undefined, url, { ...WORKER, tls: tls('client', roots), maxRetriesPerRequest: 0 });
  const isTrusted = () => connect('new-ca').ping().catch(() => false);
  const client = connect();
  const id = await client.client('ID');
  assert.equal(await isTrusted(), false);
  renew();
  await eventually(isTrusted);
  assert.equal(await client.client('ID'), id);
});
