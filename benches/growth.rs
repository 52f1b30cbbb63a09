//! How cost grows: throughput with connections and with locks held, memory and recovery time with locks held.
//!
//! `cargo bench --bench growth` writes `benches/growth/*.csv` and a plot of each as SVG; `-- connections` or `-- held` only
//! these. `BENCH_SECONDS` (2) is the length of one measurement, `BENCH_ROUNDS` (3) how many the median is of, `BENCH_HELD`
//! (10000000) the most locks that are held.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use plotters::prelude::*;
use support::{Idiom, Load, Peer, bytes_in, cycles, median, number, seconds};

fn main() {
    support::serve_ones_if_asked();
    support::raise_file_limit();
    let filter: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_wanted = |name: &str| filter.is_empty() || filter.iter().any(|word| name.contains(word.as_str()));
    if is_wanted("connections") {
        connections();
    }
    if is_wanted("held") {
        held();
    }
}

fn rounds() -> u64 {
    number("BENCH_ROUNDS").unwrap_or(3)
}

/// Cycles per second, one request at a time on each of so many connections, in rounds through all numbers of connections; of
/// Redis, too, if it is installed.
fn connections() {
    let counts = [10, 30, 100, 300, 1_000, 3_000, 10_000];
    let mut servers = vec![(Peer::octostore(&[]), Idiom::Native)];
    servers.extend(Peer::redis(true).map(|redis| {
        let idiom = Idiom::of_redis(&redis);
        (redis, idiom)
    }));
    let mut measured = vec![vec![Vec::new(); counts.len()]; servers.len()];
    for _ in 0..rounds() {
        for (index, connections) in counts.into_iter().enumerate() {
            for ((server, idiom), measured) in servers.iter().zip(&mut measured) {
                let load = Load { connections, pipeline: 1, time: seconds(2.0) };
                measured[index].push(cycles(server.addr, idiom, load).cycles_per_s);
            }
        }
    }
    let points = |measured: Vec<Vec<f64>>| -> Vec<(f64, f64)> {
        counts.iter().zip(measured).map(|(count, rates)| (*count as f64, median(rates))).collect()
    };
    let points: Vec<_> = measured.into_iter().map(points).collect();
    let names = servers.iter().map(|(server, _)| format!("cycles per s, {}", server.name));
    let names: Vec<String> = names.collect();
    let series: Vec<Series<'_>> =
        names.iter().zip(&points).map(|(name, points)| (&**name, &**points)).collect();
    report("connections", "connections", &series);
}

/// With so many other locks held: the cycle load of 50 connections, in rounds through servers that hold so many; memory; the time
/// to recover after `kill -9`.
fn held() {
    let most = number("BENCH_HELD").unwrap_or(10_000_000);
    let counts = [0, 10_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000];
    let counts: Vec<u64> = counts.into_iter().filter(|count| *count <= most).collect();
    let fill = |count: &u64| {
        let server = Peer::octostore(&["--locks-max", "20000000"]);
        let before = server.resident();
        server.connect().take_locks(0, *count, |_| 24 * 3_600_000);
        (server, before)
    };
    let servers: Vec<(Peer, u64)> = counts.iter().map(fill).collect();
    let mut measured = vec![Vec::new(); counts.len()];
    for _ in 0..rounds() {
        for ((server, _), measured) in servers.iter().zip(&mut measured) {
            let load = Load { connections: 50, pipeline: 16, time: seconds(2.0) };
            measured.push(cycles(server.addr, &Idiom::Native, load).cycles_per_s);
        }
    }
    let (mut rates, mut bytes, mut on_disk, mut recoveries) = (vec![], vec![], vec![], vec![]);
    for ((count, (server, before)), measured) in counts.into_iter().zip(servers).zip(measured) {
        let resident = server.settled_resident();
        // Nothing held is shown as one, which a logarithmic axis can.
        let x = count.max(1) as f64;
        rates.push((x, median(measured)));
        let disk = bytes_in(server.dir.path());
        let dir = server.kill();
        let started = Instant::now();
        let server = Peer::octostore_in(dir, &["--locks-max", "20000000"]);
        recoveries.push((x, started.elapsed().as_secs_f64()));
        assert_eq!(server.connect().ask(&["DBSIZE"]), format!(":{count}"));
        // Of fewer, the server itself would be most of it.
        if count >= 100_000 {
            bytes.push((x, resident.saturating_sub(before) as f64 / count as f64));
            on_disk.push((x, disk as f64 / count as f64));
        }
    }
    report("held", "locks held", &[("cycles per s, 50 connections, pipelines of 16", &rates)]);
    report(
        "memory",
        "locks held",
        &[("resident bytes per lock", &bytes), ("bytes per lock on disk", &on_disk)],
    );
    report("recovery", "locks held", &[("seconds to recover after kill -9", &recoveries)]);
}

type Series<'a> = (&'a str, &'a [(f64, f64)]);

/// Prints a table, and writes it and its plot.
fn report(name: &str, x: &str, series: &[Series<'_>]) {
    if series[0].1.is_empty() {
        return println!("{name}: nothing was measured");
    }
    let mut table = format!(
        "{x},{}\n",
        series.iter().map(|(label, _)| label.replace(',', ";")).collect::<Vec<_>>().join(",")
    );
    for (index, (x, _)) in series[0].1.iter().enumerate() {
        let values: Vec<String> =
            series.iter().map(|(_, points)| format!("{:.3}", points[index].1)).collect();
        writeln!(table, "{x},{}", values.join(",")).unwrap();
    }
    println!("{table}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/growth");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name).with_extension("csv"), table).unwrap();
    plot(folder.join(name).with_extension("svg"), x, series).unwrap();
}

fn plot(path: PathBuf, x: &str, series: &[Series<'_>]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(&path, (720, 400)).into_drawing_area();
    area.fill(&WHITE)?;
    let all = || series.iter().flat_map(|(_, points)| points.iter().copied());
    let (least, most) = all().fold((f64::MAX, 0.0_f64), |(least, most), (x, _)| (least.min(x), most.max(x)));
    let top = all().map(|(_, y)| y).fold(0.0, f64::max) * 1.15;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d((least..most).log_scale(), 0.0..top)?;
    let shown = |n: &f64| match *n {
        n if n >= 1e6 => format!("{} M", n / 1e6),
        n if n >= 1e4 => format!("{} k", n / 1e3),
        n => format!("{n}"),
    };
    chart
        .configure_mesh()
        .x_desc(x)
        .x_label_formatter(&shown)
        .y_label_formatter(&shown)
        .light_line_style(WHITE)
        .draw()?;
    for (index, (label, points)) in series.iter().enumerate() {
        let color = if index == 0 { BLUE } else { RED };
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))?
            .label(*label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}
