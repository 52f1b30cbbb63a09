// What a person sees on the page. Every check waits for a state and never for a time.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import puppeteer from 'puppeteer-core';
import { Etcd, Server } from './server.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
let browser;

before(async () => {
  // Chromium does not run as root with its sandbox.
  const args = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'];
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  // The certificate of the test is one that Chromium does not know.
  browser = await puppeteer.launch({ executablePath, args, acceptInsecureCerts: true });
});

after(() => browser.close());

/** Opens the page in a tab with a session of its own. */
async function open(server, { path = '', scheme = 'light', width = 1200, url = server.url } = {}) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.faults = [];
  page.on('pageerror', (error) => page.faults.push(error.message));
  page.on('dialog', (dialog) => page.faults.push(`dialog: ${dialog.message()}`));
  page.on('request', (request) => {
    const asked = new URL(request.url());
    if (asked.host !== new URL(url).host && asked.protocol !== 'data:') page.faults.push(`requested ${asked}`);
  });
  page.on('console', (message) => {
    if (/Content Security Policy|Trusted/.test(message.text())) page.faults.push(message.text());
  });
  await page.setViewport({ width, height: 800 });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  await page.goto(url + path);
  return page;
}

/** Waits until an element's text matches. */
async function sees(page, selector, pattern) {
  const matches = (wanted, source, flags) => {
    const shown = document.querySelector(wanted);
    return shown !== null && new RegExp(source, flags).test(shown.innerText);
  };
  try {
    await page.waitForFunction(matches, { polling: 50 }, selector, pattern.source, pattern.flags);
  } catch (error) {
    const text = await page.$eval('body', (body) => body.innerText);
    throw new Error(`${selector} does not show ${pattern}: ${error.message}\n${text}`);
  }
}

/** Checks a state: no faults, none that axe-core finds; takes a screenshot. */
async function check(page, name) {
  await page.evaluate(AXE);
  const found = await page.evaluate(() => window.axe.run({ resultTypes: ['violations'] }));
  const faults = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(' ')}`);
  assert.deepEqual([...page.faults, ...faults], [], name);
  if (process.env.SCREENSHOTS) {
    mkdirSync(process.env.SCREENSHOTS, { recursive: true });
    await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`) });
  }
}

const row = (key) => `tr[data-key="${key}"]`;

async function close(page) {
  await page.browserContext().close();
}

test('a lock appears when it is granted, shows its queue, and goes when it expires', async (t) => {
  const server = await Server.start();
  t.after(() => server.remove());
  const page = await open(server);
  await sees(page, '#connection', /Live/);
  await sees(page, '#count', /No keys/);
  await check(page, 'empty');
  const [holder, waiter] = [server.client(), server.client()];
  await holder.run(['LOCK', 'jobs:import', 'worker-1', 'EX', '60'], ['LOCK', 'brief', 'worker-1', 'PX', '1500']);
  await holder.run(['HSET', 'settings', 'a', '1'], ['LOCK', 'pool', 'worker-2', 'LIMIT', '3', 'EX', '600']);
  await sees(page, row('jobs%3Aimport'), /jobs:import\s+exclusive\s+worker-1/);
  await sees(page, row('settings'), /hash/);
  waiter.send(['LOCK', 'jobs:import', 'worker-3', 'EX', '60', 'WAIT', '60000']);
  await sees(page, `${row('jobs%3Aimport')} td:last-child`, /1/);
  await sees(page, '#figure-waiting', /1/);
  await check(page, 'keys');
  await page.waitForSelector(row('brief'), { hidden: true });
  const dark = await open(server, { scheme: 'dark' });
  await sees(dark, row('settings'), /hash/);
  await check(dark, 'keys-dark');
  const phone = await open(server, { width: 390 });
  await sees(phone, row('settings'), /hash/);
  await check(phone, 'keys-phone');
  await holder.run(['UNLOCK', 'jobs:import', 'worker-1']);
  await sees(page, row('jobs%3Aimport'), /worker-3/);
  await page.type('#prefix', 'jobs:');
  await page.waitForSelector(row('settings'), { hidden: true });
  await sees(page, '#count', /1–1 of 1/);
  holder.close();
  waiter.close();
  await Promise.all([page, dark, phone].map(close));
});

