//! Clients that know nothing of Farshore find their way: reflection lists what is served and describes it, the health
//! service answers, and so do the pages for whoever probes and scrapes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use farshore_tests::{Lab, control::Control, lab::LabOptions, namespace};
use prost::Message;
use tokio_stream::StreamExt;
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const PATIENCE: Duration = Duration::from_secs(10);
const OF_ORCHESTRATOR: [&str; 5] = [
    "farshore.v1.Declarations",
    "farshore.v1.Failovers",
    "farshore.v1.Fleet",
    "farshore.v1.Jobs",
    "farshore.v1.Protection",
];
const OF_TARGET: [&str; 1] = ["farshore.v1.Replication"];
const STANDARD: [&str; 2] = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

#[test]
fn standard_clients_find_what_is_served_and_whether_it_is_well() {
    let lab = Lab::start(LabOptions::default());
    let target = Control::new(lab.west_network(), "http://10.91.0.2:7201");
    for (server, ours) in [(lab.control(), &OF_ORCHESTRATOR[..]), (target, &OF_TARGET)] {
        let listed = server.talk(services).unwrap();
        let expected: BTreeSet<String> = ours.iter().chain(&STANDARD).map(ToString::to_string).collect();
        assert_eq!(listed, expected, "all that is served, and nothing else");
        for service in &listed {
            let described = server.talk(async |channel| describe(channel, service).await);
            assert!(described.unwrap().contains(service), "{service} is described");
        }
        for service in ours.iter().copied().chain([""]) {
            let health = server.talk(async |channel| health(channel, service).await);
            assert_eq!(health.unwrap(), ServingStatus::Serving, "{service}");
        }
        let unknown = server.talk(async |channel| health(channel, "farshore.v1.Nothing").await);
        assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    }
}

#[test]
fn probes_and_scrapers_get_their_pages() {
    let lab = Lab::start(LabOptions::default());
    for (network, address) in [
        (lab.west_network(), "10.91.0.2:7180"),
        (lab.west_network(), "10.91.0.2:7281"),
        (lab.east_network(), "10.91.0.1:7281"),
    ] {
        for page in ["/healthz", "/readyz"] {
            let answer = get(network, address, page);
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok\n"),
                "{answer}"
            );
        }
        let metrics = get(network, address, "/metrics");
        assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
        assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
        assert!(
            metrics.contains("\n# TYPE process_resident_memory_bytes gauge\n"),
            "{metrics}"
        );
        assert!(get(network, address, "/nothing").starts_with("HTTP/1.1 404"));
    }
}

async fn ask(channel: Channel, what: MessageRequest) -> Result<MessageResponse, Status> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(what),
    };
    let requests = tokio_stream::once(request);
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(requests)
        .await?
        .into_inner();
    let answer = answers.next().await.unwrap()?;
    Ok(answer.message_response.unwrap())
}

async fn services(channel: Channel) -> Result<BTreeSet<String>, Status> {
    let answer = ask(channel, MessageRequest::ListServices(String::new())).await?;
    let MessageResponse::ListServicesResponse(listed) = answer else {
        panic!("{answer:?}");
    };
    Ok(listed.service.into_iter().map(|service| service.name).collect())
}

/// The services of the file in which this one is described.
async fn describe(channel: Channel, service: &str) -> Result<BTreeSet<String>, Status> {
    let answer = ask(channel, MessageRequest::FileContainingSymbol(service.to_owned())).await?;
    let MessageResponse::FileDescriptorResponse(files) = answer else {
        panic!("{answer:?}");
    };
    let mut described = BTreeSet::new();
    for file in files.file_descriptor_proto {
        let file = prost_types::FileDescriptorProto::decode(file.as_slice()).unwrap();
        let package = file.package().to_owned();
        described.extend(
            file.service
                .iter()
                .map(|service| format!("{package}.{}", service.name())),
        );
    }
    Ok(described)
}

async fn health(channel: Channel, service: &str) -> Result<ServingStatus, Status> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel).check(request).await?;
    Ok(answer.into_inner().status())
}

/// The whole answer to an HTTP request from inside a namespace.
fn get(network: &str, address: &str, page: &str) -> String {
    namespace::inside(network, || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {page} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}
