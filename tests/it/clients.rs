//! The redis crate, as users have it, in RESP2 and RESP3, blocking and async.

use redis::Value;

use crate::support::server::TestServer;

fn url(server: &TestServer, protocol: u8) -> String {
    format!("redis://{}/?protocol=resp{protocol}", server.addr)
}

fn each_protocol(check: impl Fn(&TestServer, redis::Connection, u8)) {
    for protocol in [2, 3] {
        let server = TestServer::real(&[]);
        let client = redis::Client::open(url(&server, protocol)).expect("a good address");
        check(&server, client.get_connection().expect("a connection"), protocol);
    }
}

#[test]
fn a_lock_is_acquired_fenced_renewed_and_released() {
    each_protocol(|_, mut connection, _| {
        let token: Option<i64> =
            redis::cmd("LOCK").arg("job").arg("me").arg("EX").arg(30).query(&mut connection).unwrap();
        let token = token.expect("free before");
        let other: Option<i64> = redis::cmd("LOCK").arg("job").arg("you").query(&mut connection).unwrap();
        assert_eq!(other, None);
        let again: Option<i64> = redis::cmd("LOCK").arg("job").arg("me").query(&mut connection).unwrap();
        assert_eq!(again, Some(token), "asking again keeps the token");
        let holds: bool = redis::cmd("FENCE").arg("job").arg(token).query(&mut connection).unwrap();
        assert!(holds);
        let renewed: i64 =
            redis::cmd("RENEW").arg("job").arg("me").arg("PX").arg(5000).query(&mut connection).unwrap();
        assert_eq!(renewed, 1);
        let left: i64 = redis::cmd("PTTL").arg("job").query(&mut connection).unwrap();
        assert!((1..=5000).contains(&left), "{left}");
        let released: i64 =
            redis::cmd("UNLOCK").arg("job").arg("me").arg("TOKEN").arg(token).query(&mut connection).unwrap();
        assert_eq!(released, 1);
        let next: i64 = redis::cmd("LOCK").arg("job").arg("you").query(&mut connection).unwrap();
        assert!(next > token);
    });
}

#[test]
fn maps_are_sent_in_the_protocol_of_the_client() {
    each_protocol(|_, mut connection, protocol| {
        let _: i64 =
            redis::cmd("LOCK").arg("k").arg("me").arg("META").arg("why").query(&mut connection).unwrap();
        let info: Value = redis::cmd("LOCKINFO").arg("k").query(&mut connection).unwrap();
        assert_eq!(matches!(info, Value::Map(_)), protocol == 3, "{info:?}");
        let info: std::collections::HashMap<String, Value> = redis::from_redis_value(info).unwrap();
        assert_eq!(info["state"], Value::BulkString(b"exclusive".to_vec()));
        let free: Option<i64> = redis::cmd("FENCE").arg("nothing").query(&mut connection).unwrap();
        assert_eq!(free, None);
    });
}

#[test]
fn the_set_nx_idiom_and_lock_exclude_each_other() {
    each_protocol(|_, mut connection, _| {
        let set: Option<String> = redis::cmd("SET")
            .arg("k")
            .arg("old")
            .arg("NX")
            .arg("PX")
            .arg(30_000)
            .query(&mut connection)
            .unwrap();
        assert_eq!(set.as_deref(), Some("OK"));
        let lock: Option<i64> = redis::cmd("LOCK").arg("k").arg("new").query(&mut connection).unwrap();
        assert_eq!(lock, None);
        let token: i64 = redis::cmd("FENCE").arg("k").query(&mut connection).unwrap();
        assert!(token > 0);
        let deleted: i64 = redis::cmd("DEL").arg("k").query(&mut connection).unwrap();
        assert_eq!(deleted, 1);
        let lock: Option<i64> = redis::cmd("LOCK").arg("k").arg("new").query(&mut connection).unwrap();
        assert!(lock.expect("free now") > token);
        let set: Option<String> =
            redis::cmd("SET").arg("k").arg("old").arg("NX").query(&mut connection).unwrap();
        assert_eq!(set, None);
    });
}

#[test]
fn a_transaction_and_a_pipeline_answer_in_order() {
    each_protocol(|_, mut connection, _| {
        let (first, second, released): (i64, i64, i64) = redis::pipe()
            .atomic()
            .cmd("LOCK")
            .arg("a")
            .arg("me")
            .cmd("LOCK")
            .arg("b")
            .arg("me")
            .cmd("UNLOCK")
            .arg("a")
            .arg("me")
            .query(&mut connection)
            .unwrap();
        assert!(second > first);
        assert_eq!(released, 1);
        let mut pipe = redis::pipe();
        for n in 0..500 {
            pipe.cmd("LOCK").arg(format!("p{n}")).arg("me");
        }
        let tokens: Vec<i64> = pipe.query(&mut connection).unwrap();
        assert!(tokens.is_sorted() && tokens.len() == 500);
    });
}

#[test]
fn an_error_has_a_code_that_the_client_sees() {
    each_protocol(|_, mut connection, _| {
        let wrong: redis::RedisResult<i64> = redis::cmd("LOCK").arg("k").query(&mut connection);
        let error = wrong.expect_err("an owner is missing");
        assert!(error.to_string().contains("wrong number of arguments"), "{error}");
        let fine: i64 = redis::cmd("LOCK").arg("k").arg("me").query(&mut connection).unwrap();
        assert!(fine > 0, "the connection goes on");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_client_waits_in_the_queue() {
    for protocol in [2, 3] {
        let server = TestServer::real(&[]);
        let client = redis::Client::open(url(&server, protocol)).unwrap();
        // A waiting LOCK answers when it is its turn: the client must not give up before.
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let mut holder = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        let mut waiter = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        let first: i64 = redis::cmd("LOCK").arg("k").arg("a").query_async(&mut holder).await.unwrap();
        let waiting = tokio::spawn(async move {
            let token: Option<i64> = redis::cmd("LOCK")
                .arg("k")
                .arg("b")
                .arg("WAIT")
                .arg(60_000)
                .query_async(&mut waiter)
                .await
                .unwrap();
            token
        });
        while server.engine.lock_stats().waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let _: i64 = redis::cmd("UNLOCK").arg("k").arg("a").query_async(&mut holder).await.unwrap();
        assert!(waiting.await.unwrap().expect("its turn came") > first);
    }
}

#[test]
fn a_subscriber_receives_the_events_of_a_lock() {
    each_protocol(|server, mut connection, _| {
        let client = redis::Client::open(url(server, 2)).unwrap();
        let mut listening = client.get_connection().unwrap();
        let mut pubsub = listening.as_pubsub();
        pubsub.subscribe("__lock__:k").unwrap();
        let token: i64 = redis::cmd("LOCK").arg("k").arg("secret").query(&mut connection).unwrap();
        let _: i64 = redis::cmd("UNLOCK").arg("k").arg("secret").query(&mut connection).unwrap();
        let heard: Vec<String> =
            (0..2).map(|_| pubsub.get_message().unwrap().get_payload().unwrap()).collect();
        assert_eq!(heard, [format!("acquired {token}"), format!("released {token}")]);
    });
}
