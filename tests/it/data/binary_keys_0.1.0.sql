-- Changes to leases with binary keys and owners, as version 0.1.0 left them when it was killed.
PRAGMA application_id = 1868788847;
BEGIN TRANSACTION;
CREATE TABLE octostore (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    schema_version INTEGER NOT NULL,
    tokens_reserved INTEGER NOT NULL,
    boot_id TEXT,
    secret BLOB NOT NULL
) STRICT;
INSERT INTO octostore VALUES(1,1,32768,'f5a48cec-4893-4700-86ed-e0d20d51d10e',X'2b024c96213b3d41c2d4c06f57d152677e91515570b1fa6f17b14d80db3b8aa3');
CREATE TABLE held (
    token INTEGER PRIMARY KEY,
    db INTEGER NOT NULL,
    key BLOB NOT NULL,
    owner BLOB NOT NULL,
    holders_max INTEGER, -- 1: exclusive; NULL: shared
    ttl_ms INTEGER,
    lasts_ms INTEGER, -- the TTL by which the deadline was last set
    deadline_ns INTEGER,
    granted_ns INTEGER NOT NULL,
    renewals INTEGER NOT NULL,
    max_hold_ms INTEGER,
    delay_ms INTEGER,
    delay_always INTEGER NOT NULL, -- 1: the delay is due after a clean end, too
    session TEXT,
    counted_by TEXT,
    account TEXT,
    meta TEXT,
    addr TEXT,
    client_name TEXT
) STRICT;
CREATE TABLE changes (
    row INTEGER PRIMARY KEY,
    leases TEXT NOT NULL
) STRICT;
INSERT INTO changes VALUES(1,'[[1,0,"plain","worker",1821318890922,3600000,"127.0.0.1:47022",""]]');
INSERT INTO changes VALUES(2,'[[2,0,[255,254],[0,1,128,111,119,110,101,114],1821324278076,3600000,"127.0.0.1:47022",""]]');
INSERT INTO changes VALUES(3,'[[3,0,[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,60,61,62,63,64,65,66,67,68,69,70,71,72,73,74,75,76,77,78,79,80,81,82,83,84,85,86,87,88,89,90,91,92,93,94,95,96,97,98,99,100,101,102,103,104,105,106,107,108,109,110,111,112,113,114,115,116,117,118,119,120,121,122,123,124,125,126,127,128,129,130,131,132,133,134,135,136,137,138,139,140,141,142,143,144,145,146,147,148,149,150,151,152,153,154,155,156,157,158,159,160,161,162,163,164,165,166,167,168,169,170,171,172,173,174,175,176,177,178,179,180,181,182,183,184,185,186,187,188,189,190,191,192,193,194,195,196,197,198,199,200,201,202,203,204,205,206,207,208,209,210,211,212,213,214,215,216,217,218,219,220,221,222,223,224,225,226,227,228,229,230,231,232,233,234,235,236,237,238,239,240,241,242,243,244,245,246,247,248,249,250,251,252,253,254,255],"worker",3,3600000,3600000,5421328222810,1821328222810,0,null,null,0,null,null,null,"nightly","127.0.0.1:47022",""]]');
INSERT INTO changes VALUES(4,'[[4,0,"gone",[255],1821329356712,3600000,"127.0.0.1:47022",""]]');
INSERT INTO changes VALUES(5,'[4]');
INSERT INTO changes VALUES(6,'[[2,9021334423972,7200000,1]]');
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
CREATE VIEW leases AS
    WITH change AS (
        SELECT iif(c.type = 'array', json_extract(c.value, '$[0]'), c.value) AS token, c.value,
            iif(c.type = 'array', json_array_length(c.value), 0) AS length, changes.row * 16777216 + c.key AS place
        FROM changes, json_each(changes.leases) c),
    renewed AS (
        SELECT token, json_extract(value, '$[1]') AS deadline_ns, json_extract(value, '$[2]') AS lasts_ms,
            json_extract(value, '$[3]') AS renewals, max(place)
        FROM change WHERE length = 4 GROUP BY token),
    lease AS (
        SELECT * FROM held WHERE token NOT IN (SELECT token FROM change WHERE length > 4)
        UNION ALL
        SELECT
            json_extract(value, '$[0]'), json_extract(value, '$[1]'), CAST(json_extract(value,
            '$[2]') AS BLOB), CAST(json_extract(value, '$[3]') AS BLOB), json_extract(value,
            '$[4]'), json_extract(value, '$[5]'), json_extract(value, '$[6]'), json_extract(value,
            '$[7]'), json_extract(value, '$[8]'), json_extract(value, '$[9]'), json_extract(value,
            '$[10]'), json_extract(value, '$[11]'), json_extract(value, '$[12]'),
            json_extract(value, '$[13]'), json_extract(value, '$[14]'), json_extract(value, '$[15]'),
            json_extract(value, '$[16]'), json_extract(value, '$[17]'), json_extract(value, '$[18]')
        FROM change WHERE length = 19
        UNION ALL
        SELECT
            json_extract(value, '$[0]'), json_extract(value, '$[1]'), CAST(json_extract(value,
            '$[2]') AS BLOB), CAST(json_extract(value, '$[3]') AS BLOB), 1, json_extract(value,
            '$[5]'), json_extract(value, '$[5]'), json_extract(value, '$[4]') + 1000000 * json_extract(value,
            '$[5]'), json_extract(value, '$[4]'), 0, NULL, NULL, 0, NULL, NULL, NULL, NULL,
            json_extract(value, '$[6]'), json_extract(value, '$[7]')
        FROM change WHERE length = 8)
    SELECT
        l.token, l.db, l.key, l.owner, l.holders_max, l.ttl_ms,
        iif(r.token IS NULL, l.lasts_ms, r.lasts_ms) AS lasts_ms,
        iif(r.token IS NULL, l.deadline_ns, r.deadline_ns) AS deadline_ns, l.granted_ns,
        coalesce(r.renewals, l.renewals) AS renewals,
        l.max_hold_ms, l.delay_ms, l.delay_always, l.session, l.counted_by, l.account, l.meta, l.addr, l.client_name
    FROM lease l LEFT JOIN renewed r ON r.token = l.token
    WHERE l.token NOT IN (SELECT token FROM change WHERE length = 0);
COMMIT;
