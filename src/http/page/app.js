// The page of an octostore server: shows what the server streams, and sends what operators decide.
// All text comes from clients of the server and is only ever inserted as text.

/** Where the tab keeps the value of the header `authorization`. */
const CREDENTIALS = 'octostore-credentials';
const SILENCE_MS = 25_000;
const RETRY_MS_MAX = 10_000;

const find = (id) => document.getElementById(id);

// ---- Text -----------------------------------------------------------------------------------

// Characters that are invisible, or change how those around them are shown.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu;

/** The text behind a percent-encoded one, with everything that would not be visible escaped. */
function readable(encoded) {
  const bytes = [];
  for (let at = 0; at < encoded.length; at += 1) {
    const hex = encoded[at] === '%' ? encoded.slice(at + 1, at + 3) : '';
    if (/^[0-9A-Fa-f]{2}$/.test(hex)) {
      bytes.push(Number.parseInt(hex, 16));
      at += 2;
    } else {
      const character = String.fromCodePoint(encoded.codePointAt(at));
      bytes.push(...new TextEncoder().encode(character));
      at += character.length - 1;
    }
  }
  return escaped(decoded(Uint8Array.from(bytes)));
}

/** UTF-8 as text; other bytes as \xNN. */
function decoded(bytes) {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  try {
    return decoder.decode(bytes);
  } catch {
    return Array.from(bytes, (byte) =>
      byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`,
    ).join('');
  }
}

function escaped(text) {
  return text.replace(UNSEEN, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

/** An element with children, which are elements or text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Text of a client: isolated, so that its direction does not change what is around it. */
const foreign = (text) => element('bdi', {}, text);

/** A key as text. One without characters has something to click on, too. */
const keyName = (key) => (key === '' ? '(empty)' : readable(key));

function holderName(holder) {
  if (holder.owner !== null) return readable(holder.owner);
  return holder.id === null ? 'hidden' : `pseudonym ${holder.id.slice(0, 8)}`;
}

function origin(holder) {
  const parts = [holder.client_name, holder.address].filter(Boolean).map(escaped);
  return parts.length > 0 ? element('span', { class: 'quiet' }, ' ', foreign(parts.join(' · '))) : null;
}

// ---- Time -----------------------------------------------------------------------------------

/** What to add to the clock of this machine to get that of the server. */
let clockOffset = 0;

function setClock(observedAt) {
  clockOffset = Date.parse(observedAt) - Date.now();
}

function duration(ms) {
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} days`;
}

const since = (time) => duration(Math.max(0, Date.now() + clockOffset - Date.parse(time)));

/** An element that shows the time until `expiresAt`, and the part of `ttlMs` that it is. */
function timeLeft(expiresAt, ttlMs) {
  if (expiresAt === null) return element('span', {}, 'no end');
  const text = element('span', { 'data-until': expiresAt });
  if (ttlMs === null) return text;
  const bar = element('progress', { max: ttlMs, 'data-until': expiresAt, 'aria-label': 'Time left' });
  return element('span', {}, bar, ' ', text);
}

function updateTimes() {
  for (const shown of document.querySelectorAll('[data-until]')) {
    const left = Math.max(0, Date.parse(shown.dataset.until) - Date.now() - clockOffset);
    if (shown instanceof HTMLProgressElement) shown.value = Math.min(left, shown.max);
    else shown.textContent = duration(left);
  }
  for (const shown of document.querySelectorAll('[data-since]')) shown.textContent = since(shown.dataset.since);
}

// ---- The server -----------------------------------------------------------------------------

const STORAGE = { wal: 'SQLite', memory: 'memory only' };

const FIGURES = [
  ['status', 'Health', (numbers) => (numbers.status === 'ok' ? 'ok' : 'storage is down'), null],
  ['storage', 'Storage', (numbers) => STORAGE[numbers.storage] ?? numbers.storage, null],
  ['locks', 'Leases held', (numbers) => numbers.locks.toLocaleString('en'), 'locks'],
  ['grants', 'Grants per second', (numbers) => numbers.grants_per_second.toFixed(1), 'grants'],
  ['commit', 'Commit latency', (numbers) => (numbers.commit_ms === null ? '–' : `${numbers.commit_ms.toFixed(2)} ms`), 'commit_ms'],
  ['waiting', 'Waiting clients', (numbers) => numbers.waiting.toLocaleString('en'), 'waiting'],
  ['connections', 'Connections', (numbers) => numbers.connections.toLocaleString('en'), null],
];

function showServer(numbers) {
  find('server').hidden = false;
  for (const [id, title, text] of FIGURES) {
    let shown = find(`figure-${id}`);
    if (shown === null) {
      shown = element('dd', { id: `figure-${id}` });
      find('numbers').append(element('div', { id: `box-${id}` }, element('dt', {}, title), shown));
    }
    shown.textContent = text(numbers);
  }
  document.title = `octostore ${numbers.version}`;
  showNodes(numbers.cluster);
}

function showNodes({ name, nodes }) {
  find('cluster').hidden = nodes.length < 2;
  setText(find('cluster-title'), `Cluster ${name}`);
  const node = ({ id, shard, role, redis, http }) => element('li', { class: role, 'data-node': id },
    shard === null ? null : `Shard ${shard} `, element('strong', {}, role), ' ', foreign(redis ?? id.slice(0, 8)),
    http === null ? null : element('span', { class: 'quiet' }, ' HTTP ', foreign(http)));
  find('nodes').replaceChildren(...nodes.map(node));
}

const SVG = 'http://www.w3.org/2000/svg';

function showSeries(series) {
  for (const [id, title, , name] of FIGURES) {
    const box = find(`box-${id}`);
    if (name === null || box === null) continue;
    // A single value is a level line, too.
    const values = (series[name].length > 1 ? series[name] : Array(2).fill(series[name][0])).map((value) => value ?? 0);
    const most = Math.max(1e-9, ...values);
    const points = values.map((value, at) => `${(at / Math.max(1, values.length - 1)) * 100},${19 - (value / most) * 18}`);
    let line = box.querySelector('polyline');
    if (line === null) {
      const graph = document.createElementNS(SVG, 'svg');
      graph.setAttribute('viewBox', '0 0 100 20');
      graph.setAttribute('preserveAspectRatio', 'none');
      graph.setAttribute('role', 'img');
      line = document.createElementNS(SVG, 'polyline');
      graph.append(line);
      box.append(element('dd', {}, graph));
    }
    line.setAttribute('points', points.join(' '));
    line.parentElement.setAttribute('aria-label', `${title}, last hour, at most ${Math.round(most * 100) / 100}`);
  }
}

// ---- The list of keys -----------------------------------------------------------------------

/** The parameters `after` of the pages before, the first one last. */
let pages = [];
let after = null;
let nextPage = null;

const COLUMNS = ['Key', 'Kind', 'Holder', 'Token', 'Time left', 'Renewals', 'Queue'];
const NUMBERS = new Set(['Token', 'Renewals', 'Queue']);

function showKeys(view) {
  setClock(view.observed_at);
  const body = find('rows');
  const known = new Map(Array.from(body.children, (row) => [row.dataset.key, row]));
  const rows = view.keys.map((key) => {
    const row = known.get(key.key) ?? newRow(key.key);
    fillRow(row, key);
    return row;
  });
  for (const [at, row] of rows.entries()) {
    // Rows that stay in place keep the focus.
    if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null);
  }
  while (body.children.length > rows.length) body.lastElementChild.remove();
  nextPage = view.next_page;
  find('next').disabled = nextPage === null;
  find('previous').disabled = pages.length === 0;
  const [first, last] = [view.before + 1, view.before + rows.length];
  const total = view.total.toLocaleString('en');
  setText(find('count'), rows.length > 0 ? `${first.toLocaleString('en')}–${last.toLocaleString('en')} of ${total}` : `No keys (${total} in all)`);
  updateTimes();
}

/** Changes text only if it differs, so that a screen reader does not repeat it. */
function setText(shown, text) {
  if (shown.textContent !== text) shown.textContent = text;
}

function newRow(key) {
  const cells = COLUMNS.map((title) => element('td', { 'data-title': title, class: NUMBERS.has(title) ? 'number' : '' }));
  cells[0].append(element('a', { href: keyLink(key) }, foreign(keyName(key))));
  return element('tr', { 'data-key': key }, ...cells);
}

function fillRow(row, key) {
  const text = JSON.stringify(key);
  if (row.dataset.shown === text) return;
  row.dataset.shown = text;
  const [, kind, holder, token, left, renewals, queue] = row.children;
  kind.textContent = key.kind;
  holder.replaceChildren();
  if (key.holder !== null) {
    holder.append(foreign(holderName(key.holder)));
    const from = origin(key.holder);
    if (from !== null) holder.append(from);
    if (key.holders > 1) holder.append(` and ${(key.holders - 1).toLocaleString('en')} more`);
  }
  token.textContent = key.fencing_token;
  left.replaceChildren(timeLeft(key.expires_at, key.ttl_ms));
  renewals.textContent = key.renewals;
  queue.textContent = key.waiting;
}

// ---- One key --------------------------------------------------------------------------------

/** What is shown of the key. */
let shownKey = null;

function showKey(view) {
  setClock(view.observed_at);
  shownKey = view;
  find('one-title').replaceChildren('Key ', foreign(keyName(view.key)));
  const state = find('one-state');
  state.replaceChildren(view.kind === 'free' ? 'Free' : view.kind);
  if (view.kind === 'limit' && view.limit !== null) state.append(`, at most ${view.limit} holders`);
  if (view.fencing_token !== null) state.append(`, token ${view.fencing_token}`);
  if (view.available_at !== null) state.append(', rests for ', timeLeft(view.available_at, null));
  if (view.holders_total === 0 && view.kind !== 'free') state.append(', ends in ', timeLeft(view.expires_at, null));
  find('force').hidden = view.holders_total === 0;
  const holder = (lease) => element('li', {},
    foreign(holderName(lease)), origin(lease), ` token ${lease.fencing_token}, held for `,
    element('span', { 'data-since': lease.granted_at }), `, ${lease.renewals} renewals, `,
    timeLeft(lease.expires_at, lease.ttl_ms),
    lease.metadata === null ? null : element('div', {}, foreign(escaped(lease.metadata))));
  fillList('holders', view.holders, view.holders_total, holder);
  const waiter = (request) => element('li', {},
    foreign(holderName(request)), origin(request), ` ${request.mode}, waiting for `,
    element('span', { 'data-since': request.since }));
  fillList('waiters', view.waiters, view.waiters_total, waiter);
  const event = (happened) => element('li', {},
    `${happened.event}, token ${happened.fencing_token}, `,
    element('time', { datetime: happened.observed_at }, new Date(happened.observed_at).toLocaleTimeString('en-GB')));
  fillList('events', view.events, view.events.length, event);
  updateTimes();
}

function fillList(id, items, total, make) {
  const list = find(id);
  list.replaceChildren(...items.map(make));
  if (items.length === 0) list.append(element('li', { class: 'quiet' }, 'None'));
  if (total > items.length) list.append(element('li', { class: 'quiet' }, `${total - items.length} more`));
}

// ---- Streams --------------------------------------------------------------------------------

let stream = null;
let retryMs = 500;

const signedIn = () => sessionStorage.getItem(CREDENTIALS) !== null;

function credentials() {
  return signedIn() ? { authorization: sessionStorage.getItem(CREDENTIALS) } : {};
}

/** The header for a user and its password; for a token, which says whose it is, without a user. */
function authorization(user, secret) {
  const bytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));
  return user === '' ? `Bearer ${bytes(secret)}` : `Basic ${btoa(bytes(`${user}:${secret}`))}`;
}

