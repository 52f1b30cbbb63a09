//! The result of a benchmark: a table for people, JSON for scripts.
//!
//! Guarantees: percentiles are of all turns, ratios of pairs of neighbouring turns.

use hdrhistogram::Histogram;
use serde_json::{Map, Value as Json, json};

use super::Plan;
use super::load::{Request, Side};
use crate::cli::output::{has_colours, table};

const HEADER: [&str; 8] = ["SERVER", "REQUEST", "PER SECOND", "P50", "P90", "P99", "P99.9", "MAX"];
/// As in the header; the last is the maximum.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// How many times as fast the first of two servers is, of each pair of neighbouring turns.
#[derive(Debug, PartialEq)]
struct Ratio {
    median: f64,
    min: f64,
    max: f64,
}

impl Ratio {
    fn of(one: &[f64], other: &[f64]) -> Option<Ratio> {
        let mut ratios: Vec<f64> = one.iter().zip(other).map(|(one, other)| one / other).collect();
        ratios.sort_by(f64::total_cmp);
        let (min, max) = (*ratios.first()?, *ratios.last()?);
        let (low, high) = (ratios[(ratios.len() - 1) / 2], ratios[ratios.len() / 2]);
        Some(Ratio { median: f64::midpoint(low, high), min, max })
    }

    fn of_sides(sides: &[Side]) -> Option<Ratio> {
        match sides {
            [one, other] => Ratio::of(&one.rates, &other.rates),
            _ => None,
        }
    }
}

/// For people.
pub(super) fn text(sides: &[Side]) -> String {
    let row = |side: &Side, name: &str, times: &Histogram<u64>| {
        let rate = times.len() as f64 / side.elapsed.as_secs_f64();
        let mut row = vec![side.name.clone(), name.to_owned(), format!("{rate:.0}")];
        row.extend(QUANTILES.map(|(_, quantile)| latency(times.value_at_quantile(quantile))));
        row
    };
    let rows: Vec<Vec<String>> = sides
        .iter()
        .flat_map(|side| {
            side.with_times(|times| {
                let present =
                    Request::ALL.into_iter().filter_map(|(name, kind)| Some((name, times.of(kind)?)));
                present.map(|(name, times)| row(side, name, times)).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut text = table(&HEADER, &rows, has_colours());
    if let Some(Ratio { median, min, max }) = Ratio::of_sides(sides) {
        text.push_str(&format!(
            "\nThe first is {median:.2} times as fast as the second (median of {} pairs of turns; {min:.2} to {max:.2}).\n",
            sides[0].rates.len()
        ));
    }
    text
}

/// For scripts.
pub(super) fn json(plan: &Plan, sides: &[Side]) -> Json {
    let of_side = |side: &Side| {
        let requests: Map<String, Json> = side.with_times(|times| {
            let present = Request::ALL.into_iter().filter_map(|(name, kind)| Some((name, times.of(kind)?)));
            present.map(|(name, times)| (name.to_owned(), of_times(side, times))).collect()
        });
        json!({"server": side.name, "rates": side.rates, "requests": requests})
    };
    let mut report = json!({
        "work": plan.work.name(),
        "clients": plan.clients,
        "sides": sides.iter().map(of_side).collect::<Vec<_>>(),
    });
    if let Some(Ratio { median, min, max }) = Ratio::of_sides(sides) {
        report["ratio"] = json!({"median": median, "min": min, "max": max});
    }
    report
}

fn of_times(side: &Side, times: &Histogram<u64>) -> Json {
    let mut object = Map::new();
    object.insert("count".to_owned(), times.len().into());
    object.insert("per_second".to_owned(), (times.len() as f64 / side.elapsed.as_secs_f64()).into());
    for (name, quantile) in QUANTILES {
        object.insert(format!("{name}_us"), (times.value_at_quantile(quantile) as f64 / 1000.0).into());
    }
    Json::Object(object)
}

/// Three digits and a unit.
fn latency(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000_000 => (nanos as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        for (nanos, text) in [
            (1, "0.00 µs"),
            (12_345, "12.3 µs"),
            (999_400, "999 µs"),
            (1_234_567, "1.23 ms"),
            (2_500_000_000, "2.50 s"),
        ] {
            assert_eq!(latency(nanos), text);
        }
    }

    #[test]
    fn a_ratio_is_the_median_of_neighbouring_turns() {
        let ratio = Ratio::of(&[10.0, 30.0, 20.0], &[10.0, 10.0, 10.0]);
        assert_eq!(ratio, Some(Ratio { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Ratio::of(&[1.0, 3.0], &[1.0, 1.0]).map(|ratio| ratio.median), Some(2.0));
        assert_eq!(Ratio::of(&[], &[]), None);
    }
}
