//! Samples in, days out.

use std::fmt::Write as _;

use super::*;
use crate::containers;

const MIDNIGHT: i64 = 1_767_225_600; // 2026-01-01

fn names(all: &[(&str, u128)]) -> Names {
    let mut names = Names::new();
    for (name, id) in all {
        names.entry((*name).to_owned()).or_default().insert(Uuid::from_u128(*id));
    }
    names
}

fn day(number: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 1, number).unwrap()
}

/// Two processors, a sample each 300 s from midnight to midnight of so many days: a tenth busy, and
/// in every twentieth time fully. At a time the counters begin anew, and some samples are missing.
fn node(host: &str, days: i64, reset: Option<i64>, missing: &[i64]) -> String {
    let (mut file, mut idle) = (String::new(), 0);
    for step in 0..=(288 * days) {
        let at = (MIDNIGHT + step * 300) * 1_000;
        if step > 0 {
            idle += if step % 20 == 0 { 0 } else { 270 };
        }
        if reset == Some(step) {
            idle = 5;
        }
        if missing.contains(&step) {
            continue;
        }
        for cpu in 0..2 {
            writeln!(file, "node_cpu_seconds_total{{cpu=\"{cpu}\",mode=\"idle\",instance=\"{host}\"}} {idle} {at}").unwrap();
            writeln!(
                file,
                "node_cpu_seconds_total{{cpu=\"{cpu}\",mode=\"user\",instance=\"{host}\"}} 1 {at}"
            )
            .unwrap();
        }
        let free = if step == 100 { "25e8" } else { "75e8" };
        writeln!(file, "node_memory_MemAvailable_bytes{{instance=\"{host}\"}} {free} {at}")
            .unwrap();
        writeln!(file, "node_memory_MemTotal_bytes{{instance=\"{host}\"}} 1e10 {at}").unwrap();
        for device in ["eth0", "lo", "veth12"] {
            let bytes = step * 1_000;
            writeln!(file, "node_network_receive_bytes_total{{device=\"{device}\",instance=\"{host}\"}} {bytes} {at}").unwrap();
        }
    }
    file
}

fn taken(file: &str, names: &Names, label: Option<&str>, today: NaiveDate) -> Read {
    read(&containers::read(file).unwrap(), names, label, None, today).unwrap()
}

fn shown(one: &Utilisation) -> String {
    let known = |one: Option<String>| one.unwrap_or_else(|| "?".to_owned());
    format!(
        "{} {} cpus: mean {} p95 {} peak {}, memory {}, in {} out {}, {} of {} s by {}",
        one.day,
        one.vcpus,
        one.cpu_mean_percent,
        one.cpu_p95_percent,
        one.cpu_peak_percent,
        known(one.memory_peak_percent.map(|one| one.to_string())),
        known(one.network_in_bytes.map(|one| one.to_string())),
        known(one.network_out_bytes.map(|one| one.to_string())),
        one.samples,
        one.step_s,
        one.source,
    )
}

#[test]
fn a_day_of_samples_is_one_summary() {
    let web = names(&[("10.0.0.4", 1)]);
    let read = taken(&node("10.0.0.4:9100", 2, None, &[]), &web, None, day(9));
    let days: Vec<String> = read.days[&Uuid::from_u128(1)].iter().map(shown).collect();
    // 14 of 288 times are full, less than one of twenty: (274 × 10 + 14 × 100) / 288 is the mean.
    assert_eq!(
        days,
        [
            "2026-01-01 2 cpus: mean 14.38 p95 10 peak 100, memory 75, in 288000 out ?, \
             288 of 300 s by node-exporter",
            "2026-01-02 2 cpus: mean 14.38 p95 10 peak 100, memory 25, in 288000 out ?, \
             288 of 300 s by node-exporter",
        ]
    );
    assert_eq!(read.left_out, LeftOut::default());
    // What is not over says nothing yet.
    let read = taken(&node("10.0.0.4:9100", 2, None, &[]), &web, None, day(2));
    assert_eq!((read.days[&Uuid::from_u128(1)].len(), read.left_out.running_days), (1, 1));
}

