// Snippets that are compiled only: the names in them are declared as those of the libraries.

import javax.sql.DataSource;

class Migrating {
    // SNIPPETS
}

@interface Bean {}

class Config {
    native SingleServerConfig useSingleServer();
}

class SingleServerConfig {
    native SingleServerConfig setAddress(String address);
}

class Redisson {
    static native RedissonClient create(Config config);
}

interface RedissonClient {
    RLock getLock(String name);
}

interface RLock extends java.util.concurrent.locks.Lock {}

interface LockProvider {}

class JdbcTemplateLockProvider implements LockProvider {
    JdbcTemplateLockProvider(DataSource dataSource) {}
}

interface RedisConnectionFactory {}

class RedisLockProvider implements LockProvider {
    RedisLockProvider(RedisConnectionFactory connections) {}
}
