// node-redis with users and TLS, in RESP2 and RESP3.

import assert from 'node:assert/strict';
import { REFUSED, renew, tls } from './certificates.mjs';
import { check, connectNodeRedis, eventually, key } from './support.mjs';

const WORKER = { username: 'worker', password: 'worker-password' };

const connect = (options, certificate, roots) =>
  connectNodeRedis({ ...options, socket: { tls: true, reconnectStrategy: false, ...tls(certificate, roots) } });

for (const RESP of [2, 3]) {
  check(`RESP${RESP}: locks as a user`, async () => {
    const [client, name] = [await connect({ ...WORKER, RESP }), `jobs.${key()}`];
    assert.equal(await client.aclWhoAmI(), 'worker');
    assert.equal(await client.set(name, 'me', { PX: 10_000, NX: true }), 'OK');
    assert.equal(await client.del(name), 1);
  });

  check(`RESP${RESP}: other keys, channels and commands are refused`, async () => {
    const [client, name] = [await connect({ ...WORKER, RESP }), key()];
    await assert.rejects(client.set(name, 'me'), /NOPERM.*access a key/);
    await assert.rejects(client.publish(name, 'released'), /NOPERM.*access a channel/);
    await assert.rejects(client.flushAll(), /NOPERM.*'flushall'/);
    await assert.rejects(client.multi().set(`jobs.${name}`, 'me').get(name).exec());
    assert.equal(await client.exists(`jobs.${name}`), 0);
  });

  check(`RESP${RESP}: wrong or no credentials are refused`, async () => {
    await assert.rejects(connect({ ...WORKER, RESP, password: 'wrong' }), /WRONGPASS/);
    await assert.rejects(connect({ ...WORKER, RESP, username: 'stranger' }), /WRONGPASS/);
    await assert.rejects(connect({ RESP }).then((client) => client.ping()), /NOAUTH/);
  });

  check(`RESP${RESP}: the certificate names the user`, async () => {
    const client = await connect({ RESP }, 'worker');
    assert.equal(await client.aclWhoAmI(), 'worker');
    await assert.rejects(client.get(key()), /NOPERM/);
  });

  check(`RESP${RESP}: other certificates are refused`, async () => {
    for (const certificate of REFUSED) {
      await assert.rejects(connect({ ...WORKER, RESP }, certificate).then((client) => client.ping()));
    }
  });
}

check('a running client outlives the certificate of its server', async () => {
  const isTrusted = () => connect(WORKER, 'client', 'new-ca').then((client) => client.ping()).catch(() => false);
  const client = await connect(WORKER);
  const id = await client.clientId();
  assert.equal(await isTrusted(), false);
  renew();
  await eventually(isTrusted);
  assert.equal(await client.clientId(), id);
});
