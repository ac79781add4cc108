//! Counters of requests, and the text that Prometheus reads.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::routes::ROUTES;

/// Upper bounds of the histogram's buckets, in microseconds.
const BUCKETS: [u64; 12] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    10_000_000,
];

/// Statuses that this interface answers with; the last place counts all others.
const STATUSES: [u16; 19] =
    [200, 201, 202, 304, 400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 422, 429, 500, 503, 0];

#[derive(Default)]
struct OfRoute {
    statuses: [AtomicU64; STATUSES.len()],
    /// Not cumulative; the last place counts what is slower than all bounds.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

/// Counters that requests touch without a lock.
pub(crate) struct Metrics {
    /// In the order of [`ROUTES`]; the last place is for paths that are no route.
    routes: Vec<OfRoute>,
    pub(crate) in_flight: AtomicU64,
    pub(crate) watchers: AtomicU64,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            routes: (0..=ROUTES.len()).map(|_| OfRoute::default()).collect(),
            in_flight: AtomicU64::default(),
            watchers: AtomicU64::default(),
        }
    }

    /// Counts one answer. `route` is a place in [`ROUTES`].
    pub(crate) fn observe(&self, route: Option<usize>, status: u16, took: Duration) {
        let Some(of) = self.routes.get(route.unwrap_or(ROUTES.len())) else { return };
        let place = STATUSES.iter().position(|one| *one == status).unwrap_or(STATUSES.len() - 1);
        of.statuses[place].fetch_add(1, Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        of.buckets[BUCKETS.partition_point(|bound| *bound < micros)].fetch_add(1, Relaxed);
        of.micros.fetch_add(micros, Relaxed);
    }

    pub(crate) fn write(&self, out: &mut String) {
        head(out, "skyledger_http_requests_total", "counter", "Requests answered.");
        for (labels, of) in self.labelled() {
            for (status, count) in STATUSES.iter().zip(&of.statuses) {
                let count = count.load(Relaxed);
                if count > 0 {
                    let _ = writeln!(
                        out,
                        "skyledger_http_requests_total{{{labels},status=\"{status}\"}} {count}"
                    );
                }
            }
        }
        let name = "skyledger_http_request_duration_seconds";
        head(out, name, "histogram", "From the request's head to the answer's head.");
        for (labels, of) in self.labelled() {
            let mut sum = 0;
            let counts: Vec<u64> = of.buckets.iter().map(|count| count.load(Relaxed)).collect();
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            for (bound, count) in BUCKETS.iter().zip(&counts) {
                sum += count;
                let le = seconds(*bound);
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{le}\"}} {sum}");
            }
            sum += counts.last().copied().unwrap_or_default();
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {sum}");
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", seconds(of.micros.load(Relaxed)));
            let _ = writeln!(out, "{name}_count{{{labels}}} {sum}");
        }
        gauge(
            out,
            "skyledger_http_requests_in_flight",
            "Requests being worked on.",
            self.in_flight.load(Relaxed),
        );
        gauge(out, "skyledger_http_watchers", "Open event feeds.", self.watchers.load(Relaxed));
    }

    fn labelled(&self) -> impl Iterator<Item = (String, &OfRoute)> {
        let known = ROUTES.iter().map(|route| (route.method.name(), route.path));
        known
            .chain([("-", "-")])
            .map(|(method, path)| format!("method=\"{method}\",route=\"{path}\""))
            .zip(&self.routes)
    }
}

/// Microseconds as seconds, without a float.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(crate) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

pub(crate) fn gauge(out: &mut String, name: &str, help: &str, value: u64) {
    head(out, name, "gauge", help);
    let _ = writeln!(out, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_times_are_seconds() {
        let metrics = Metrics::new();
        metrics.observe(Some(0), 200, Duration::from_micros(500));
        metrics.observe(Some(0), 418, Duration::from_secs(20));
        let mut text = String::new();
        metrics.write(&mut text);
        assert!(text.contains("le=\"0.0005\"} 1\n"), "{text}");
        assert!(text.contains("le=\"10\"} 1\n"), "{text}");
        assert!(text.contains("le=\"+Inf\"} 2\n"), "{text}");
        assert!(text.contains("_sum{method=\"GET\",route=\"/\"} 20.0005\n"), "{text}");
        assert!(text.contains("status=\"0\"} 1\n"), "{text}");
    }
}