const keyLink = (key) => `#key=${encodeURIComponent(key)}`;

/** The key that the address names, percent-encoded; `null`: the list. */
function currentKey() {
  const text = new URLSearchParams(location.hash.slice(1)).get('key');
  // The server leaves letters and slashes as they are, and a person may have typed anything.
  return text?.replace(/[^\w.%-]+/g, encodeURIComponent) ?? null;
}

/** The path of a route with the key that the address names: in the query, because in a path `..` means another one. */
const pathOfKey = (path) => `${path}?name=${currentKey()}&db=${find('db').value || '0'}`;

function currentPath() {
  if (currentKey() !== null) return pathOfKey('/key');
  const query = new URLSearchParams({ db: find('db').value || '0' });
  query.set('prefix', find('prefix').value);
  query.set('sort', find('sort').value);
  if (after !== null) query.set('after', after);
  return `/keys?${query}`;
}

function setConnection(state, text) {
  find('connection').className = state;
  setText(find('connection'), text);
  document.querySelector('main').classList.toggle('stale', state === 'lost');
}

const HANDLERS = {
  server: showServer,
  series: showSeries,
  keys: showKeys,
  key: showKey,
  unavailable: () => setConnection('lost', 'Storage does not work; what is shown is old'),
};

/** Shows what the address names, from a new stream. */
function open() {
  stream?.abort();
  if (document.hidden) return;
  const own = new AbortController();
  stream = own;
  const key = currentKey();
  find('list').hidden = key !== null;
  find('one').hidden = key === null;
  find('sign-out').hidden = !signedIn();
  find('sign-in').hidden = signedIn();
  follow(own).then((wait) => {
    if (stream === own && wait) setTimeout(() => stream === own && open(), retryMs);
  });
}