test('one of two operators ends a lease, and the other one cannot end the next by mistake', async (t) => {
  const server = await Server.start(['--http-admin-key', 'open sesame']);
  t.after(() => server.remove());
  const [holder, waiter] = [server.client(), server.client()];
  await holder.run(['LOCK', 'db/primary', 'worker-1', 'EX', '600']);
  const operators = await Promise.all([open(server), open(server)]);
  for (const page of operators) {
    await sees(page, row('db/primary'), /worker-1/);
    // With the keyboard.
    await page.focus(`${row('db/primary')} a`);
    await page.keyboard.press('Enter');
    await sees(page, '#holders', /worker-1/);
  }
  waiter.send(['LOCK', 'db/primary', 'worker-2', 'EX', '600', 'WAIT', '60000']);
  const [first, second] = operators;
  await sees(first, '#waiters', /worker-2/);
  await check(first, 'key');
  for (const page of operators) await page.click('#force');
  await check(first, 'force-unlock');
  await first.type('#secret', 'wrong');
  await first.keyboard.press('Enter');
  await sees(first, '#force-problem', /./);
  await first.type('#secret', 'open sesame');
  await first.keyboard.press('Enter');
  await sees(first, '#message', /1 lease ended/);
  await sees(first, '#holders', /worker-2/);
  await sees(first, '#events', /forced/);
  await check(first, 'forced');
  await second.type('#secret', 'open sesame');
  await second.keyboard.press('Enter');
  await sees(second, '#message', /has changed/);
  await sees(second, '#holders', /worker-2/);
  await check(second, 'changed');
  holder.close();
  waiter.close();
  await Promise.all(operators.map(close));
});

test('the loss of the server is shown, and its return', async (t) => {
  const server = await Server.start();
  t.after(() => server.remove());
  const client = server.client();
  await client.run(['LOCK', 'a', 'me', 'EX', '600']);
  client.close();
  const page = await open(server);
  await sees(page, row('a'), /me/);
  await server.stop();
  await sees(page, '#connection', /Connection lost/);
  await page.waitForSelector('main.stale');
  await check(page, 'lost');
  await server.restart();
  await sees(page, '#connection', /Live/);
  await sees(page, row('a'), /me/);
  await close(page);
});

test('credentials are asked for, wrong ones are refused, and the right ones are kept for the tab', async (t) => {
  const server = await Server.start(['--requirepass', 'correct horse']);
  t.after(() => server.remove());
  const page = await open(server);
  await sees(page, '#sign-in-problem', /needs credentials/);
  await sees(page, '#connection', /Not signed in/);
  await check(page, 'sign-in');
  await page.type('#password', 'wrong');
  await page.keyboard.press('Enter');
  await sees(page, '#sign-in-problem', /not valid/);
  await check(page, 'wrong-credentials');
  await page.type('#password', 'correct horse');
  await page.keyboard.press('Enter');
  await sees(page, '#connection', /Live/);
  await page.reload();
  await sees(page, '#connection', /Live/);
  assert.equal(await page.evaluate(() => localStorage.length), 0);
  await page.click('#sign-out');
  await sees(page, '#sign-in-problem', /needs credentials/);
  await close(page);
});

test('a user signs in with a password, over TLS', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'octostore-tls-'));
  const [certificate, key] = [join(folder, 'server.pem'), join(folder, 'server.key')];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', certificate], { stdio: 'pipe' });
  const server = await Server.start(['--requirepass', 'correct horse', '--https', '127.0.0.1:0',
    '--tls-cert', certificate, '--tls-key', key]);
  t.after(() => server.remove());
  t.after(() => rmSync(folder, { recursive: true }));
  const client = server.client();
  await client.run(['AUTH', 'correct horse'], ['ACL', 'SETUSER', 'jörg', 'on', '>pässword: 1', '~*', '+locks', '+lockinfo']);
  await client.run(['LOCK', 'a', 'worker-1', 'EX', '600']);
  const page = await open(server, { url: `https://${server.https}/` });
  await page.waitForSelector('#sign-in-dialog[open]');
  await page.type('#user', 'jörg');
  await page.type('#password', 'correct horse');
  await page.keyboard.press('Enter');
  await sees(page, '#sign-in-problem', /not valid/);
  await page.type('#password', 'pässword: 1');
  await page.keyboard.press('Enter');
  await sees(page, row('a'), /worker-1/);
  await check(page, 'signed-in');
  client.close();
  await close(page);
});

