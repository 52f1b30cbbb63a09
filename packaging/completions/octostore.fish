# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_octostore_global_optspecs
    string join \n config= listen= requirepass= requirepass-file= users= auth-timeout-ms= allow-no-password= allow-flush= idle-timeout-s= output-stall-ms= slowlog-log-slower-than= slowlog-max-len= notify-keyspace-events= threads= log= http= http-tokens= http-token= http-admin-key= http-admin-key-file= metrics-open= http-allow-origin= http-locks-per-user-max= tls-listen= https= tls-cert= tls-key= tls-client-ca= tls-client-auth= tls-user-from= data= store= store-ca= store-cert= store-key= accept-damaged-log= durability= commit-interval-ms= token-floor= advertise= advertise-http= cluster-ca= shard= shard-stores= cluster-name= sentinel-listen= sentinel-tls-listen= leader-silent-ms= ttl-ms-default= locks-max= sessions-max= ttl-ms-max= waiters-per-lock-max= values-bytes-max= value-elements-max= connections-max= key-bytes-max= lock-key-bytes-max= owner-bytes-max= value-bytes-max= meta-bytes-max= args-max= arg-bytes-max= request-bytes-max= multi-bytes-max= script-bytes-max= script-ms-max= subscriber-bytes-max= subscriptions-max= subscriptions-bytes-max= h/help V/version
end

