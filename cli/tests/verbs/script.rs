//! An orchestrator that answers by a script: each call must be the next one, and at the end none may be left.

use std::{
    any::Any,
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use farshore_proto::v1::{
    ApplyRequest, ApplyResponse, ChangeJobRequest, CleanupTestRequest, DeleteRequest, DeleteResponse,
    GetJobRequest, GetTestRequest, GetVmRequest, Job, ListEventsRequest, ListEventsResponse,
    ListGroupsResponse, ListJobsResponse, ListPoliciesResponse, ListReplicatorsResponse, ListRequest,
    ListSitesResponse, ListTestsResponse, ListVmPointsRequest, ListVmPointsResponse, ListVmsResponse,
    PinPointRequest, RecoveryPoint, StartTestRequest, StartUnplannedRequest, TestFailover, UnpinPointRequest,
    Vm,
    declarations_server::{Declarations, DeclarationsServer},
    failovers_server::{Failovers, FailoversServer},
    jobs_server::{Jobs, JobsServer},
    protection_server::{Protection, ProtectionServer},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{
        BoxFuture, Service, http,
        tokio_stream::{Stream, iter},
    },
    transport::{Server, server::TcpIncoming},
};

type Stated<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Check = Box<dyn Fn(&dyn Any) -> bool + Send>;

enum Answer {
    Message(Box<dyn Any + Send>),
    Refusal(Status),
    Silence,
}

struct Line {
    method: &'static str,
    check: Check,
    answer: Answer,
}

#[derive(Default)]
struct Play {
    lines: VecDeque<Line>,
    complaints: Vec<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Mutex<Play>>);

/// The orchestrator while it is up.
pub(crate) struct Playing {
    pub(crate) server: String,
    script: Script,
    task: JoinHandle<()>,
}

impl Script {
    pub(crate) fn answers<Q: 'static, A: Send + 'static>(
        self,
        method: &'static str,
        check: impl Fn(&Q) -> bool + Send + 'static,
        answer: A,
    ) -> Self {
        self.line(method, check, Answer::Message(Box::new(answer)))
    }

    /// A stream of these, which then ends.
    pub(crate) fn tells<Q: 'static, A: Send + 'static>(
        self,
        method: &'static str,
        check: impl Fn(&Q) -> bool + Send + 'static,
        items: Vec<Result<A, Status>>,
    ) -> Self {
        self.line(method, check, Answer::Message(Box::new(items)))
    }

    pub(crate) fn refuses<Q: 'static>(self, method: &'static str, status: Status) -> Self {
        self.line(method, |_: &Q| true, Answer::Refusal(status))
    }

    pub(crate) fn stays_silent<Q: 'static>(self, method: &'static str) -> Self {
        self.line(method, |_: &Q| true, Answer::Silence)
    }

    fn line<Q: 'static>(
        self,
        method: &'static str,
        check: impl Fn(&Q) -> bool + Send + 'static,
        answer: Answer,
    ) -> Self {
        let check: Check = Box::new(move |request| request.downcast_ref::<Q>().is_some_and(&check));
        self.0.lock().unwrap().lines.push_back(Line {
            method,
            check,
            answer,
        });
        self
    }

    pub(crate) async fn plays(self) -> Playing {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let services = Services {
            declarations: DeclarationsServer::new(self.clone()),
            protection: ProtectionServer::new(self.clone()),
            failovers: FailoversServer::new(self.clone()),
            jobs: JobsServer::new(self.clone()),
        };
        let task = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener);
            Server::builder()
                .serve_with_incoming(services, incoming)
                .await
                .unwrap();
        });
        Playing {
            server,
            script: self,
            task,
        }
    }

    async fn call<Q: std::fmt::Debug + 'static, A: 'static>(
        &self,
        method: &'static str,
        request: Request<Q>,
    ) -> Result<Response<A>, Status> {
        let request = request.into_inner();
        let answer = {
            let mut play = self.0.lock().unwrap();
            match play.lines.pop_front() {
                Some(line) if line.method == method && (line.check)(&request) => line.answer,
                Some(line) => {
                    play.complaints
                        .push(format!("{method} {request:?} instead of {}", line.method));
                    return Err(Status::internal("not in the script"));
                }
                None => {
                    play.complaints
                        .push(format!("{method} {request:?} after the end"));
                    return Err(Status::internal("not in the script"));
                }
            }
        };
        match answer {
            Answer::Message(message) => Ok(Response::new(
                *message.downcast::<A>().expect("an answer of this method"),
            )),
            Answer::Refusal(status) => Err(status),
            Answer::Silence => std::future::pending().await,
        }
    }

    /// The answer is a `Vec<Result<A, Status>>`; the stream ends after it.
    async fn stream<Q: std::fmt::Debug + 'static, A: Send + 'static>(
        &self,
        method: &'static str,
        request: Request<Q>,
    ) -> Result<Response<Stated<A>>, Status> {
        let items: Vec<Result<A, Status>> = self.call(method, request).await?.into_inner();
        Ok(Response::new(Box::pin(iter(items))))
    }
}

