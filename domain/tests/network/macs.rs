//! Hardware addresses.

use domain::network::mac::{Mac, Macs};
use uuid::Uuid;

#[test]
fn they_read_and_write_in_one_spelling() {
    let mac: Mac = "52-54-00-AB-cd-0F".parse().unwrap();
    assert_eq!(mac.to_string(), "52:54:00:ab:cd:0f");
    assert_eq!(mac, Mac::ours(0xAB_CD0F));
    assert_eq!(serde_json::to_string(&mac).unwrap(), r#""52:54:00:ab:cd:0f""#);
    assert_eq!(serde_json::from_str::<Mac>(r#""52:54:00:AB:CD:0F""#).unwrap(), mac);
    for text in [
        "",
        "52:54:00:ab:cd",
        "52:54:00:ab:cd:0f:00",
        "52:54:00:ab:cd:+f",
        "5254:00:ab:cd:0f",
        "52:54-00:ab:cd:0f",
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "52:54:00:ab:cd:0g",
    ] {
        let refusal = text.parse::<Mac>().unwrap_err();
        assert_eq!(refusal.code.code, "invalid-field", "{text}");
    }
}

#[test]
fn ours_are_local_and_of_one_interface() {
    for number in [0, 1, 0x00FF_FFFF, 0xFFFF_FFFF] {
        let first = Mac::ours(number).bytes()[0];
        assert_eq!(first & 0b11, 0b10);
        assert_eq!(Mac::ours(number).to_string().parse::<Mac>().unwrap(), Mac::ours(number));
    }
}

#[test]
fn none_is_given_twice_and_after_the_last_comes_the_first() {
    let (mut macs, all) = (Macs::default(), 1_u32 << 24);
    for number in (0..500).chain(all - 500..all) {
        macs.take(Mac::ours(number), Uuid::from_u128(7)).unwrap();
    }
    for (chance, next) in [(0, 500), (499, 500), (777, 777), (all - 500, 500), (u32::MAX, 500)] {
        assert_eq!(macs.choose(chance).unwrap(), Mac::ours(next));
    }
    assert_eq!(macs.take(Mac::ours(5), Uuid::nil()).unwrap_err().code.code, "address-taken");
    assert_eq!(macs.holder(Mac::ours(5)), Some(Uuid::from_u128(7)));
    assert_eq!(macs.release(Mac::ours(5)).unwrap(), Uuid::from_u128(7));
    assert_eq!(macs.release(Mac::ours(5)).unwrap_err().code.code, "address-not-given");
    assert_eq!(macs.choose(u32::MAX).unwrap(), Mac::ours(5));
    let other: Mac = "aa:bb:cc:dd:ee:fe".parse().unwrap();
    macs.take(other, Uuid::nil()).unwrap();
    assert_eq!(macs.holder(other), Some(Uuid::nil()), "those that come with a server count too");
    let text = serde_json::to_string(&macs).unwrap();
    assert_eq!(serde_json::from_str::<Macs>(&text).unwrap(), macs);
}
