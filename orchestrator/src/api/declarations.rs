//! The service of what is declared.

use farshore_domain::declaration::{Declaration, DeclarationKey, Kind, Name, parse_manifest};
use farshore_proto::v1::{self, declarations_server::Declarations};
use tonic::{Request, Response, Status};

use super::{
    messages,
    pages::{PageRequest, Sorting, page},
};
use crate::{
    control::Control,
    orders::{self, Applying, Fresh, Idempotency, Refusal, once},
    records::{self, Answer, Applied},
};

/// Serves [`v1::declarations_server::Declarations`].
pub struct DeclarationsService {
    control: Control,
}

impl DeclarationsService {
    /// Over these parts.
    #[must_use]
    pub fn new(control: Control) -> Self {
        Self { control }
    }

    async fn apply_documents(&self, request: &v1::ApplyRequest) -> Result<Vec<Applied>, Refusal> {
        let documents = parse_manifest("manifest", &request.manifest).map_err(Refusal::InvalidManifest)?;
        let applying = Applying::new(documents)?;
        let now = self.control.clock.now();
        let store = &*self.control.store;
        if request.dry_run {
            let applied = records::preview(store, |work| orders::apply(work, &applying, now))?;
            return Ok(applied
                .into_iter()
                .map(|applied| Applied { job: None, ..applied })
                .collect());
        }
        let idempotency = Idempotency::of("apply", &request.idempotency_key, request.manifest.as_bytes())?;
        let answer = once(store, &idempotency, now, |work| {
            orders::apply(work, &applying, now).map(Answer::Applied)
        })
        .await?;
        match answer {
            Answer::Applied(applied) => Ok(applied),
            Answer::Deleted(_) | Answer::Test(_) | Answer::Job(_) | Answer::Point(_) => Ok(Vec::new()),
        }
    }

    fn declared<T>(
        &self,
        request: &v1::ListRequest,
        pick: impl Fn(&Declaration) -> Option<T>,
    ) -> Result<(Vec<T>, String), Status> {
        let declared = records::declared(&*self.control.store)?;
        let items = declared
            .iter()
            .filter_map(|declaration| Some((declaration.name().to_string(), pick(declaration)?)))
            .collect();
        let wanted = PageRequest {
            size: request.page_size,
            token: &request.page_token,
        };
        Ok(page(items, Sorting::Ascending, wanted)?)
    }
}

#[tonic::async_trait]
impl Declarations for DeclarationsService {
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let applied = self.apply_documents(&request.into_inner()).await?;
        let applied = applied.into_iter().map(|applied| v1::Applied {
            kind: applied.kind.to_string(),
            name: applied.name,
            effect: messages::effect(applied.effect).into(),
            job: applied.job.map(|job| job.to_string()).unwrap_or_default(),
        });
        Ok(Response::new(v1::ApplyResponse {
            applied: applied.collect(),
        }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let request = request.into_inner();
        let kind: Kind = request.kind.parse().map_err(Refusal::UnknownKind)?;
        let name: Name = request.name.parse().map_err(|_| Refusal::NotFound {
            what: kind.as_str(),
            name: request.name.clone(),
        })?;
        let key = DeclarationKey { kind, name };
        let idempotency = Idempotency::of("delete", &request.idempotency_key, key.to_string().as_bytes())?;
        let (fresh, now) = (Fresh::make()?, self.control.clock.now());
        let answer = once(&*self.control.store, &idempotency, now, |work| {
            orders::delete(work, &key, &fresh, now).map(Answer::Deleted)
        })
        .await?;
        let job = match answer {
            Answer::Deleted(job) => job,
            Answer::Job(job) => Some(job),
            Answer::Applied(_) | Answer::Test(_) | Answer::Point(_) => None,
        };
        Ok(Response::new(v1::DeleteResponse {
            job: job.map(|job| job.to_string()).unwrap_or_default(),
        }))
    }

    async fn list_sites(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListSitesResponse>, Status> {
        let (sites, next_page_token) = self.declared(request.get_ref(), |declaration| match declaration {
            Declaration::Site(site) => Some(messages::site(site)),
            Declaration::ReplicationPolicy(_)
            | Declaration::ProtectedVm(_)
            | Declaration::ConsistencyGroup(_) => None,
        })?;
        Ok(Response::new(v1::ListSitesResponse {
            sites,
            next_page_token,
        }))
    }

    async fn list_policies(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        let (policies, next_page_token) =
            self.declared(request.get_ref(), |declaration| match declaration {
                Declaration::ReplicationPolicy(policy) => Some(messages::policy(policy)),
                Declaration::Site(_) | Declaration::ProtectedVm(_) | Declaration::ConsistencyGroup(_) => None,
            })?;
        Ok(Response::new(v1::ListPoliciesResponse {
            policies,
            next_page_token,
        }))
    }
}
