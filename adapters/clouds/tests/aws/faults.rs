//! What breaks on the way, as the runner and the observer are told of it.

use std::{sync::Arc, time::Duration};

use adapters_clouds::{
    aws::Aws,
    http_client::HttpClient,
    testing::{Fate, Proxy},
};
use commands::{
    ports::{DriverFault, Provider},
    testing::CountingPace,
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::world::{World, access, new_id, stand_in, unique, word};

#[tokio::test]
async fn each_break_of_a_listing_is_a_fault_of_its_kind_and_never_a_shorter_listing() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let world = World::through("eu-north-1", proxy.url());
    let page = |status, body: &str| Fate::Answer { status, retry_after: None, body: body.into() };
    let cases = [
        (Fate::CutAnswer, "transient"),
        (Fate::DropAfter, "transient"),
        (Fate::DropBefore, "transient"),
        (Fate::refuse(403, "UnauthorizedOperation"), "denied"),
        (Fate::refuse(401, "AuthFailure"), "denied"),
        (Fate::refuse(400, "InvalidParameterValue"), "rejected"),
        (Fate::refuse(500, "InternalError"), "transient"),
        (Fate::throttle(9), "throttled"),
        (page(200, "<html><body>Sign in</body></html>"), "unexpected"),
        (page(200, "{}"), "unexpected"),
        (page(200, ""), "unexpected"),
        (page(502, "<html>Bad gateway</html>"), "transient"),
        (page(200, "<DescribeVpcsResponse><vpcSet><item>"), "unexpected"),
        (page(200, "<DescribeVpcsResponse></DescribeVpcsResponse>"), "unexpected"),
        (page(200, "<DescribeSubnetsResponse><vpcSet/></DescribeSubnetsResponse>"), "unexpected"),
    ];
    for (number, (fate, expected)) in cases.into_iter().enumerate() {
        proxy.script_nth(1, fate.clone());
        let fault = world.list("vpc").await.expect_err(expected);
        assert_eq!(word(&fault), expected, "{fate:?}: {fault}");
        assert_eq!(proxy.broken(), number + 1, "the break was hit once");
        if let DriverFault::Throttled { retry_after } = fault {
            assert_eq!(retry_after, Some(Duration::from_secs(9)));
        }
        assert!(!world.list("vpc").await.unwrap().is_empty(), "and the next try comes through");
    }
}

#[tokio::test]
async fn a_region_that_is_closed_to_us_is_denied_and_the_others_answer() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    proxy.script(|call| {
        if call.region == "eu-north-1" && call.action == "DescribeVolumes" {
            Fate::refuse(403, "UnauthorizedOperation")
        } else {
            Fate::Forward
        }
    });
    let closed = World::through("eu-north-1", proxy.url());
    let open = World::through("eu-west-2", proxy.url());
    assert_eq!(word(&closed.list("disk").await.unwrap_err()), "denied");
    open.list("disk").await.unwrap();
    assert_eq!(proxy.broken(), 1);
}

#[tokio::test]
async fn only_the_cloud_s_own_not_found_means_that_a_thing_is_gone() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let world = World::through("eu-north-1", proxy.url());
    let find = || world.find("server", "i-0123456789abcdef0");
    for (fate, expected) in [
        (Fate::refuse(403, "UnauthorizedOperation"), "denied"),
        (Fate::refuse(400, "InvalidInstanceID.Malformed"), "rejected"),
        (Fate::refuse(400, "InvalidGroup.NotFound"), "not found"),
        (Fate::Answer { status: 404, retry_after: None, body: "gone".into() }, "unexpected"),
        (
            Fate::Answer {
                status: 200,
                retry_after: None,
                body: "<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>"
                    .into(),
            },
            "unexpected",
        ),
    ] {
        proxy.script_nth(1, fate);
        assert_eq!(word(&find().await.unwrap_err()), expected);
    }
    proxy.heal();
    assert_eq!(find().await.unwrap(), None);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let aws = Aws::with(HttpClient::with_answer_timeout(Duration::from_millis(200)), 5);
    let fault = aws.identity(&access(&url)).await.unwrap_err();
    assert_eq!(fault.to_string(), "GetCallerIdentity: no answer in time");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_broken_connection() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    drop(taken);
    let fault = Aws::new().identity(&access(&url)).await.unwrap_err();
    assert_eq!(word(&fault), "transient", "{fault}");
}

#[tokio::test]
async fn a_region_that_would_change_the_host_is_never_called() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let (aws, access) = (Aws::new(), access(proxy.url()));
    let fault = aws.list(&access, Some("x.evil.example/"), "vpc", None).await.unwrap_err();
    assert_eq!(word(&fault), "rejected");
    assert!(proxy.calls().is_empty());
}

#[tokio::test]
async fn every_call_of_an_order_asks_the_pace_and_says_what_came_of_it() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let mut world = World::through("us-west-2", proxy.url());
    let pace = Arc::new(CountingPace::default());
    world.access.pace = pace.clone();
    let spec = json!({
        "name": format!("paced {}", unique()), "description": "made by a test",
        "vpc": world.vpc().await,
        "rules": [{"direction": "ingress", "protocol": "tcp", "ports": "443",
                   "peer": {"cidr": "10.0.0.0/8"}}],
    });
    let order = json!({"type": "create", "data": {"spec": spec}});
    let task = world.task("security-group", new_id(), "", order);
    proxy.script_nth(2, Fate::throttle(1));
    assert_eq!(word(&world.carry_out(&task).await.unwrap_err()), "throttled");
    world.carry_out(&task).await.unwrap();
    world.aws.identity(&world.access).await.unwrap();
    let calls = proxy.calls().len() as u64;
    assert!(calls > 5, "{calls}");
    assert_eq!((pace.tickets(), pace.learnt(), pace.throttled()), (calls, calls, 1));
}
