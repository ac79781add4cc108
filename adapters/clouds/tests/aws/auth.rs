//! Signatures and permissions, where the stand-in checks them.

use adapters_clouds::{aws::Aws, testing::Hand};
use commands::ports::Provider;
use serde_json::json;

use crate::world::{SECRET, access_as, first, unique, word};

#[tokio::test]
async fn a_right_signature_passes_and_a_wrong_key_or_a_missing_permission_is_denied() {
    let url = std::env::var("SKYLEDGER_TEST_AWS_AUTH").expect(
        "SKYLEDGER_TEST_AWS_AUTH is the URL of a moto server in auth mode; run ./test, which \
         starts one, or tests/servers/moto.sh start CACHE_DIR auth",
    );
    let hand = Hand::new(&url);
    hand.unchecked_calls(1_000_000_000).await.unwrap();
    let user = format!("reader-{}", unique());
    let iam = async |action: &str, fields: &[(&str, &str)]| {
        let answered = hand.call(("iam", "us-east-1"), action, fields).await.unwrap();
        assert_eq!(answered.status, 200, "{action}: {answered:?}");
        answered.xml
    };
    iam("CreateUser", &[("UserName", &user)]).await;
    let key = iam("CreateAccessKey", &[("UserName", &user)]).await;
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Resource": "*",
        "Action": ["ec2:DescribeVpcs", "ec2:DescribeSecurityGroups", "ec2:CreateTags"],
    }]});
    iam(
        "PutUserPolicy",
        &[("UserName", &user), ("PolicyName", "p"), ("PolicyDocument", &policy.to_string())],
    )
    .await;
    hand.unchecked_calls(0).await.unwrap();

    let aws = Aws::new();
    let (id, secret) = (first(&key, "AccessKeyId"), first(&key, "SecretAccessKey"));
    let access = |id: &str, secret: &str| {
        access_as(&url, json!({"access_key_id": id, "secret_access_key": secret}))
    };
    let good = access(&id, &secret);
    let vpcs = aws.list(&good, Some("eu-central-1"), "vpc", None).await.unwrap();
    assert!(!vpcs.sightings.is_empty());
    let identity = aws.identity(&good).await.unwrap();
    assert!(identity.principal.ends_with(&format!("user/{user}")), "{}", identity.principal);

    let fault = aws.list(&good, Some("eu-central-1"), "server", None).await.unwrap_err();
    assert_eq!(word(&fault), "denied", "{fault}");
    for wrong in [access(&id, SECRET), access("AKIANOBODYKNOWSTHIS0", &secret)] {
        let fault = aws.list(&wrong, Some("eu-central-1"), "vpc", None).await.unwrap_err();
        assert_eq!(word(&fault), "denied", "{fault}");
        let (text, debug) = (fault.to_string(), format!("{fault:?} {wrong:?}"));
        assert!(!text.contains(&secret) && !debug.contains(&secret) && !debug.contains(SECRET));
    }
    // A form with every kind of character is signed as it goes over the wire.
    let group = aws.list(&good, Some("eu-central-1"), "security-group", None).await.unwrap();
    let odd = "a b+c/é~*'()%20";
    let find = aws.find(&good, Some("eu-central-1"), "security-group", odd).await;
    assert!(!group.sightings.is_empty());
    match find {
        Ok(found) => assert_eq!(found, None),
        Err(fault) => assert_ne!(word(&fault), "denied", "{fault}"),
    }
}
