//! Moments as people write and read them.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

/// How long ago, in one unit: `8s`, `5m`, `3h`, `2d`, `4mo`, `2y`.
pub fn age(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - then).num_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        172_800..5_184_000 => format!("{}d", seconds / 86_400),
        5_184_000..63_072_000 => format!("{}mo", seconds / 2_592_000),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

/// RFC 3339 in UTC with seconds.
pub fn exact(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Microseconds since 1970, as views keep them.
pub fn from_micros(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
}

/// What `--at` takes, as the server takes it: a position, a time (RFC 3339), a day (midnight in
/// UTC), or how long ago (`90s`, `10m`, `2h`, `7d`).
///
/// # Errors
/// Says what it could have been.
pub fn moment(text: &str, now: DateTime<Utc>) -> Result<String, String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Ok(text.to_owned());
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.with_timezone(&Utc).to_rfc3339_opts(SecondsFormat::AutoSi, true));
    }
    if let Ok(day) = text.parse::<chrono::NaiveDate>() {
        return Ok(exact(day.and_time(chrono::NaiveTime::MIN).and_utc()));
    }
    span(text)
        .and_then(|span| now.checked_sub_signed(span))
        .map(|then| then.to_rfc3339_opts(SecondsFormat::Micros, true))
        .ok_or_else(|| {
            format!(
                "`{text}` is not a position (1234), a time (2026-01-31T12:00:00Z), a day \
                 (2026-01-31) or an age (90s, 10m, 2h, 7d)"
            )
        })
}

/// A length of time: `90s`, `10m`, `2h`, `7d`.
pub fn span(text: &str) -> Option<TimeDelta> {
    let unit = text.chars().last()?;
    let count: i64 = text.strip_suffix(unit)?.parse().ok()?;
    match unit {
        's' => TimeDelta::try_seconds(count),
        'm' => TimeDelta::try_minutes(count),
        'h' => TimeDelta::try_hours(count),
        'd' => TimeDelta::try_days(count),
        _ => None,
    }
    .filter(|span| *span >= TimeDelta::zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> DateTime<Utc> {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn an_age_has_one_unit() {
        let check = |seconds, text| {
            assert_eq!(age(noon() - TimeDelta::seconds(seconds), noon()), text);
        };
        check(0, "0s");
        check(119, "119s");
        check(120, "2m");
        check(7_200, "2h");
        check(172_800, "2d");
        check(5_184_000, "2mo");
        check(63_072_000, "2y");
        assert_eq!(age(noon() + TimeDelta::seconds(9), noon()), "0s", "clocks differ");
    }

    #[test]
    fn a_moment_is_a_position_a_time_a_day_or_an_age() {
        let check = |text: &str, sent: &str| assert_eq!(moment(text, noon()).unwrap(), sent);
        check("42", "42");
        check("2026-02-01T01:00:00+01:00", "2026-02-01T00:00:00Z");
        check("2026-02-01", "2026-02-01T00:00:00Z");
        check("90s", "2026-03-01T11:58:30.000000Z");
        check("1d", "2026-02-28T12:00:00.000000Z");
        for wrong in ["", "yesterday", "-5m", "5w", "99999999999999999999d"] {
            assert!(moment(wrong, noon()).is_err(), "{wrong}");
        }
    }
}