test('the servers of a cluster and their leader are shown, also after it is lost', async (t) => {
  const etcd = await Etcd.start();
  t.after(() => etcd.remove());
  const leader = await Server.start(['--store', etcd.store]);
  t.after(() => leader.remove());
  const first = await open(leader);
  await sees(first, '#connection', /Live/);
  const standby = await Server.start(['--store', etcd.store]);
  t.after(() => standby.remove());
  // The leader answers in its place.
  const page = await open(standby);
  for (const shown of [first, page]) {
    await sees(shown, '#nodes', new RegExp(`leader\\s+${leader.redis}`));
    await sees(shown, '#nodes', new RegExp(`standby\\s+${standby.redis}`));
  }
  await check(page, 'cluster');
  await close(first);
  leader.process.kill('SIGKILL');
  await sees(page, '#nodes', new RegExp(`leader\\s+${standby.redis}`));
  await sees(page, '#connection', /Live/);
  await close(page);
});

test('without a leader the page is there and says so', async (t) => {
  const etcd = await Etcd.start();
  t.after(() => etcd.remove());
  // A leader that nothing is known of.
  const key = btoa('/locks/leader');
  await etcd.call('kv/put', { key, value: btoa('{"node":"gone"}') });
  const server = await Server.start(['--store', etcd.store, '--leader-silent-ms', '60000']);
  t.after(() => server.remove());
  const page = await open(server);
  await sees(page, '#connection', /^No leader yet: .*Trying again…$/);
  await check(page, 'no-leader');
  await etcd.call('kv/deleterange', { key });
  await sees(page, '#connection', /Live/);
  await sees(page, '#count', /No keys/);
  await close(page);
});

test('the servers of all shards are shown', async (t) => {
  const etcd = await Etcd.start();
  t.after(() => etcd.remove());
  const servers = [];
  for (const shard of ['1/2', '2/2']) {
    const server = await Server.start(['--store', etcd.store, '--shard', shard]);
    t.after(() => server.remove());
    servers.push(server);
  }
  const page = await open(servers[0]);
  for (const [number, server] of servers.entries()) {
    await sees(page, '#nodes', new RegExp(`Shard ${number + 1}\\s+leader\\s+${server.redis}`));
  }
  await close(page);
});

test('the documentation of the routes is a page of the server', async (t) => {
  const server = await Server.start();
  t.after(() => server.remove());
  for (const [name, options] of [['docs', {}], ['docs-dark', { scheme: 'dark' }], ['docs-phone', { width: 390 }]]) {
    const page = await open(server, { path: 'docs', ...options });
    await sees(page, 'main', /POST \/locks\/\{name\}\/acquire/);
    await check(page, name);
    const [shown, room] = await page.evaluate(() => [document.body.scrollWidth, innerWidth]);
    assert.ok(shown <= room, `${name} is ${shown} pixels wide`);
    await close(page);
  }
});

test('users without the permission for LOCKINFO see pseudonyms', async (t) => {
  const server = await Server.start(['--http-token', 'alice:token-of-alice-12345678']);
  t.after(() => server.remove());
  const client = server.client();
  await client.run(['LOCK', 'a', 'secret-owner', 'EX', '600']);
  await client.run(['ACL', 'SETUSER', 'viewer', 'on', '>viewer-password', '~*', '+locks']);
  const page = await open(server);
  await page.waitForSelector('#sign-in-dialog[open]');
  await page.type('#password', 'viewer-password');
  await page.keyboard.press('Enter');
  await sees(page, row('a'), /pseudonym/);
  assert.ok(!(await page.content()).includes('secret-owner'));
  await check(page, 'pseudonyms');
  await client.run(['ACL', 'DELUSER', 'viewer']);
  await page.waitForSelector(row('a'), { hidden: true });
  client.close();
  await close(page);
});

