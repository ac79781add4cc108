//! What a machine needs before servers can run on it, looked at one by one, for whoever sets it up.

use std::{fmt, os::unix::fs::MetadataExt as _, path::Path};

use adapters_libvirt::{
    Connection,
    description::{Owner, Virtualisation},
};

use crate::{
    driver::{self, Options},
    network::{Place, firewall},
    storage::shared,
    tool::ToolFault,
};

/// How it is with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// As it should be.
    Good,
    /// Servers run, but not as well as they could.
    Poor,
    /// Servers do not run, or not all that the agent was told can be used.
    Missing,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Poor => "poor",
            Self::Missing => "missing",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: String,
    /// How it is with it.
    pub standing: Standing,
    /// What is there; or what is not, and what to do.
    pub detail: String,
}

impl Finding {
    fn new(what: impl Into<String>, standing: Standing, detail: impl Into<String>) -> Self {
        Self { what: what.into(), standing, detail: detail.into() }
    }

    fn of<T>(
        what: impl Into<String>,
        found: Result<T, impl fmt::Display>,
        say: impl Fn(T) -> String,
    ) -> Self {
        match found {
            Ok(found) => Self::new(what, Standing::Good, say(found)),
            Err(fault) => Self::new(what, Standing::Missing, fault.to_string()),
        }
    }
}

/// The tools that any server needs: how each says its version, and the package that has it on Debian.
const TOOLS: &[(&str, &str, &str)] = &[
    ("ip", "-V", "iproute2"),
    ("nft", "--version", "nftables"),
    ("qemu-img", "--version", "qemu-utils"),
    ("qemu-nbd", "--version", "qemu-utils"),
    ("sysctl", "--version", "procps"),
    ("unshare", "--version", "util-linux"),
    ("tc", "-V", "iproute2"),
];

/// Looks at everything that an agent with these options uses. Nothing is changed, but that a machine
/// without disks is started for a moment, where libvirt is there.
pub async fn check(options: &Options) -> Vec<Finding> {
    let mut found = vec![root()];
    for (tool, version, package) in TOOLS {
        found.push(look_for(&options.place, tool, version, package).await);
    }
    found.push(bridges(&options.place).await);
    match Connection::open(&options.libvirt).await {
        Ok(wire) => found.extend(hypervisor(&wire, &options.folder).await),
        Err(fault) => {
            let detail = format!("{fault}: install libvirt-daemon-system, and start libvirtd");
            found.push(Finding::new("libvirt", Standing::Missing, detail));
        }
    }
    for folder in &options.storages {
        let what = format!("storage {}", folder.display());
        found.push(Finding::of(what, shared::read(folder), |id| id.to_string()));
    }
    found.extend(volume_groups(options).await);
    found
}

fn root() -> Finding {
    match std::fs::metadata("/proc/self").map(|own| own.uid()) {
        Ok(0) => Finding::new("root", Standing::Good, "the agent is root"),
        _ => Finding::new("root", Standing::Missing, "the agent is not root: run it as root"),
    }
}

async fn look_for(place: &Place, tool: &str, version: &str, package: &str) -> Finding {
    match place.tool(tool, [version]).run().await {
        Ok(said) => {
            let said = String::from_utf8_lossy(&said);
            Finding::new(tool, Standing::Good, said.lines().next().unwrap_or_default().trim())
        }
        // In a namespace another program looks for it.
        Err(ToolFault::Start { .. } | ToolFault::Failed { .. }) => {
            let detail = format!("it is not here: apt-get install {package}");
            Finding::new(tool, Standing::Missing, detail)
        }
        Err(fault) => Finding::new(tool, Standing::Missing, fault.to_string()),
    }
}

/// How the host's bridges know connections.
async fn bridges(place: &Place) -> Finding {
    let found = firewall::conntrack(place).await;
    match found {
        Ok(firewall::Conntrack::Bridge) => {
            let detail = "the kernel's bridges track connections";
            Finding::new("firewall", Standing::Good, detail)
        }
        Ok(firewall::Conntrack::Marked) => {
            let detail = "the kernel's bridges do not track connections (NF_CONNTRACK_BRIDGE): br_netfilter \
                          does, and the host's own rules for forwarded packets see those of servers";
            let is_there = Path::new("/proc/sys/net/bridge").exists();
            let (standing, more) = if is_there {
                (Standing::Poor, "")
            } else {
                (Standing::Missing, "; it is not loaded: modprobe br_netfilter")
            };
            Finding::new("firewall", standing, format!("{detail}{more}"))
        }
        Err(fault) => Finding::new("firewall", Standing::Missing, fault.to_string()),
    }
}

