//! What is true of all userdata and of every seed's documents.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use domain::{
    compute::userdata::{
        ENCODED_MAX, System, Userdata,
        nocloud::{FirstBoot, Interface, documents},
    },
    network::mac::Mac,
};
use proptest::prelude::*;

/// Text that comes near to one of the forms.
fn content() -> impl Strategy<Value = String> {
    let begin = prop::sample::select(vec![
        "",
        "#cloud-config\n",
        "#!/bin/sh\n",
        "#!",
        "[bat]\n",
        "[powershell]\n",
        "<powershell>",
        "Content-Type: multipart/mixed; boundary=b\nMIME-Version: 1.0\n\n--b\n",
        "MIME-Version: 1.0\nContent-Type: text/plain\n\n",
    ]);
    let rest = prop::collection::vec(
        prop_oneof![
            "\\PC{0,20}",
            Just("\n".to_owned()),
            Just("\r\n".to_owned()),
            Just("--b\n".to_owned()),
            Just("--b--\n".to_owned()),
            Just("Content-Type: text/cloud-config\n\n#cloud-config\n".to_owned()),
            Just("</powershell>".to_owned()),
            Just("a: {b: [1, 2]}\n".to_owned()),
        ],
        0..8,
    );
    (begin, rest).prop_map(|(begin, rest)| format!("{begin}{}", rest.concat()))
}

fn interface() -> impl Strategy<Value = Interface> {
    let four = (any::<u32>(), 0..=32_u8)
        .prop_map(|(ip, length)| (std::net::Ipv4Addr::from(ip), length))
        .prop_map(|(ip, length)| ipnet::IpNet::new(ip.into(), length).unwrap());
    let six = (any::<u128>(), 48..=126_u8)
        .prop_map(|(ip, length)| (std::net::Ipv6Addr::from(ip), length))
        .prop_map(|(ip, length)| ipnet::IpNet::new(ip.into(), length).unwrap());
    let addresses = prop::collection::vec(prop_oneof![four, six], 0..4);
    let gateways = prop::collection::vec(any::<std::net::IpAddr>(), 0..2);
    (0..4_u32, addresses, gateways, any::<bool>(), prop::option::of(0..70_000_u32)).prop_map(
        |(mac, addresses, gateways, dhcp, mtu)| Interface {
            mac: Mac::ours(mac),
            addresses,
            nameservers: gateways.clone(),
            gateways,
            dhcp4: dhcp,
            dhcp6: dhcp,
            search: vec![],
            mtu,
        },
    )
}

proptest! {
    #[test]
    fn what_is_read_once_is_read_again_and_never_longer_than_the_limit(content in content()) {
        for system in [System::Linux, System::Windows] {
            let Ok(userdata) = Userdata::read(content.clone(), system) else { continue };
            prop_assert!(userdata.encoded().len() <= ENCODED_MAX);
            prop_assert_eq!(userdata.content(), &content);
            prop_assert!(!userdata.delivered().is_empty());
            let again = Userdata::read(userdata.content().to_owned(), system).unwrap();
            prop_assert_eq!(again, userdata);
        }
    }

    #[test]
    fn documents_read_the_same_as_json_and_as_yaml(
        interfaces in prop::collection::vec(interface(), 0..3),
        comment in "\\PC{0,20}",
    ) {
        let keys = [format!("ssh-rsa AAAAB3 {comment}")];
        let server = FirstBoot {
            instance: "i-1",
            hostname: "web",
            keys: &keys,
            interfaces: &interfaces,
            userdata: None,
        };
        let Ok(documents) = documents(&server) else { return Ok(()) };
        for text in [&documents.meta_data, &documents.network_config] {
            let json: serde_json::Value = serde_json::from_str(text).unwrap();
            let yaml: serde_json::Value = serde_norway::from_str(text).unwrap();
            prop_assert_eq!(&json, &yaml);
        }
        let config: serde_json::Value = serde_json::from_str(&documents.network_config).unwrap();
        let written = config["ethernets"].as_object().unwrap();
        prop_assert_eq!(written.len(), interfaces.len());
        for (at, interface) in interfaces.iter().enumerate() {
            let nic = &written[&format!("nic{at}")];
            let read: Vec<ipnet::IpNet> = nic["addresses"].as_array().into_iter().flatten()
                .map(|address| address.as_str().unwrap().parse().unwrap()).collect();
            prop_assert_eq!(&read, &interface.addresses);
            prop_assert_eq!(nic["match"]["macaddress"].as_str().unwrap(), interface.mac.to_string());
        }
    }
}
