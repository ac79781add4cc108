//! Bills out of object storage, by the program's own commands; the store is a stand-in for S3.

use adapters_clouds::testing::Hand;

use super::{
    says,
    server::{Server, Store, aws},
};

const BILL: &str = "\
BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,BillingCurrency,BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,ServiceName
12.50,12.50,15,12.50,42,USD,2026-10-01T00:00:00Z,2026-11-01T00:00:00Z,Usage,2026-10-05T00:00:00Z,2026-10-06T00:00:00Z,EC2
";

#[test]
fn a_bucket_is_imported_once_or_pulled_as_a_source() {
    let (stand_in, _alone) = aws();
    let folder = tempfile::tempdir().unwrap();
    let bucket = format!("cli-{}", std::process::id());
    let put = |path: String, bytes: Vec<u8>| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let hand = Hand::new(&stand_in);
        assert_eq!(runtime.block_on(hand.object("PUT", &path, bytes)).unwrap().status, 200);
    };
    put(bucket.clone(), vec![]);
    put(format!("{bucket}/focus/october.csv"), BILL.into());
    let server = Server::start(folder.path(), &Store::Embedded);

    let url = format!("s3://{bucket}/focus/");
    let import = ["bill", "import", &url, "--endpoint", &stand_in];
    let without = server.run(&import);
    assert_eq!(without.code, 2, "{}", without.out);
    says(&without.err, &["--account", "AWS_ACCESS_KEY_ID"]);
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKIASKYLEDGERTEST00"),
        ("AWS_SECRET_ACCESS_KEY", "not/a/secret+of+anybody0123456789abcdefgh"),
    ];
    let imported = server.run_with(&import, &keys);
    assert_eq!(imported.code, 0, "{}", imported.err);
    says(&imported.out, &["1 files, taken in 1, unchanged 0, refused 0"]);
    says(&server.run_with(&import, &keys).out, &["taken in 0, unchanged 1"]);
    says(&server.run(&["costs"]).out, &["total 12.50 USD"]);

    let source = folder.path().join("aws.yaml");
    let text = format!(
        "name: aws\nplace: {{bucket: {bucket}, prefix: focus/, endpoint: \"{stand_in}\"}}\n\
         credential: {{access_key_id: {}, secret_access_key: {}}}\n",
        keys[0].1, keys[1].1
    );
    std::fs::write(&source, text).unwrap();
    let made = server.run(&["create", "bill-source", "-f", source.to_str().unwrap()]);
    assert_eq!(made.code, 0, "{}", made.err);
    put(format!("{bucket}/focus/november.csv"), BILL.replace("2026-1", "2027-1").into());
    put(format!("{bucket}/focus/odd.csv"), b"odd".to_vec());
    let pulled = server.run(&["bill-source", "pull", "aws"]);
    assert_eq!(pulled.code, 3, "something was refused: {}", pulled.err);
    says(&pulled.out, &["3 files, taken in 2", "refused 1", "focus/odd.csv  bill-unreadable"]);
    says(&server.run(&["costs"]).out, &["total 25.00 USD"]);
    let shown = server.run(&["describe", "bill-source", "aws"]);
    assert!(!shown.out.contains("not/a/secret"), "{}", shown.out);
}
