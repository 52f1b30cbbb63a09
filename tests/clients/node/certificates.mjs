// What the tests with users and TLS share.

import { readFileSync, renameSync } from 'node:fs';

const file = (name) => `${process.env.CERTIFICATES}/${name}`;

/** The options of `tls.connect`: the client's certificate, if any, and the roots that it trusts. */
export function tls(certificate = 'client', roots = 'roots') {
  const options = { ca: readFileSync(file(`${roots}.pem`)) };
  if (certificate) {
    options.cert = readFileSync(file(`${certificate}.pem`));
    options.key = readFileSync(file(`${certificate}.key`));
  }
  return options;
}

/** Replaces the server's certificate by one that `new-ca` has signed. */
export function renew() {
  for (const suffix of ['pem', 'key']) renameSync(file(`renewed.${suffix}`), file(`server.${suffix}`));
}

/** The certificates that the server refuses, or none. */
export const REFUSED = [null, 'expired', 'foreign'];
