// An octostore server of a test, and a connection of a Redis client.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

async function stop(process) {
  if (process.exitCode !== null || process.signalCode !== null) return;
  const ended = new Promise((resolve) => process.once('exit', resolve));
  process.kill('SIGTERM');
  await ended;
}

/** An etcd with empty data. */
export class Etcd {
  static async start() {
    const etcd = new Etcd();
    etcd.folder = mkdtempSync(join(tmpdir(), 'octostore-etcd-'));
    for (;;) {
      const [clients, peers] = [await freePort(), await freePort()];
      const [own, peer] = [`http://127.0.0.1:${clients}`, `http://127.0.0.1:${peers}`];
      const flags = ['--data-dir', etcd.folder, '--listen-client-urls', own, '--advertise-client-urls', own,
        '--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', `default=${peer}`];
      etcd.process = spawn('etcd', flags, { stdio: ['ignore', 'ignore', 'pipe'] });
      const isReady = await new Promise((resolve, reject) => {
        let output = '';
        etcd.process.stderr.on('data', (bytes) => {
          output += bytes;
          if (output.includes('ready to serve client requests')) resolve(true);
        });
        etcd.process.once('error', reject);
        // Another process has taken one of the ports.
        etcd.process.once('exit', () => (output.includes('address already in use') ? resolve(false) : reject(new Error(output))));
      });
      etcd.store = `etcd://127.0.0.1:${clients}/locks`;
      if (isReady) return etcd;
    }
  }

  /** Calls the JSON interface. */
  async call(path, body) {
    const { host } = new URL(this.store);
    const response = await fetch(`http://${host}/v3/${path}`, { method: 'POST', body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`etcd: ${await response.text()}`);
  }

  async remove() {
    await stop(this.process);
    rmSync(this.folder, { recursive: true });
  }
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export class Server {
  /** Starts a server on ports of its own, or on those of an earlier one. */
  static async start(options = [], { redis = '127.0.0.1:0', http = '127.0.0.1:0', folder = null } = {}) {
    const server = new Server();
    server.options = options;
    server.folder = folder ?? mkdtempSync(join(tmpdir(), 'octostore-page-'));
    const data = options.includes('--store') ? [] : ['--data', join(server.folder, 'data.db')];
    const flags = ['--listen', redis, '--http', http, ...data, '--log', 'error'];
    server.process = spawn(process.env.OCTOSTORE, [...flags, ...options], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    await new Promise((resolve, reject) => {
      const read = (bytes) => {
        output += bytes;
        const found = /redis\s+(\S+)[^]*http\s+(\S+)[^]*try/.exec(output);
        if (found === null) return;
        [, server.redis, server.http] = found;
        server.https = /http\s+.*TLS (\S+)/.exec(output)?.[1];
        resolve();
      };
      server.process.stdout.on('data', read);
      server.process.stderr.on('data', read);
      server.process.once('exit', () => reject(new Error(`the server ended: ${output}`)));
    });
    return server;
  }

  get url() {
    return `http://${this.http}/`;
  }

  stop() {
    return stop(this.process);
  }

  /** Starts the same server again. */
  async restart() {
    const again = await Server.start(this.options, this);
    this.process = again.process;
  }

  async remove() {
    await this.stop();
    rmSync(this.folder, { recursive: true });
  }

  client() {
    return new Client(this.redis);
  }
}

/** A connection that sends requests and waits for each reply, but does not parse it. */
class Client {
  constructor(address) {
    const [host, port] = address.split(':');
    this.socket = net.connect(Number(port), host);
    this.socket.setNoDelay(true);
  }

  /** Sends commands, which may block, without waiting. */
  send(...commands) {
    const part = (text) => {
      const bytes = Buffer.from(text);
      return [Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from('\r\n')];
    };
    const request = (words) => [Buffer.from(`*${words.length}\r\n`), ...words.flatMap(part)];
    this.socket.write(Buffer.concat(commands.flatMap(request)));
  }

  /** Sends commands and waits until all are answered. */
  async run(...commands) {
    const mark = `done-${Math.random()}`;
    const answered = new Promise((resolve, reject) => {
      let seen = '';
      const read = (bytes) => {
        seen += bytes.toString('latin1');
        if (!seen.includes(mark)) {
          // Only the end matters.
          seen = seen.slice(-200);
          return;
        }
        this.socket.off('data', read);
        this.socket.off('error', reject);
        resolve();
      };
      this.socket.on('data', read);
      this.socket.once('error', reject);
    });
    this.send(...commands, ['ECHO', mark]);
    await answered;
  }

  close() {
    this.socket.destroy();
  }
}