/** Follows the stream until it ends. Returns whether to try again. */
async function follow(own) {
  let watchdog;
  try {
    const headers = { accept: 'text/event-stream', ...credentials() };
    const response = await fetch(currentPath(), { headers, signal: own.signal, cache: 'no-store', redirect: 'manual' });
    if (!response.ok) return refused(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => own.abort('silence'), SILENCE_MS);
      const { done, value } = await reader.read();
      if (done) break;
      setConnection('live', 'Live');
      retryMs = 500;
      const frames = (rest + value).split('\n\n');
      rest = frames.pop();
      frames.forEach(dispatch);
    }
  } catch (error) {
    // A stream that another one has replaced was aborted on purpose.
    if (stream !== own) return false;
    if (error instanceof TypeError === false && own.signal.reason !== 'silence') console.error(error);
  } finally {
    clearTimeout(watchdog);
  }
  setConnection('lost', 'Connection lost; what is shown is old. Trying again…');
  retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
  return stream === own;
}

function dispatch(frame) {
  const field = (name) => frame.split('\n').find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
  const handler = HANDLERS[field('event')];
  if (handler !== undefined) handler(JSON.parse(field('data')));
}

async function refused(response) {
  if (response.type === 'opaqueredirect') {
    setConnection('lost', 'Another shard of the cluster has this key');
    clearAll();
    return false;
  }
  const error = await response.json().catch(() => ({ details: `Status ${response.status}` }));
  if (response.status === 401) {
    setConnection('signed-out', 'Not signed in');
    const wasWrong = signedIn();
    sessionStorage.removeItem(CREDENTIALS);
    clearAll();
    askForCredentials(wasWrong ? 'These credentials are not valid.' : 'This server needs credentials.');
    return false;
  }
  if (response.status === 403 || response.status === 400) {
    setConnection('lost', error.details);
    clearAll();
    return false;
  }
  setConnection('lost', `${error.details}. Trying again…`);
  const retryAfterS = Number(response.headers.get('retry-after'));
  retryMs = retryAfterS > 0 ? retryAfterS * 1000 : Math.min(retryMs * 2, RETRY_MS_MAX);
  return true;
}

