-- A database of version 0.1.0 as `kill -9` left it: leases in the table and in the log, a session, a delay.
PRAGMA application_id = 1868788847;
BEGIN TRANSACTION;
CREATE TABLE changes (
    row INTEGER PRIMARY KEY,
    leases TEXT NOT NULL
) STRICT;
INSERT INTO "changes" VALUES(1,'[[9,0,"log:plain","owner-b",13673869960691,60000,"127.0.0.1:42442","worker-7"]]');
INSERT INTO "changes" VALUES(2,'[[10,0,[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,60,61,62,63,64,65,66,67,68,69,70,71,72,73,74,75,76,77,78,79,80,81,82,83,84,85,86,87,88,89,90,91,92,93,94,95,96,97,98,99,100,101,102,103,104,105,106,107,108,109,110,111,112,113,114,115,116,117,118,119,120,121,122,123,124,125,126,127,128,129,130,131,132,133,134,135,136,137,138,139,140,141,142,143,144,145,146,147,148,149,150,151,152,153,154,155,156,157,158,159,160,161,162,163,164,165,166,167,168,169,170,171,172,173,174,175,176,177,178,179,180,181,182,183,184,185,186,187,188,189,190,191,192,193,194,195,196,197,198,199,200,201,202,203,204,205,206,207,208,209,210,211,212,213,214,215,216,217,218,219,220,221,222,223,224,225,226,227,228,229,230,231,232,233,234,235,236,237,238,239,240,241,242,243,244,245,246,247,248,249,250,251,252,253,254,255],[255,254,253,252,251,250,249,248,247,246,245,244,243,242,241,240,239,238,237,236,235,234,233,232,231,230,229,228,227,226,225,224,223,222,221,220,219,218,217,216,215,214,213,212,211,210,209,208,207,206,205,204,203,202,201,200,199,198,197,196,195,194,193,192,191,190,189,188,187,186,185,184,183,182,181,180,179,178,177,176,175,174,173,172,171,170,169,168,167,166,165,164,163,162,161,160,159,158,157,156,155,154,153,152,151,150,149,148,147,146,145,144,143,142,141,140,139,138,137,136,135,134,133,132,131,130,129,128,127,126,125,124,123,122,121,120,119,118,117,116,115,114,113,112,111,110,109,108,107,106,105,104,103,102,101,100,99,98,97,96,95,94,93,92,91,90,89,88,87,86,85,84,83,82,81,80,79,78,77,76,75,74,73,72,71,70,69,68,67,66,65,64,63,62,61,60,59,58,57,56,55,54,53,52,51,50,49,48,47,46,45,44,43,42,41,40,39,38,37,36,35,34,33,32,31,30,29,28,27,26,25,24,23,22,21,20,19,18,17,16,15,14,13,12,11,10,9,8,7,6,5,4,3,2,1,0],13673870733147,3600000,"127.0.0.1:42442","worker-7"]]');
INSERT INTO "changes" VALUES(3,'[[11,0,"log:full","owner-b",9,3600000,3600000,17273870983989,13673870983989,0,7200000,5000,0,"66e7c621773242b096e37c82a4928365",null,null,"late","127.0.0.1:42442","worker-7"]]');
INSERT INTO "changes" VALUES(4,'[[12,0,"log:released","owner-b",13673871507827,3600000,"127.0.0.1:42442","worker-7"]]');
INSERT INTO "changes" VALUES(5,'[[6,20873871994118,7200000,1]]');
INSERT INTO "changes" VALUES(6,'[7]');
INSERT INTO "changes" VALUES(7,'[[9,13793872629131,120000,1]]');
INSERT INTO "changes" VALUES(8,'[12]');
INSERT INTO "changes" VALUES(9,'[[13,0,"quote''\"\\é","owner-b",null,3600000,3600000,17273873665699,13673873665699,0,null,null,0,null,null,null,null,"127.0.0.1:42442","worker-7"]]');
CREATE TABLE delays (
    db INTEGER NOT NULL,
    key BLOB NOT NULL,
    until_ns INTEGER NOT NULL,
    length_ms INTEGER NOT NULL,
    PRIMARY KEY (db, key)
) STRICT, WITHOUT ROWID;
INSERT INTO "delays" VALUES(0,X'64656C61796564',14273268993305,600000);
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
INSERT INTO "held" VALUES(1,0,X'636F6D7061637465643A706C61696E',X'6F776E65722D61',1,3600000,3600000,17273265751975,13673265751975,0,NULL,NULL,0,NULL,NULL,NULL,NULL,'127.0.0.1:42442','worker-7');
INSERT INTO "held" VALUES(2,0,X'636F6D7061637465643A66756C6C',X'6F776E65722D61',1,3600000,3600000,17273266512243,13673266512243,0,7200000,5000,0,NULL,NULL,NULL,'café "x"','127.0.0.1:42442','worker-7');
INSERT INTO "held" VALUES(3,0,X'636F6D7061637465643A736861726564',X'7265616465722D31',NULL,600000,600000,14273267015760,13673267015760,0,NULL,NULL,0,NULL,NULL,NULL,NULL,'127.0.0.1:42442','worker-7');
INSERT INTO "held" VALUES(4,0,X'636F6D7061637465643A736861726564',X'7265616465722D32',NULL,600000,600000,14273267202528,13673267202528,0,NULL,NULL,0,NULL,NULL,NULL,NULL,'127.0.0.1:42442','worker-7');
INSERT INTO "held" VALUES(5,0,X'636F6D7061637465643AFF00',X'000180',3,3600000,3600000,17273267699174,13673267699174,0,NULL,NULL,0,'66e7c621773242b096e37c82a4928365',NULL,NULL,NULL,'127.0.0.1:42442','worker-7');
INSERT INTO "held" VALUES(6,0,X'636F6D7061637465643A72656E657765642D6C61746572',X'6F776E65722D61',1,3600000,3600000,17273267932160,13673267932160,0,NULL,NULL,0,NULL,NULL,NULL,NULL,'127.0.0.1:42442','worker-7');
INSERT INTO "held" VALUES(7,0,X'636F6D7061637465643A72656C65617365642D6C61746572',X'6F776E65722D61',1,3600000,3600000,17273268483308,13673268483308,0,NULL,NULL,0,NULL,NULL,NULL,NULL,'127.0.0.1:42442','worker-7');
CREATE TABLE octostore (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    schema_version INTEGER NOT NULL,
    tokens_reserved INTEGER NOT NULL,
    boot_id TEXT,
    secret BLOB NOT NULL
) STRICT;
INSERT INTO "octostore" VALUES(1,1,32768,'f5a48cec-4893-4700-86ed-e0d20d51d10e',X'0C406704BD2867CC44372BD359B6FF9FAFA6B6FB6CD67E4AB2EABA702138002C');
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    account TEXT,
    ttl_ms INTEGER,
    deadline_ns INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO "sessions" VALUES('66e7c621773242b096e37c82a4928365','nightly batch',NULL,3600000,17273264906841);
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
