//! A user who speaks gRPC.

use std::net::SocketAddr;

use farshore_proto::v1::{
    self, declarations_client::DeclarationsClient, failovers_client::FailoversClient,
    jobs_client::JobsClient, protection_client::ProtectionClient,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::{Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::LONG;

const VM: &str = "shop-db";

pub(super) struct User {
    channel: Channel,
}

impl User {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        Self {
            channel: endpoint.connect().await.unwrap(),
        }
    }

    fn declarations(&self) -> DeclarationsClient<Channel> {
        DeclarationsClient::new(self.channel.clone())
    }

    pub(super) fn protection(&self) -> ProtectionClient<Channel> {
        ProtectionClient::new(self.channel.clone())
    }

    fn failovers(&self) -> FailoversClient<Channel> {
        FailoversClient::new(self.channel.clone())
    }

    fn jobs_client(&self) -> JobsClient<Channel> {
        JobsClient::new(self.channel.clone())
    }

    pub(super) async fn apply(&self, key: &str, manifest: &str) -> Result<Vec<v1::Applied>, Status> {
        let request = v1::ApplyRequest {
            idempotency_key: key.to_owned(),
            manifest: manifest.to_owned(),
            dry_run: false,
        };
        Ok(self.declarations().apply(request).await?.into_inner().applied)
    }

    pub(super) async fn dry_run(&self, manifest: &str) -> Result<Vec<v1::Applied>, Status> {
        let request = v1::ApplyRequest {
            idempotency_key: String::new(),
            manifest: manifest.to_owned(),
            dry_run: true,
        };
        Ok(self.declarations().apply(request).await?.into_inner().applied)
    }

    pub(super) async fn delete(&self, kind: &str, name: &str) -> Result<String, Status> {
        let request = v1::DeleteRequest {
            idempotency_key: String::new(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        Ok(self.declarations().delete(request).await?.into_inner().job)
    }

    pub(super) async fn groups(&self) -> Vec<v1::Group> {
        let request = v1::ListRequest::default();
        let listed = self.protection().list_groups(request).await.unwrap();
        listed.into_inner().groups
    }

    pub(super) async fn policies(&self) -> Vec<v1::Policy> {
        let request = v1::ListRequest::default();
        self.declarations()
            .list_policies(request)
            .await
            .unwrap()
            .into_inner()
            .policies
    }

    pub(super) async fn vm(&self) -> Result<v1::Vm, Status> {
        let request = v1::GetVmRequest { name: VM.to_owned() };
        Ok(self.protection().get_vm(request).await?.into_inner())
    }

    /// Watches the VM until it is in this state.
    pub(super) async fn vm_in(&self, state: v1::ProtectionState) -> v1::Vm {
        self.vm_until(|vm| vm.state() == state).await
    }

    pub(super) async fn vm_until(&self, is_right: impl Fn(&v1::Vm) -> bool) -> v1::Vm {
        let request = v1::GetVmRequest { name: VM.to_owned() };
        let mut stream = self.protection().watch_vm(request).await.unwrap().into_inner();
        let mut last = None;
        let found = timeout(LONG, async {
            loop {
                let vm = stream.message().await.unwrap().expect("the stream goes on");
                if is_right(&vm) {
                    return vm;
                }
                last = Some(vm);
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("last: {last:?}"))
    }

    pub(super) async fn points(&self) -> Vec<v1::RecoveryPoint> {
        let request = v1::ListVmPointsRequest {
            vm: VM.to_owned(),
            page_size: 0,
            page_token: String::new(),
        };
        self.protection()
            .list_points(request)
            .await
            .unwrap()
            .into_inner()
            .points
    }

    pub(super) async fn events(&self, subject: &str) -> Vec<v1::Event> {
        let request = v1::ListEventsRequest {
            subject: subject.to_owned(),
            page_size: 0,
            page_token: String::new(),
        };
        self.protection()
            .list_events(request)
            .await
            .unwrap()
            .into_inner()
            .events
    }

    /// Waits until the log has such an event of the VM.
    pub(super) async fn event(&self, code: &str) -> v1::Event {
        let subject = format!("vm/{VM}");
        timeout(LONG, async {
            let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
            loop {
                ticks.tick().await;
                let events = self.events(&subject).await;
                if let Some(event) = events.into_iter().find(|event| event.code == code) {
                    return event;
                }
            }
        })
        .await
        .unwrap()
    }

    pub(super) async fn jobs(&self) -> Vec<v1::Job> {
        let answer = self.jobs_client().list_jobs(v1::ListRequest::default()).await;
        answer.unwrap().into_inner().jobs
    }

    /// Watches the job until its stream ends, which is when the job has.
    pub(super) async fn watch_job(&self, id: &str) -> v1::Job {
        let request = v1::GetJobRequest { id: id.to_owned() };
        let mut stream = self.jobs_client().watch_job(request).await.unwrap().into_inner();
        let mut last = None;
        timeout(LONG, async {
            while let Some(job) = stream.message().await.unwrap() {
                last = Some(job);
            }
        })
        .await
        .unwrap_or_else(|_| panic!("the job does not end: {last:?}"));
        last.unwrap()
    }

    pub(super) async fn retry(&self, id: &str) -> Result<v1::Job, Status> {
        Ok(self.jobs_client().retry_job(change(id)).await?.into_inner())
    }

    pub(super) async fn cancel(&self, id: &str) -> Result<v1::Job, Status> {
        Ok(self.jobs_client().cancel_job(change(id)).await?.into_inner())
    }

    pub(super) async fn start_test(&self, point: &str) -> Result<v1::TestFailover, Status> {
        let request = v1::StartTestRequest {
            idempotency_key: String::new(),
            vm: VM.to_owned(),
            point: point.to_owned(),
        };
        Ok(self.failovers().start_test(request).await?.into_inner())
    }

    pub(super) async fn test(&self, name: &str) -> v1::TestFailover {
        let request = v1::GetTestRequest {
            name: name.to_owned(),
        };
        self.failovers().get_test(request).await.unwrap().into_inner()
    }

    pub(super) async fn clean_up(&self, name: &str, notes: &str) -> Result<v1::TestFailover, Status> {
        let request = v1::CleanupTestRequest {
            idempotency_key: String::new(),
            name: name.to_owned(),
            notes: notes.to_owned(),
            force: false,
        };
        Ok(self.failovers().cleanup_test(request).await?.into_inner())
    }

    pub(super) async fn start_unplanned(&self, point: &str) -> Result<v1::Job, Status> {
        let request = v1::StartUnplannedRequest {
            idempotency_key: String::new(),
            vm: VM.to_owned(),
            point: point.to_owned(),
        };
        Ok(self.failovers().start_unplanned(request).await?.into_inner())
    }

    pub(super) async fn is_serving(&self, service: &str) -> bool {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = HealthClient::new(self.channel.clone())
            .check(request)
            .await
            .unwrap();
        answer.into_inner().status() == ServingStatus::Serving
    }

    pub(super) async fn reflected_services(&self) -> Vec<String> {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut stream = ServerReflectionClient::new(self.channel.clone())
            .server_reflection_info(tokio_stream::once(request))
            .await
            .unwrap()
            .into_inner();
        let answer = stream.message().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
            panic!("{answer:?}")
        };
        listed.service.into_iter().map(|service| service.name).collect()
    }
}

fn change(id: &str) -> v1::ChangeJobRequest {
    v1::ChangeJobRequest {
        idempotency_key: String::new(),
        id: id.to_owned(),
    }
}

/// The metrics page.
pub(super) async fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}