/** Removes what the user may no longer see. */
function clearAll() {
  find('rows').replaceChildren();
  for (const id of ['holders', 'waiters', 'events', 'numbers', 'nodes', 'one-title', 'one-state', 'count']) find(id).replaceChildren();
  find('server').hidden = true;
  find('force').hidden = true;
  shownKey = null;
}

// ---- Dialogs --------------------------------------------------------------------------------

function askForCredentials(problem) {
  find('sign-in-problem').textContent = problem;
  find('password').value = '';
  if (!find('sign-in-dialog').open) find('sign-in-dialog').showModal();
}

find('sign-in-dialog').addEventListener('submit', (event) => {
  event.preventDefault();
  sessionStorage.setItem(CREDENTIALS, authorization(find('user').value, find('password').value));
  find('password').value = '';
  find('sign-in-dialog').close();
  open();
});

find('sign-in').addEventListener('click', () => askForCredentials(''));
find('sign-out').addEventListener('click', () => {
  sessionStorage.removeItem(CREDENTIALS);
  clearAll();
  open();
});

/** The key, and the lease that the operator saw when the dialog was opened. */
let forced = null;

find('force').addEventListener('click', () => {
  forced = { path: pathOfKey('/key/force-unlock'), token: shownKey.fencing_token };
  const count = shownKey.holders_total;
  const holder = shownKey.holders.at(-1);
  find('force-text').replaceChildren(
    'End ', count === 1 ? 'the lease' : `all ${count} leases`, ' of ', foreign(keyName(shownKey.key)),
    ', held by ', foreign(holderName(holder)), ` with token ${forced.token}?`);
  setText(find('secret-hint'), shownKey.may_force ? 'Not needed if your user may run FORCEUNLOCK.' : 'Your user may not do this without it.');
  find('force-problem').textContent = '';
  find('secret').value = '';
  find('message').textContent = '';
  find('force-dialog').showModal();
});