#[test]
fn where_a_counter_begins_anew_or_samples_are_missing_nothing_is_known() {
    let web = names(&[("web-1", 1)]);
    let read = taken(&node("web-1", 1, Some(50), &[]), &web, None, day(9));
    let one = &read.days[&Uuid::from_u128(1)][0];
    assert_eq!((one.samples, read.left_out.resets, read.left_out.gaps), (287, 1, 0));
    assert_eq!(one.cpu_p95_percent, "10".parse().unwrap(), "a restart is no load");
    // One that is missing is a sample of twice the time, more are a gap.
    let read = taken(&node("web-1", 1, None, &[30, 70, 71, 72]), &web, None, day(9));
    let one = &read.days[&Uuid::from_u128(1)][0];
    assert_eq!((one.samples, read.left_out.resets, read.left_out.gaps), (288 - 1 - 4, 0, 1));
    assert_eq!(one.network_in_bytes, Some(288_000), "what has passed is known all the same");
}

#[test]
fn names_that_no_server_or_several_have_are_counted_and_no_more() {
    let known = names(&[("web-1", 1), ("db", 2), ("db", 3)]);
    let file = [node("web-1", 1, None, &[]), node("db", 1, None, &[]), node("x", 1, None, &[])];
    let read = taken(&file.concat(), &known, None, day(9));
    assert_eq!(read.days.keys().collect::<Vec<_>>(), [&Uuid::from_u128(1)]);
    // Two processors, two of memory, one interface that counts.
    assert_eq!(read.left_out.unmatched, [("x".to_owned(), 5)].into());
    assert_eq!(read.left_out.ambiguous, [("db".to_owned(), 5)].into());
    assert_eq!((read.left_out.unmatched_series, read.left_out.ambiguous_series), (5, 5));
    // Another label is asked for alone.
    let read = taken(&file.concat(), &known, Some("hostname"), day(9));
    assert_eq!((read.days.len(), read.left_out.unmatched_series), (0, 15));
    assert_eq!(read.left_out.unmatched, [(String::new(), 15)].into());
}

#[test]
fn a_host_says_what_its_servers_use_of_the_processors_they_have() {
    let mut file = String::new();
    for step in 0..=288_i64 {
        let at = (MIDNIGHT + step * 300) * 1_000;
        for (domain, cpus) in [("vm-1", Some(4)), ("vm-2", None)] {
            let of = format!("domain=\"{domain}\",uuid=\"u-{domain}\"");
            let busy = step * 60;
            writeln!(file, "libvirt_domain_info_cpu_time_seconds_total{{{of}}} {busy} {at}")
                .unwrap();
            if let Some(cpus) = cpus {
                writeln!(file, "libvirt_domain_info_virtual_cpus{{{of}}} {cpus} {at}").unwrap();
            }
            let bytes = step * 10;
            let of = format!("{of},target_device=\"vnet0\"");
            let sent = "libvirt_domain_interface_stats_transmit_bytes_total";
            writeln!(file, "{sent}{{{of}}} {bytes} {at}").unwrap();
        }
    }
    let known = names(&[("vm-1", 1), ("u-vm-2", 2)]);
    let read = taken(&file, &known, None, day(9));
    let one = &read.days[&Uuid::from_u128(1)][0];
    assert_eq!(
        shown(one),
        "2026-01-01 4 cpus: mean 5 p95 5 peak 5, memory ?, in ? out 2880, 288 of 300 s by \
         libvirt-exporter"
    );
    assert_eq!((read.days.len(), read.left_out.without_vcpus), (1, 1));
}

#[test]
fn a_file_of_something_else_says_so() {
    let file = containers::read("up 1 1767225600000\n").unwrap();
    let why = read(&file, &Names::new(), None, None, day(9)).unwrap_err();
    assert!(why.contains("nothing in it measures a server"), "{why}");
}