impl Playing {
    /// Checks that the script was played to its end.
    #[track_caller]
    pub(crate) fn was_followed(self) {
        self.task.abort();
        let play = self.script.0.lock().unwrap();
        assert!(play.complaints.is_empty(), "{:?}", play.complaints);
        let left: Vec<&str> = play.lines.iter().map(|line| line.method).collect();
        assert!(left.is_empty(), "never called: {left:?}");
    }
}

/// All four services at one address.
#[derive(Clone)]
struct Services {
    declarations: DeclarationsServer<Script>,
    protection: ProtectionServer<Script>,
    failovers: FailoversServer<Script>,
    jobs: JobsServer<Script>,
}

impl Service<http::Request<Body>> for Services {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path().split('/').nth(1) {
            Some("farshore.v1.Declarations") => self.declarations.call(request),
            Some("farshore.v1.Protection") => self.protection.call(request),
            Some("farshore.v1.Failovers") => self.failovers.call(request),
            Some("farshore.v1.Jobs") => self.jobs.call(request),
            other => panic!("no such service: {other:?}"),
        }
    }
}

#[tonic::async_trait]
impl Declarations for Script {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        self.call("Apply", request).await
    }
    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        self.call("Delete", request).await
    }
    async fn list_sites(&self, request: Request<ListRequest>) -> Result<Response<ListSitesResponse>, Status> {
        self.call("ListSites", request).await
    }
    async fn list_policies(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        self.call("ListPolicies", request).await
    }
}

#[tonic::async_trait]
impl Protection for Script {
    type WatchVmStream = Stated<Vm>;

    async fn list_vms(&self, request: Request<ListRequest>) -> Result<Response<ListVmsResponse>, Status> {
        self.call("ListVms", request).await
    }
    async fn get_vm(&self, request: Request<GetVmRequest>) -> Result<Response<Vm>, Status> {
        self.call("GetVm", request).await
    }
    async fn watch_vm(&self, request: Request<GetVmRequest>) -> Result<Response<Stated<Vm>>, Status> {
        self.stream("WatchVm", request).await
    }
    async fn list_points(
        &self,
        request: Request<ListVmPointsRequest>,
    ) -> Result<Response<ListVmPointsResponse>, Status> {
        self.call("ListPoints", request).await
    }
    async fn pin_point(&self, request: Request<PinPointRequest>) -> Result<Response<RecoveryPoint>, Status> {
        self.call("PinPoint", request).await
    }
    async fn unpin_point(
        &self,
        request: Request<UnpinPointRequest>,
    ) -> Result<Response<RecoveryPoint>, Status> {
        self.call("UnpinPoint", request).await
    }
    async fn list_groups(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        self.call("ListGroups", request).await
    }

    async fn list_replicators(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<ListReplicatorsResponse>, Status> {
        self.call("ListReplicators", request).await
    }
    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        self.call("ListEvents", request).await
    }
}

#[tonic::async_trait]
impl Failovers for Script {
    async fn start_test(&self, request: Request<StartTestRequest>) -> Result<Response<TestFailover>, Status> {
        self.call("StartTest", request).await
    }
    async fn cleanup_test(
        &self,
        request: Request<CleanupTestRequest>,
    ) -> Result<Response<TestFailover>, Status> {
        self.call("CleanupTest", request).await
    }
    async fn list_tests(&self, request: Request<ListRequest>) -> Result<Response<ListTestsResponse>, Status> {
        self.call("ListTests", request).await
    }
    async fn get_test(&self, request: Request<GetTestRequest>) -> Result<Response<TestFailover>, Status> {
        self.call("GetTest", request).await
    }
    async fn start_unplanned(
        &self,
        request: Request<StartUnplannedRequest>,
    ) -> Result<Response<Job>, Status> {
        self.call("StartUnplanned", request).await
    }
}

#[tonic::async_trait]
impl Jobs for Script {
    type WatchJobStream = Stated<Job>;

    async fn list_jobs(&self, request: Request<ListRequest>) -> Result<Response<ListJobsResponse>, Status> {
        self.call("ListJobs", request).await
    }
    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<Job>, Status> {
        self.call("GetJob", request).await
    }
    async fn watch_job(&self, request: Request<GetJobRequest>) -> Result<Response<Stated<Job>>, Status> {
        self.stream("WatchJob", request).await
    }
    async fn retry_job(&self, request: Request<ChangeJobRequest>) -> Result<Response<Job>, Status> {
        self.call("RetryJob", request).await
    }
    async fn cancel_job(&self, request: Request<ChangeJobRequest>) -> Result<Response<Job>, Status> {
        self.call("CancelJob", request).await
    }
}
