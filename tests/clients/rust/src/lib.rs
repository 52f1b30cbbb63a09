//! Lock libraries in Rust, against the servers that the environment names.

#[cfg(test)]
mod redis_rs;
#[cfg(test)]
mod redis_rs_cluster;
#[cfg(test)]
mod redis_rs_secured;
#[cfg(test)]
mod redis_rs_sentinel;
#[cfg(test)]
mod redis_rs_sentinel_secured;
#[cfg(test)]
mod rslock;
#[cfg(test)]
mod support;