test('hostile names and owners are shown and do nothing', async (t) => {
  const server = await Server.start();
  t.after(() => server.remove());
  const client = server.client();
  const script = '<script>alert(1)</script><img src=x onerror=alert(2)>';
  await client.run(
    ['LOCK', script, script, 'EX', '600'],
    ['LOCK', 'rtl\u202egnp.exe', 'owner\u2066\u200b', 'EX', '600'],
    ['LOCK', Buffer.from([0x62, 0x00, 0x1b, 0xff, 0x0a]), Buffer.from([0xff, 0x00]), 'EX', '600'],
    ['LOCK', '__proto__', 'constructor', 'EX', '600'],
    ['LOCK', 'æ/日本', 'ö', 'EX', '600', 'META', '<b>"\u202e'],
  );
  const page = await open(server);
  await sees(page, '#rows', /<script>alert\(1\)<\/script>/);
  await sees(page, '#rows', /rtl\\u\{202e\}gnp\.exe\s+exclusive\s+owner\\u\{2066\}\\u\{200b\}/);
  await sees(page, '#rows', /b\\x00\\x1b\\xff\\x0a\s+exclusive\s+\\xff\\x00/);
  await sees(page, '#rows', /__proto__\s+exclusive\s+constructor/);
  await check(page, 'hostile');
  const links = await page.$$eval('#rows a', (all) => all.map((link) => link.getAttribute('href')));
  assert.equal(links.length, 5);
  for (const link of links) {
    await page.evaluate((hash) => { location.hash = hash; }, link);
    await sees(page, '#holders', /token \d+/);
  }
  await check(page, 'hostile-key');
  client.close();
  await close(page);
});

test('every key can be looked at, whatever its name means in a path', async (t) => {
  const server = await Server.start(['--http-admin-key', 'open sesame']);
  t.after(() => server.remove());
  const client = server.client();
  const names = ['.', '..', '...', '/', '//', 'a/../b', './a', '%2e', '%2E%2E', '%2F', 'a b+c&d=e#f?g', 'ä/日本'];
  await client.run(['HSET', '', 'field', 'value'], ...names.map((name) => ['LOCK', name, 'me', 'EX', '600']));
  const page = await open(server);
  await sees(page, '#count', /1–13 of 13/);
  const keys = await page.$$eval('#rows tr', (rows) => rows.map((row) => ({
    name: row.cells[0].innerText, token: row.cells[3].innerText, link: row.querySelector('a').getAttribute('href'),
  })));
  assert.deepEqual(keys.map((key) => key.name).sort(), ['(empty)', ...names].sort());
  for (const { name, token, link } of keys) {
    await page.evaluate((hash) => { location.hash = hash; }, link);
    const shown = new RegExp(`${name === '(empty)' ? 'hash' : 'exclusive'}, token ${token}\\b`);
    await sees(page, '#one-state', shown);
    assert.equal(await page.$eval('#one-title', (title) => title.innerText), `Key ${name}`);
    await page.reload();
    await sees(page, '#one-state', shown);
  }
  const dots = keys.find(({ name }) => name === '..');
  await page.evaluate((hash) => { location.hash = hash; }, dots.link);
  await sees(page, '#one-state', new RegExp(`token ${dots.token}\\b`));
  await page.click('#force');
  await page.type('#secret', 'open sesame');
  await page.keyboard.press('Enter');
  await sees(page, '#message', /1 lease ended/);
  await sees(page, '#one-state', /Free/);
  client.close();
  await close(page);
});

test('100 000 keys are paged by the server', async (t) => {
  const server = await Server.start();
  t.after(() => server.remove());
  const client = server.client();
  const name = (n) => `key:${String(n).padStart(6, '0')}`;
  for (let n = 0; n < 100_000; n += 5000) {
    await client.run(...Array.from({ length: 5000 }, (_, at) => ['LOCK', name(n + at), 'me', 'EX', '3600']));
  }
  const page = await open(server);
  await sees(page, '#count', /1–50 of 100,000/);
  assert.ok((await page.$$('#rows tr')).length === 50);
  await check(page, 'many');
  await page.click('#next');
  await sees(page, '#count', /51–100 of 100,000/);
  await sees(page, '#rows tr', /key:000050/);
  await page.click('#previous');
  await sees(page, '#rows tr', /key:000000/);
  await page.select('#sort', 'newest');
  await sees(page, '#rows tr', /key:099999/);
  await page.type('#prefix', 'key:0123');
  await sees(page, '#count', /1–50 of 100$/);
  await client.run(['UNLOCK', name(12_399), 'me']);
  await sees(page, '#count', /1–50 of 99$/);
  const elements = await page.evaluate(() => document.querySelectorAll('*').length);
  assert.ok(elements < 2000, `${elements} elements`);
  client.close();
  await close(page);
});
