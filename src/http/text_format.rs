//! The text format 0.0.4 of Prometheus, from OpenMetrics text.
//!
//! Not here: what is measured.

/// Converts metrics from OpenMetrics. OpenMetrics names a counter without the suffix `_total` of its
/// samples; here, a metric has one name.
pub(super) fn plain(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + 1024);
    let mut push = |parts: &[&str]| {
        parts.iter().for_each(|part| out.push_str(part));
        out.push('\n');
    };
    // The help of a metric precedes its type, which decides the name in both lines.
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|typed| typed.rsplit_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take() {
                push(&["# HELP ", name, suffix, " ", text]);
            }
            push(&["# TYPE ", name, suffix, " ", kind]);
        } else if !line.starts_with('#') {
            push(&[line]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn counters_have_one_name_and_what_only_openmetrics_has_is_left_out() {
        let open_metrics = "# HELP a_seconds Time\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
                            a_seconds_count 1\n# HELP b Two words\n# TYPE b counter\nb_total{c=\"# d\"} 2\n\
                            # TYPE e gauge\ne 3\n# EOF\n";
        let expected = "# HELP a_seconds Time\n# TYPE a_seconds histogram\na_seconds_count 1\n\
                        # HELP b_total Two words\n# TYPE b_total counter\nb_total{c=\"# d\"} 2\n\
                        # TYPE e gauge\ne 3\n";
        assert_eq!(plain(open_metrics), expected);
    }
}