async fn hypervisor(wire: &Connection, folder: &Path) -> Vec<Finding> {
    let mut found = vec![
        Finding::of("libvirt", wire.version().await, |version| version.to_string()),
        Finding::of("QEMU", wire.hypervisor_version().await, |version| version.to_string()),
    ];
    found.push(match driver::virtualisation(wire).await {
        Ok(Virtualisation::Kvm) => {
            Finding::new("virtualisation", Standing::Good, "the processor runs servers")
        }
        Ok(Virtualisation::Emulated | Virtualisation::Test) => {
            let why = if Path::new("/dev/kvm").exists() {
                "a start with /dev/kvm came to nothing"
            } else {
                "there is no /dev/kvm: switch virtualisation on in the firmware, and load kvm_intel or kvm_amd"
            };
            let detail = format!("servers are emulated, many times slower: {why}");
            Finding::new("virtualisation", Standing::Poor, detail)
        }
        Err(fault) => Finding::new("virtualisation", Standing::Missing, fault.to_string()),
    });
    let owner = wire.capabilities().await.map_err(|fault| fault.to_string());
    let owner = owner.and_then(|xml| Owner::of_guests(&xml).map_err(|fault| fault.to_string()));
    found.push(match owner {
        Ok(owner) => enters(owner.unwrap_or(Owner { user: 0, group: 0 }), folder),
        Err(fault) => Finding::new("data folder", Standing::Missing, fault),
    });
    found
}

/// Whether QEMU gets to the files of servers: libvirt gives it the files, and not the folders above.
fn enters(owner: Owner, folder: &Path) -> Finding {
    let shut = |folder: &&Path| {
        let Ok(facts) = std::fs::metadata(folder) else { return false };
        let may = if owner.user == 0 {
            0o111
        } else if facts.uid() == owner.user {
            0o100
        } else if facts.gid() == owner.group {
            0o010
        } else {
            0o001
        };
        facts.mode() & may == 0
    };
    let what = format!("data folder {}", folder.display());
    match folder.ancestors().find(shut) {
        None => {
            let detail = format!("QEMU, user {}, gets there", owner.user);
            Finding::new(what, Standing::Good, detail)
        }
        Some(shut) => {
            let detail = format!(
                "QEMU runs as user {}, who may not enter {shut}: choose another --data, or chmod o+x {shut}",
                owner.user,
                shut = shut.display(),
            );
            Finding::new(what, Standing::Missing, detail)
        }
    }
}

async fn volume_groups(options: &Options) -> Vec<Finding> {
    let (names, groups) = (options.volume_groups.names(), &options.volume_groups);
    if names.is_empty() {
        return vec![];
    }
    let lvm = look_for(&options.place, "lvm", "version", "lvm2").await;
    if lvm.standing == Standing::Missing {
        return vec![lvm];
    }
    let there = groups.there().await;
    let of = |name: &String| {
        let what = format!("volume group {name}");
        match &there {
            Ok(there) => match there.iter().find(|(_, group)| group.name() == name.as_str()) {
                Some((id, _)) => Finding::new(what, Standing::Good, id.to_string()),
                None => {
                    let detail = format!(
                        "it is not there, or has no id: vgchange --addtag skyledger-storage=$(uuidgen) {name}"
                    );
                    Finding::new(what, Standing::Missing, detail)
                }
            },
            Err(fault) => Finding::new(what, Standing::Missing, fault.to_string()),
        }
    };
    std::iter::once(lvm).chain(names.iter().map(of)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_qemu_may_not_enter_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (shut, within) = (folder.path().join("shut"), folder.path().join("shut/data"));
        std::fs::create_dir_all(&within).unwrap();
        let allow = |mode| {
            std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        // A temporary folder is its owner's alone.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let other = Owner { user: 64_055, group: 64_055 };
        allow(0o700);
        let found = enters(other, &within);
        assert_eq!(found.standing, Standing::Missing);
        assert!(found.detail.contains(&format!("chmod o+x {}", shut.display())), "{found:?}");
        assert_eq!(enters(Owner { user: 0, group: 0 }, &within).standing, Standing::Good);
        allow(0o711);
        assert_eq!(enters(other, &within).standing, Standing::Good);
        // What is not there yet is made by the agent.
        assert_eq!(enters(other, &within.join("later")).standing, Standing::Good);
    }

    #[tokio::test]
    async fn a_tool_that_is_not_here_is_named_with_its_package() {
        let found = look_for(&Place::default(), "no-such-tool", "-V", "some-package").await;
        assert_eq!(found.standing, Standing::Missing);
        assert!(found.detail.ends_with("apt-get install some-package"), "{found:?}");
        let there = look_for(&Place::default(), "sh", "--version", "dash").await;
        assert_eq!(there.what, "sh");
    }
}