find('force-dialog').addEventListener('submit', async (event) => {
  event.preventDefault();
  const secret = find('secret').value;
  const headers = { 'content-type': 'application/json', ...credentials() };
  if (secret !== '') headers['x-admin-key'] = secret;
  const body = JSON.stringify({ fencing_token: forced.token });
  try {
    const response = await fetch(forced.path, { method: 'POST', headers, body });
    const answer = await response.json();
    if (response.ok) {
      find('force-dialog').close();
      setText(find('message'), `${answer.holders} ${answer.holders === 1 ? 'lease' : 'leases'} ended.`);
    } else if (answer.code === 'lease_not_current') {
      find('force-dialog').close();
      setText(find('message'), 'Nothing was ended: the lock has changed since the dialog was opened.');
    } else {
      setText(find('force-problem'), answer.details);
    }
  } catch {
    setText(find('force-problem'), 'The server did not answer. Look at the events before you try again.');
  } finally {
    find('secret').value = '';
  }
});

for (const button of document.querySelectorAll('button[value="cancel"]')) {
  button.addEventListener('click', () => button.closest('dialog').close());
}

// ---- Input ----------------------------------------------------------------------------------

function firstPage() {
  [pages, after] = [[], null];
  open();
}

let typing;
find('prefix').addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(firstPage, 200);
});
find('sort').addEventListener('change', firstPage);
find('db').addEventListener('change', firstPage);
find('filter').addEventListener('submit', (event) => {
  event.preventDefault();
  firstPage();
});
find('next').addEventListener('click', () => {
  pages.push(after);
  after = nextPage;
  open();
});
find('previous').addEventListener('click', () => {
  after = pages.pop();
  open();
});
addEventListener('hashchange', () => {
  find('message').textContent = '';
  shownKey = null;
  find('force').hidden = true;
  open();
  const heading = find('one-title');
  if (currentKey() !== null) {
    heading.replaceChildren('Key ', foreign(keyName(currentKey())));
    heading.focus();
  }
});
document.addEventListener('visibilitychange', open);
setInterval(updateTimes, 250);
open();