function __fish_octostore_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_octostore_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_octostore_using_subcommand
    set -l cmd (__fish_octostore_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c octostore -n "__fish_octostore_needs_command" -l config -d 'TOML file with any of these settings, named like the flags' -r
complete -c octostore -n "__fish_octostore_needs_command" -l listen -d 'Addresses for Redis clients, comma-separated, or off [default: 127.0.0.1:7379,[::1]:7379]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l requirepass -d 'Password that clients must present; prefer --requirepass-file' -r
complete -c octostore -n "__fish_octostore_needs_command" -l requirepass-file -d 'File whose first line is the password' -r
complete -c octostore -n "__fish_octostore_needs_command" -l users -d 'File of users and their permissions, in the format of Redis\' ACL files' -r
complete -c octostore -n "__fish_octostore_needs_command" -l auth-timeout-ms -d 'Close connections that have not authenticated after this time [default: 10000]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l allow-no-password -d 'Allow listening beyond loopback without a password' -r
complete -c octostore -n "__fish_octostore_needs_command" -l allow-flush -d 'Allow FLUSHDB and FLUSHALL, which release every lock' -r
complete -c octostore -n "__fish_octostore_needs_command" -l idle-timeout-s -d 'Close connections that are idle for this time (0 = never) [default: 0]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l output-stall-ms -d 'Close connections that read less than 1 MiB of a pending reply in this time [default: 30000]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l slowlog-log-slower-than -d 'Put commands that take longer into SLOWLOG (0 = all, -1 = none) [default: 10000]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l slowlog-max-len -d 'Commands that SLOWLOG keeps [default: 128]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l notify-keyspace-events -d 'Classes of keyspace notifications to publish, as in Redis (KEA = all)' -r
complete -c octostore -n "__fish_octostore_needs_command" -l threads -d 'Worker threads (0 = CPUs − 1, at least 1) [default: 0]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l log -d 'Log level on stderr: error, warn, info, debug or trace [default: info]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l http -d 'Addresses for HTTP clients, comma-separated, or off [default: 127.0.0.1:7380,[::1]:7380]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l http-tokens -d 'Deprecated, see --users: file of HTTP users, one per line: user:token, optionally followed by a namespace that its lock names must start with' -r
complete -c octostore -n "__fish_octostore_needs_command" -l http-token -d 'Deprecated, see --users: a single HTTP user' -r
complete -c octostore -n "__fish_octostore_needs_command" -l http-admin-key -d 'Key that operators must present; prefer --http-admin-key-file' -r
complete -c octostore -n "__fish_octostore_needs_command" -l http-admin-key-file -d 'File whose first line is the operators\' key' -r
complete -c octostore -n "__fish_octostore_needs_command" -l metrics-open -d 'Serve /metrics without credentials' -r
complete -c octostore -n "__fish_octostore_needs_command" -l http-allow-origin -d 'Origins of web pages whose scripts may read responses, comma-separated' -r
complete -c octostore -n "__fish_octostore_needs_command" -l http-locks-per-user-max -d 'Maximum number of locks held by one HTTP user [default: 100]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l tls-listen -d 'Addresses for Redis clients with TLS, comma-separated' -r
complete -c octostore -n "__fish_octostore_needs_command" -l https -d 'Addresses for HTTP clients with TLS, comma-separated' -r
complete -c octostore -n "__fish_octostore_needs_command" -l tls-cert -d 'The server\'s certificate in PEM format, followed by those between it and a root' -r
complete -c octostore -n "__fish_octostore_needs_command" -l tls-key -d 'The private key of the certificate in PEM format' -r
complete -c octostore -n "__fish_octostore_needs_command" -l tls-client-ca -d 'Root certificates of clients in PEM format' -r
complete -c octostore -n "__fish_octostore_needs_command" -l tls-client-auth -d 'With --tls-client-ca, whether clients must present a certificate: optional or required [default: required]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l tls-user-from -d 'cn: the common name in a client\'s certificate is its user, without a password' -r
complete -c octostore -n "__fish_octostore_needs_command" -l data -d 'Database file [default: ./octostore.db]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l store -d 'Store in etcd instead of a file: etcd://[USER:PASSWORD@]HOST:PORT,HOST:PORT/PREFIX, or etcds://. All servers with the same store are one cluster' -r
complete -c octostore -n "__fish_octostore_needs_command" -l store-ca -d 'Authorities that the certificates of --store are checked against (default: those of the system)' -r
complete -c octostore -n "__fish_octostore_needs_command" -l store-cert -d 'Certificate that this server presents to --store' -r
complete -c octostore -n "__fish_octostore_needs_command" -l store-key -d 'Key of --store-cert' -r
complete -c octostore -n "__fish_octostore_needs_command" -l accept-damaged-log -d 'Start despite write-ahead log damage that hides commits, and discard those commits' -r
complete -c octostore -n "__fish_octostore_needs_command" -l durability -d 'always: reply after fsync; interval: reply at once, commit periodically; memory: no file [default: always]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l commit-interval-ms -d 'Maximum time between commits with --durability interval [default: 100]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l token-floor -d 'Issue fencing tokens above this value, for a database restored from a backup [default: 0]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l advertise -d 'Where clients and other servers of the cluster reach this one (default: the address of --listen)' -r
complete -c octostore -n "__fish_octostore_needs_command" -l advertise-http -d 'The same for HTTP (default: the host of --advertise and the port of --http)' -r
complete -c octostore -n "__fish_octostore_needs_command" -l cluster-ca -d 'The servers of a cluster connect to each other with TLS; root certificates that theirs are checked against, in PEM format' -r
complete -c octostore -n "__fish_octostore_needs_command" -l shard -d 'Serve the I-th of N shards, such as 1/3: the keys are divided as in Redis Cluster (default: all keys)' -r
complete -c octostore -n "__fish_octostore_needs_command" -l shard-stores -d 'The stores of all shards in their order, with spaces between them, if they are not all in --store' -r
complete -c octostore -n "__fish_octostore_needs_command" -l cluster-name -d 'Name by which Sentinel clients ask for the leader [default: octostore]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l sentinel-listen -d 'Addresses at which the server answers as Redis Sentinel and as nothing else, comma-separated' -r
complete -c octostore -n "__fish_octostore_needs_command" -l sentinel-tls-listen -d 'The same with TLS' -r
complete -c octostore -n "__fish_octostore_needs_command" -l leader-silent-ms -d 'Replace a leader that does not answer the other servers for this time [default: 1000]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l ttl-ms-default -d 'Default TTL of LOCK and SESSION OPEN; HTTP has its own, 60 s [default: 30000]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l locks-max -d 'Maximum number of leases and running lock delays; at the limit only requests that are already queued are granted [default: 10000000]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l sessions-max -d 'Maximum number of open sessions, including one per connection that uses CONN [default: 100000]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l ttl-ms-max -d 'Maximum TTL, MAXHOLD and DELAY, also over HTTP; at most 30 days [default: 2592000000]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l waiters-per-lock-max -d 'Maximum number of requests queued for one lock [default: 100000]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l values-bytes-max -d 'Maximum memory of all hashes, sets, sorted sets and lists; at the limit nothing is added to any [default: 1073741824]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l value-elements-max -d 'Maximum number of elements of one value [default: 16777216]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l connections-max -d 'Maximum number of connections [default: 10000]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l key-bytes-max -d 'Maximum length of a key [default: 16384]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l lock-key-bytes-max -d 'Maximum length of a key in LOCK, UNLOCK and RENEW, and over HTTP [default: 1024]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l owner-bytes-max -d 'Maximum length of an owner in LOCK, UNLOCK and RENEW [default: 4096]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l value-bytes-max -d 'Maximum length of the value of a string [default: 1048576]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l meta-bytes-max -d 'Maximum length of a META text; over HTTP, this number of characters [default: 1024]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l args-max -d 'Maximum number of arguments in a request [default: 1048576]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l arg-bytes-max -d 'Maximum length of an argument [default: 1048576]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l request-bytes-max -d 'Maximum length of a request [default: 33554432]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l multi-bytes-max -d 'Maximum size of the commands queued by one MULTI [default: 1048576]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l script-bytes-max -d 'Maximum memory of a running script [default: 67108864]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l script-ms-max -d 'Maximum time that a script may run before it is stopped [default: 1000]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l subscriber-bytes-max -d 'Maximum size of the messages queued for a slow subscriber [default: 1048576]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l subscriptions-max -d 'Maximum number of channels and patterns of a connection [default: 10000]' -r
complete -c octostore -n "__fish_octostore_needs_command" -l subscriptions-bytes-max -d 'Maximum size of the channels and patterns of a connection: names plus 192 bytes each [default: 4194304]' -r
complete -c octostore -n "__fish_octostore_needs_command" -s h -l help -d 'Print help'
complete -c octostore -n "__fish_octostore_needs_command" -s V -l version -d 'Print version'
complete -c octostore -n "__fish_octostore_needs_command" -f -a "serve" -d 'Runs the server, as without a subcommand'
complete -c octostore -n "__fish_octostore_needs_command" -f -a "run" -d 'Runs a command while it holds a lock'
complete -c octostore -n "__fish_octostore_needs_command" -f -a "locks" -d 'Lists the locks that are held: by whom, for how long, and how many wait'
complete -c octostore -n "__fish_octostore_needs_command" -f -a "info" -d 'Shows the holders and waiters of a lock'
complete -c octostore -n "__fish_octostore_needs_command" -f -a "force-unlock" -d 'Takes a lock from its holders; exit code 1 if there is none'
complete -c octostore -n "__fish_octostore_needs_command" -f -a "bench" -d 'Measures how many locks a server grants, and how long requests take'
complete -c octostore -n "__fish_octostore_needs_command" -f -a "health" -d 'Asks a server whether it can grant locks: GET /health'
complete -c octostore -n "__fish_octostore_needs_command" -f -a "backup" -d 'Copies the database to FILE, also while a server uses it, and checks the copy'
complete -c octostore -n "__fish_octostore_needs_command" -f -a "restore" -d 'Makes the copy in FILE the database, if there is none and no server runs'
complete -c octostore -n "__fish_octostore_needs_command" -f -a "check" -d 'Verifies a database that no server uses; exit code 1 if there is a finding'
complete -c octostore -n "__fish_octostore_needs_command" -f -a "completions" -d 'Prints the completions for a shell: bash, elvish, fish, powershell or zsh'
complete -c octostore -n "__fish_octostore_needs_command" -f -a "man" -d 'Prints the manual page of the server, or of a subcommand'
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l config -d 'TOML file with any of these settings, named like the flags' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l listen -d 'Addresses for Redis clients, comma-separated, or off [default: 127.0.0.1:7379,[::1]:7379]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l requirepass -d 'Password that clients must present; prefer --requirepass-file' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l requirepass-file -d 'File whose first line is the password' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l users -d 'File of users and their permissions, in the format of Redis\' ACL files' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l auth-timeout-ms -d 'Close connections that have not authenticated after this time [default: 10000]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l allow-no-password -d 'Allow listening beyond loopback without a password' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l allow-flush -d 'Allow FLUSHDB and FLUSHALL, which release every lock' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l idle-timeout-s -d 'Close connections that are idle for this time (0 = never) [default: 0]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l output-stall-ms -d 'Close connections that read less than 1 MiB of a pending reply in this time [default: 30000]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l slowlog-log-slower-than -d 'Put commands that take longer into SLOWLOG (0 = all, -1 = none) [default: 10000]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l slowlog-max-len -d 'Commands that SLOWLOG keeps [default: 128]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l notify-keyspace-events -d 'Classes of keyspace notifications to publish, as in Redis (KEA = all)' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l threads -d 'Worker threads (0 = CPUs − 1, at least 1) [default: 0]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l log -d 'Log level on stderr: error, warn, info, debug or trace [default: info]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l http -d 'Addresses for HTTP clients, comma-separated, or off [default: 127.0.0.1:7380,[::1]:7380]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l http-tokens -d 'Deprecated, see --users: file of HTTP users, one per line: user:token, optionally followed by a namespace that its lock names must start with' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l http-token -d 'Deprecated, see --users: a single HTTP user' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l http-admin-key -d 'Key that operators must present; prefer --http-admin-key-file' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l http-admin-key-file -d 'File whose first line is the operators\' key' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l metrics-open -d 'Serve /metrics without credentials' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l http-allow-origin -d 'Origins of web pages whose scripts may read responses, comma-separated' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l http-locks-per-user-max -d 'Maximum number of locks held by one HTTP user [default: 100]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l tls-listen -d 'Addresses for Redis clients with TLS, comma-separated' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l https -d 'Addresses for HTTP clients with TLS, comma-separated' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l tls-cert -d 'The server\'s certificate in PEM format, followed by those between it and a root' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l tls-key -d 'The private key of the certificate in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l tls-client-ca -d 'Root certificates of clients in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l tls-client-auth -d 'With --tls-client-ca, whether clients must present a certificate: optional or required [default: required]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l tls-user-from -d 'cn: the common name in a client\'s certificate is its user, without a password' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l data -d 'Database file [default: ./octostore.db]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l store -d 'Store in etcd instead of a file: etcd://[USER:PASSWORD@]HOST:PORT,HOST:PORT/PREFIX, or etcds://. All servers with the same store are one cluster' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l store-ca -d 'Authorities that the certificates of --store are checked against (default: those of the system)' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l store-cert -d 'Certificate that this server presents to --store' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l store-key -d 'Key of --store-cert' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l accept-damaged-log -d 'Start despite write-ahead log damage that hides commits, and discard those commits' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l durability -d 'always: reply after fsync; interval: reply at once, commit periodically; memory: no file [default: always]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l commit-interval-ms -d 'Maximum time between commits with --durability interval [default: 100]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l token-floor -d 'Issue fencing tokens above this value, for a database restored from a backup [default: 0]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l advertise -d 'Where clients and other servers of the cluster reach this one (default: the address of --listen)' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l advertise-http -d 'The same for HTTP (default: the host of --advertise and the port of --http)' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l cluster-ca -d 'The servers of a cluster connect to each other with TLS; root certificates that theirs are checked against, in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l shard -d 'Serve the I-th of N shards, such as 1/3: the keys are divided as in Redis Cluster (default: all keys)' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l shard-stores -d 'The stores of all shards in their order, with spaces between them, if they are not all in --store' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l cluster-name -d 'Name by which Sentinel clients ask for the leader [default: octostore]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l sentinel-listen -d 'Addresses at which the server answers as Redis Sentinel and as nothing else, comma-separated' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l sentinel-tls-listen -d 'The same with TLS' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l leader-silent-ms -d 'Replace a leader that does not answer the other servers for this time [default: 1000]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l ttl-ms-default -d 'Default TTL of LOCK and SESSION OPEN; HTTP has its own, 60 s [default: 30000]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l locks-max -d 'Maximum number of leases and running lock delays; at the limit only requests that are already queued are granted [default: 10000000]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l sessions-max -d 'Maximum number of open sessions, including one per connection that uses CONN [default: 100000]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l ttl-ms-max -d 'Maximum TTL, MAXHOLD and DELAY, also over HTTP; at most 30 days [default: 2592000000]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l waiters-per-lock-max -d 'Maximum number of requests queued for one lock [default: 100000]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l values-bytes-max -d 'Maximum memory of all hashes, sets, sorted sets and lists; at the limit nothing is added to any [default: 1073741824]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l value-elements-max -d 'Maximum number of elements of one value [default: 16777216]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l connections-max -d 'Maximum number of connections [default: 10000]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l key-bytes-max -d 'Maximum length of a key [default: 16384]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l lock-key-bytes-max -d 'Maximum length of a key in LOCK, UNLOCK and RENEW, and over HTTP [default: 1024]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l owner-bytes-max -d 'Maximum length of an owner in LOCK, UNLOCK and RENEW [default: 4096]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l value-bytes-max -d 'Maximum length of the value of a string [default: 1048576]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l meta-bytes-max -d 'Maximum length of a META text; over HTTP, this number of characters [default: 1024]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l args-max -d 'Maximum number of arguments in a request [default: 1048576]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l arg-bytes-max -d 'Maximum length of an argument [default: 1048576]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l request-bytes-max -d 'Maximum length of a request [default: 33554432]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l multi-bytes-max -d 'Maximum size of the commands queued by one MULTI [default: 1048576]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l script-bytes-max -d 'Maximum memory of a running script [default: 67108864]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l script-ms-max -d 'Maximum time that a script may run before it is stopped [default: 1000]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l subscriber-bytes-max -d 'Maximum size of the messages queued for a slow subscriber [default: 1048576]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l subscriptions-max -d 'Maximum number of channels and patterns of a connection [default: 10000]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -l subscriptions-bytes-max -d 'Maximum size of the channels and patterns of a connection: names plus 192 bytes each [default: 4194304]' -r
complete -c octostore -n "__fish_octostore_using_subcommand serve" -s h -l help -d 'Print help'
complete -c octostore -n "__fish_octostore_using_subcommand serve" -s V -l version -d 'Print version'
complete -c octostore -n "__fish_octostore_using_subcommand run" -l ttl -d 'The TTL of the lease, at least 1s' -r
complete -c octostore -n "__fish_octostore_using_subcommand run" -l wait -d 'Give up after this time; without it, wait on' -r
complete -c octostore -n "__fish_octostore_using_subcommand run" -l limit -d 'Hold the lock together with up to N - 1 others' -r
complete -c octostore -n "__fish_octostore_using_subcommand run" -l owner -d 'The first part of the lease\'s owner, by default the name of the host; the rest is unique to each run' -r
complete -c octostore -n "__fish_octostore_using_subcommand run" -l on-lost -d 'If the lease cannot be renewed: SIGTERM and SIGKILL in time, only SIGTERM, or nothing' -r -f -a "kill\t''
term\t''
ignore\t''"
complete -c octostore -n "__fish_octostore_using_subcommand run" -l grace -d 'The time between SIGTERM and SIGKILL, at most a third of the TTL' -r
complete -c octostore -n "__fish_octostore_using_subcommand run" -l not-acquired-code -d 'Another owner holds the lock' -r
complete -c octostore -n "__fish_octostore_using_subcommand run" -l lost-code -d 'The lease was lost' -r
complete -c octostore -n "__fish_octostore_using_subcommand run" -l no-server-code -d 'The server cannot be reached, or refuses the request' -r
complete -c octostore -n "__fish_octostore_using_subcommand run" -l url -d 'redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// for TLS, redis-sentinel://[USER:PASSWORD@]HOST[:PORT],…[/DB][#NAME] for the leader of a cluster, or rediss-sentinel://' -r
complete -c octostore -n "__fish_octostore_using_subcommand run" -l cacert -d 'Root certificates in PEM format, in place of those of the system' -r
complete -c octostore -n "__fish_octostore_using_subcommand run" -l cert -d 'The client\'s certificate in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand run" -l key -d 'The private key of the client\'s certificate in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand run" -l try -d 'Do not wait'
complete -c octostore -n "__fish_octostore_using_subcommand run" -l shared -d 'Hold the lock together with others that share it'
complete -c octostore -n "__fish_octostore_using_subcommand run" -l shell -d 'Run the command as a line of /bin/sh'
complete -c octostore -n "__fish_octostore_using_subcommand run" -s h -l help -d 'Print help'
complete -c octostore -n "__fish_octostore_using_subcommand locks" -l url -d 'redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// for TLS, redis-sentinel://[USER:PASSWORD@]HOST[:PORT],…[/DB][#NAME] for the leader of a cluster, or rediss-sentinel://' -r
complete -c octostore -n "__fish_octostore_using_subcommand locks" -l cacert -d 'Root certificates in PEM format, in place of those of the system' -r
complete -c octostore -n "__fish_octostore_using_subcommand locks" -l cert -d 'The client\'s certificate in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand locks" -l key -d 'The private key of the client\'s certificate in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand locks" -l watch -d 'Repeat every second, until Ctrl-C'
complete -c octostore -n "__fish_octostore_using_subcommand locks" -l json -d 'One JSON object per lock and line'
complete -c octostore -n "__fish_octostore_using_subcommand locks" -s h -l help -d 'Print help'
complete -c octostore -n "__fish_octostore_using_subcommand info" -l url -d 'redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// for TLS, redis-sentinel://[USER:PASSWORD@]HOST[:PORT],…[/DB][#NAME] for the leader of a cluster, or rediss-sentinel://' -r
complete -c octostore -n "__fish_octostore_using_subcommand info" -l cacert -d 'Root certificates in PEM format, in place of those of the system' -r
complete -c octostore -n "__fish_octostore_using_subcommand info" -l cert -d 'The client\'s certificate in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand info" -l key -d 'The private key of the client\'s certificate in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand info" -l json -d 'One JSON object'
complete -c octostore -n "__fish_octostore_using_subcommand info" -s h -l help -d 'Print help'
complete -c octostore -n "__fish_octostore_using_subcommand force-unlock" -l url -d 'redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// for TLS, redis-sentinel://[USER:PASSWORD@]HOST[:PORT],…[/DB][#NAME] for the leader of a cluster, or rediss-sentinel://' -r
complete -c octostore -n "__fish_octostore_using_subcommand force-unlock" -l cacert -d 'Root certificates in PEM format, in place of those of the system' -r
complete -c octostore -n "__fish_octostore_using_subcommand force-unlock" -l cert -d 'The client\'s certificate in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand force-unlock" -l key -d 'The private key of the client\'s certificate in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand force-unlock" -s y -l yes -d 'Do not ask, as without a terminal'
complete -c octostore -n "__fish_octostore_using_subcommand force-unlock" -s h -l help -d 'Print help'
complete -c octostore -n "__fish_octostore_using_subcommand bench" -l work -d 'cycle: each client takes and releases a lock of its own; contend: all the same lock; renew: each renews its lock' -r -f -a "cycle\t''
contend\t''
renew\t''"
complete -c octostore -n "__fish_octostore_using_subcommand bench" -s c -l clients -d 'Connections to each server; each waits for a reply before its next request' -r
complete -c octostore -n "__fish_octostore_using_subcommand bench" -l time -d 'How long each server is measured' -r
complete -c octostore -n "__fish_octostore_using_subcommand bench" -l compare -d 'A second server, octostore or Redis, that takes turns of a second with the first' -r
complete -c octostore -n "__fish_octostore_using_subcommand bench" -l prefix -d 'Keys begin with this' -r
complete -c octostore -n "__fish_octostore_using_subcommand bench" -l url -d 'redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// for TLS, redis-sentinel://[USER:PASSWORD@]HOST[:PORT],…[/DB][#NAME] for the leader of a cluster, or rediss-sentinel://' -r
complete -c octostore -n "__fish_octostore_using_subcommand bench" -l cacert -d 'Root certificates in PEM format, in place of those of the system' -r
complete -c octostore -n "__fish_octostore_using_subcommand bench" -l cert -d 'The client\'s certificate in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand bench" -l key -d 'The private key of the client\'s certificate in PEM format' -r
complete -c octostore -n "__fish_octostore_using_subcommand bench" -l json -d 'One JSON object'
complete -c octostore -n "__fish_octostore_using_subcommand bench" -s h -l help -d 'Print help'
complete -c octostore -n "__fish_octostore_using_subcommand health" -l http -d 'The server\'s addresses for HTTP clients, of which the first is asked' -r
complete -c octostore -n "__fish_octostore_using_subcommand health" -s h -l help -d 'Print help'
complete -c octostore -n "__fish_octostore_using_subcommand backup" -l data -d 'Database file' -r
complete -c octostore -n "__fish_octostore_using_subcommand backup" -l every -d 'Repeat at this interval (30s, 15m, 1h, 1d), to files named FILE.<time>' -r
complete -c octostore -n "__fish_octostore_using_subcommand backup" -l keep -d 'With --every, the number of copies to keep' -r
complete -c octostore -n "__fish_octostore_using_subcommand backup" -s h -l help -d 'Print help'
complete -c octostore -n "__fish_octostore_using_subcommand restore" -l data -d 'Database file' -r
complete -c octostore -n "__fish_octostore_using_subcommand restore" -l token-floor -d 'A fencing token above all that were issued; needed only if they are ahead of what the clock of this machine leads to' -r
complete -c octostore -n "__fish_octostore_using_subcommand restore" -s h -l help -d 'Print help'
complete -c octostore -n "__fish_octostore_using_subcommand check" -l data -d 'Database file' -r
complete -c octostore -n "__fish_octostore_using_subcommand check" -s h -l help -d 'Print help'
complete -c octostore -n "__fish_octostore_using_subcommand completions" -s h -l help -d 'Print help'
complete -c octostore -n "__fish_octostore_using_subcommand man" -s h -l help -d 'Print help'
