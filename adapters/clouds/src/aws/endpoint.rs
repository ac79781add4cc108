//! Where a service of a region answers.

/// Services that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Ec2,
    S3,
    Sts,
}

impl Service {
    /// As in host names and in the scope of a signature.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::S3 => "s3",
            Self::Sts => "sts",
        }
    }

    /// Version of its API, where calls name it.
    pub(super) const fn version(self) -> &'static str {
        match self {
            Self::Ec2 => "2016-11-15",
            Self::S3 => "2006-03-01",
            Self::Sts => "2011-06-15",
        }
    }
}

/// Whether a text can be a region. It becomes part of a host name, so nothing else may pass.
pub(super) fn is_region(text: &str) -> bool {
    (6..=32).contains(&text.len())
        && text.contains('-')
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

/// The domain of the partition that a region belongs to.
fn domain(region: &str) -> &'static str {
    // The longer prefixes first: `us-isob-` is not in `us-iso-`.
    const PARTITIONS: &[(&str, &str)] = &[
        ("cn-", "amazonaws.com.cn"),
        ("eu-isoe-", "cloud.adc-e.uk"),
        ("eusc-", "amazonaws.eu"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
    ];
    PARTITIONS
        .iter()
        .find(|(prefix, _)| region.starts_with(prefix))
        .map_or("amazonaws.com", |(_, domain)| domain)
}

/// The URL of a service in a region. An override takes every service and region: the signature's
/// scope says which is meant.
pub(super) fn url(override_url: Option<&str>, service: Service, region: &str) -> String {
    match override_url {
        Some(base) => format!("{}/", base.trim_end_matches('/')),
        None => format!("https://{}.{region}.{}/", service.name(), domain(region)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_answers_in_its_own_partition() {
        let check = |region, expected: &str| assert_eq!(url(None, Service::Ec2, region), expected);
        check("eu-central-1", "https://ec2.eu-central-1.amazonaws.com/");
        check("cn-north-1", "https://ec2.cn-north-1.amazonaws.com.cn/");
        check("us-gov-west-1", "https://ec2.us-gov-west-1.amazonaws.com/");
        check("us-iso-east-1", "https://ec2.us-iso-east-1.c2s.ic.gov/");
        check("us-isob-east-1", "https://ec2.us-isob-east-1.sc2s.sgov.gov/");
        assert_eq!(url(Some("http://h:1/"), Service::Sts, "eu-west-1"), "http://h:1/");
    }

    #[test]
    fn what_could_change_the_host_is_no_region() {
        for text in ["eu-central-1.evil.example", "eu-central-1/", "", "-eu-west-1", "EU-WEST-1"] {
            assert!(!is_region(text), "{text}");
        }
        assert!(is_region("ap-southeast-7"));
    }
}
