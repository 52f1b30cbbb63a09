-- A database of schema version 2 as `kill -9` left it: leases in the table and in the log.
PRAGMA application_id = 1868788847;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE octostore (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    schema_version INTEGER NOT NULL,
    tokens_reserved INTEGER NOT NULL,
    boot_id TEXT,
    secret BLOB NOT NULL
) STRICT;
INSERT INTO octostore VALUES(1,2,32768,'f5a48cec-4893-4700-86ed-e0d20d51d10e',X'dc3b5bbd7cac50acd806c8d5d288cf256d93c0a2694714f47be102fa71f181c4');
CREATE TABLE changes (
    row INTEGER PRIMARY KEY,
    leases TEXT NOT NULL
) STRICT;
INSERT INTO changes VALUES(1,'[[2,2,31731827271820,7200000,1]]');
INSERT INTO changes VALUES(2,'[3]');
INSERT INTO changes VALUES(3,'[[1,5,"logged","owner-b",24531856177774,3600000,"127.0.0.1:34384","",0,{"meta":"late"}]]');
INSERT INTO changes VALUES(4,'[[1,6,"binary",[255,254],24531867909663,30000,"127.0.0.1:34388"]]');
INSERT INTO changes VALUES(5,'[[2,6,25131878387912,600000,1]]');
CREATE TABLE delays (
    db INTEGER NOT NULL,
    key BLOB NOT NULL,
    until_ns INTEGER NOT NULL,
    length_ms INTEGER NOT NULL,
    PRIMARY KEY (db, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    account TEXT,
    ttl_ms INTEGER,
    deadline_ns INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE held (
    token INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    owner BLOB NOT NULL,
    granted_ns INTEGER NOT NULL,
    ttl_ms INTEGER,
    addr TEXT,
    client_name TEXT,
    db INTEGER NOT NULL,
    extra TEXT,
    holders_max INTEGER,
    lasts_ms INTEGER,
    deadline_ns INTEGER,
    renewals INTEGER NOT NULL
) STRICT;
INSERT INTO held VALUES(1,X'636f6d706163746564',X'6f776e65722d61',24531390846471,3600000,'127.0.0.1:34312','',0,NULL,1,3600000,28131390846471,0);
INSERT INTO held VALUES(2,X'72656e65776564',X'6f776e65722d61',24531398189938,60000,'127.0.0.1:34326','',0,NULL,1,60000,24591398189938,0);
INSERT INTO held VALUES(3,X'72656c6561736564',X'6f776e65722d61',24531405008276,60000,'127.0.0.1:34340','',0,NULL,1,60000,24591405008276,0);
INSERT INTO held VALUES(4,X'6b657074',X'76616c7565',24531412235871,NULL,'127.0.0.1:34356','',0,NULL,1,NULL,NULL,0);
CREATE VIEW leases AS
    WITH entry AS (
        SELECT c.value, changes.row * 16777216 + c.key AS place,
            iif(c.type = 'array', json_array_length(c.value), 0) AS length,
            iif(c.type = 'array', json_extract(c.value, '$[0]'), 0) AS tag,
            iif(c.type = 'array', json_extract(c.value, '$[1]'), c.value) AS token
        FROM changes, json_each(changes.leases) c),
    renewed AS (
        SELECT token, json_extract(value, '$[2]') AS deadline_ns, json_extract(value, '$[3]') AS lasts_ms,
            json_extract(value, '$[4]') AS renewals, max(place)
        FROM entry WHERE tag = 2 GROUP BY token),
    bytes AS (SELECT x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff' AS each),
    stated AS (
        SELECT
            json_extract(value, '$[1]') AS token,
            iif(json_type(value, '$[2]') = 'array',
                (SELECT CAST(group_concat(substr(each, b.value + 1, 1), '') AS BLOB)
                    FROM json_each(entry.value, '$[2]') b, bytes),
                CAST(json_extract(value, '$[2]') AS BLOB)) AS key,
            iif(json_type(value, '$[3]') = 'array',
                (SELECT CAST(group_concat(substr(each, b.value + 1, 1), '') AS BLOB)
                    FROM json_each(entry.value, '$[3]') b, bytes),
                CAST(json_extract(value, '$[3]') AS BLOB)) AS owner,
            json_extract(value, '$[4]') AS granted_ns,
            json_extract(value, '$[5]') AS ttl_ms,
            json_extract(value, '$[6]') AS addr,
            json_extract(value, '$[7]') AS client_name,
            json_extract(value, '$[8]') AS db,
            json_extract(value, '$[9]') AS extra,
            json_extract(value, '$[10]') AS holders_max,
            json_extract(value, '$[11]') AS lasts_ms,
            json_extract(value, '$[12]') AS deadline_ns,
            json_extract(value, '$[13]') AS renewals,
            length
        FROM entry WHERE tag = 1),
    lease AS (
        SELECT token, key, owner, granted_ns, ttl_ms, addr, client_name, db, extra, holders_max, lasts_ms, deadline_ns, renewals
        FROM held WHERE token NOT IN (SELECT token FROM entry WHERE tag = 1)
        UNION ALL
        SELECT
            token,
            key,
            owner,
            granted_ns,
            ttl_ms,
            iif(length > 6, addr, NULL) AS addr,
            iif(length > 7, client_name, iif(addr IS NULL, NULL, '')) AS client_name,
            iif(length > 8, db, 0) AS db,
            iif(length > 9, extra, NULL) AS extra,
            iif(length > 10, holders_max, 1) AS holders_max,
            iif(length > 11, lasts_ms, ttl_ms) AS lasts_ms,
            iif(length > 12, deadline_ns, granted_ns + 1000000 * ttl_ms) AS deadline_ns,
            iif(length > 13, renewals, 0) AS renewals
        FROM stated)
    SELECT
        l.token, l.db, l.key, l.owner, l.holders_max, l.ttl_ms,
        iif(r.token IS NULL, l.lasts_ms, r.lasts_ms) AS lasts_ms,
        iif(r.token IS NULL, l.deadline_ns, r.deadline_ns) AS deadline_ns, l.granted_ns,
        coalesce(r.renewals, l.renewals) AS renewals,
        coalesce(json_extract(l.extra, '$.max_hold_ms'), NULL) AS max_hold_ms,
        coalesce(json_extract(l.extra, '$.delay_ms'), NULL) AS delay_ms,
        coalesce(json_extract(l.extra, '$.delay_always'), 0) AS delay_always,
        coalesce(json_extract(l.extra, '$.session'), NULL) AS session,
        coalesce(json_extract(l.extra, '$.counted_by'), NULL) AS counted_by,
        coalesce(json_extract(l.extra, '$.account'), NULL) AS account,
        coalesce(json_extract(l.extra, '$.meta'), NULL) AS meta,
        l.addr, l.client_name
    FROM lease l LEFT JOIN renewed r ON r.token = l.token
    WHERE l.token NOT IN (SELECT token FROM entry WHERE tag = 0);
COMMIT;
