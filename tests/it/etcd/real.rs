//! A leader on a real etcd.
