//! Fetching lists from the orchestrator, page after page.

use std::future::Future;

use farshore_proto::v1::{GetJobRequest, ListEventsRequest, ListRequest, ListVmPointsRequest};

use crate::{
    client::Client,
    exit::CliError,
    failover,
    view::{
        EventView, GroupView, JobView, Listed, PointView, PolicyView, ReplicatorView, SiteView,
        TestFailoverView, VmView,
    },
};

/// How many things one page may hold.
const PAGE_SIZE: u32 = 500;
const WHAT: &str = "the list";

/// Sites, or the one of this name.
pub(crate) async fn sites(client: &Client, name: Option<&str>) -> Result<Vec<SiteView>, CliError> {
    let all = every_page(async |page_token| {
        let request = client.request(ListRequest {
            page_size: PAGE_SIZE,
            page_token,
        });
        let page = client
            .answer(WHAT, client.declarations().list_sites(request))
            .await?;
        Ok((page.sites, page.next_page_token))
    });
    only(all.await?, "site", name)
}

/// Policies, or the one of this name.
pub(crate) async fn policies(client: &Client, name: Option<&str>) -> Result<Vec<PolicyView>, CliError> {
    let all = every_page(async |page_token| {
        let request = client.request(ListRequest {
            page_size: PAGE_SIZE,
            page_token,
        });
        let page = client
            .answer(WHAT, client.declarations().list_policies(request))
            .await?;
        Ok((page.policies, page.next_page_token))
    });
    only(all.await?, "policy", name)
}

/// Consistency groups, or the one of this name.
pub(crate) async fn groups(client: &Client, name: Option<&str>) -> Result<Vec<GroupView>, CliError> {
    let all = every_page(async |page_token| {
        let request = client.request(ListRequest {
            page_size: PAGE_SIZE,
            page_token,
        });
        let page = client
            .answer(WHAT, client.protection().list_groups(request))
            .await?;
        Ok((page.groups, page.next_page_token))
    });
    only(all.await?, "group", name)
}

/// Replicators, or the one of this name.
pub(crate) async fn replicators(
    client: &Client,
    name: Option<&str>,
) -> Result<Vec<ReplicatorView>, CliError> {
    let all = every_page(async |page_token| {
        let request = client.request(ListRequest {
            page_size: PAGE_SIZE,
            page_token,
        });
        let page = client
            .answer(WHAT, client.protection().list_replicators(request))
            .await?;
        Ok((page.replicators, page.next_page_token))
    });
    only(all.await?, "replicator", name)
}

/// Protected VMs, or the one of this name.
pub(crate) async fn vms(client: &Client, name: Option<&str>) -> Result<Vec<VmView>, CliError> {
    if let Some(name) = name {
        return Ok(vec![failover::get_vm(client, name).await?.into()]);
    }
    let all = every_page(async |page_token| {
        let request = client.request(ListRequest {
            page_size: PAGE_SIZE,
            page_token,
        });
        let page = client.answer(WHAT, client.protection().list_vms(request)).await?;
        Ok((page.vms, page.next_page_token))
    });
    only(all.await?, "vm", None)
}

/// Jobs, or the one of this identifier.
pub(crate) async fn jobs(client: &Client, id: Option<&str>) -> Result<Vec<JobView>, CliError> {
    if let Some(id) = id {
        let request = client.request(GetJobRequest { id: id.to_owned() });
        return Ok(vec![
            client.answer(WHAT, client.jobs().get_job(request)).await?.into(),
        ]);
    }
    let all = every_page(async |page_token| {
        let request = client.request(ListRequest {
            page_size: PAGE_SIZE,
            page_token,
        });
        let page = client.answer(WHAT, client.jobs().list_jobs(request)).await?;
        Ok((page.jobs, page.next_page_token))
    });
    only(all.await?, "job", None)
}

/// Recovery points of a VM, newest first.
pub(crate) async fn points(client: &Client, vm: &str) -> Result<Vec<PointView>, CliError> {
    let all = every_page(async |page_token| {
        let vm = vm.to_owned();
        let request = client.request(ListVmPointsRequest {
            vm,
            page_size: PAGE_SIZE,
            page_token,
        });
        let page = client
            .answer(WHAT, client.protection().list_points(request))
            .await?;
        Ok((page.points, page.next_page_token))
    });
    only(all.await?, "point", None)
}

/// Events, newest first; an empty subject means all.
pub(crate) async fn events(client: &Client, subject: &str) -> Result<Vec<EventView>, CliError> {
    let all = every_page(async |page_token| {
        let subject = subject.to_owned();
        let request = client.request(ListEventsRequest {
            subject,
            page_size: PAGE_SIZE,
            page_token,
        });
        let page = client
            .answer(WHAT, client.protection().list_events(request))
            .await?;
        Ok((page.events, page.next_page_token))
    });
    only(all.await?, "event", None)
}

/// Test failovers, or the one of this name.
pub(crate) async fn test_failovers(
    client: &Client,
    name: Option<&str>,
) -> Result<Vec<TestFailoverView>, CliError> {
    if let Some(name) = name {
        return Ok(vec![failover::get_test(client, name).await?.into()]);
    }
    let all = every_page(async |page_token| {
        let request = client.request(ListRequest {
            page_size: PAGE_SIZE,
            page_token,
        });
        let page = client
            .answer(WHAT, client.failovers().list_tests(request))
            .await?;
        Ok((page.tests, page.next_page_token))
    });
    only(all.await?, "test failover", None)
}

async fn every_page<T, F>(fetch: impl Fn(String) -> F) -> Result<Vec<T>, CliError>
where
    F: Future<Output = Result<(Vec<T>, String), CliError>>,
{
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let (page, next) = fetch(token.clone()).await?;
        all.extend(page);
        if next.is_empty() || next == token {
            return Ok(all);
        }
        token = next;
    }
}

fn only<M, T: Listed + From<M>>(all: Vec<M>, kind: &str, name: Option<&str>) -> Result<Vec<T>, CliError> {
    let mut items: Vec<T> = all.into_iter().map(T::from).collect();
    let Some(name) = name else {
        return Ok(items);
    };
    let names: Vec<String> = items.iter().map(Listed::key).collect();
    items.retain(|item| item.key() == name);
    if items.is_empty() {
        let known = if names.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        };
        return Err(CliError::NotFound {
            message: format!("there is no {kind} `{name}`; {known}"),
            reason: "not-found".to_owned(),
        });
    }
    Ok(items)
}
