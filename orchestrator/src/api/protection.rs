//! The service of what is observed of protection.

use farshore_proto::v1::{self, protection_server::Protection};
use tonic::{Request, Response, Status};

use super::{
    failovers::points_of,
    messages,
    pages::{PageRequest, Sorting, page},
    pins::{Pinning, pin_until, set_pin},
    vm_view::VmViews,
    watching::{Seen, Watching, watch},
};
use crate::{
    control::Control,
    groups,
    orders::{Idempotency, Refusal},
    records::{self, VmRecord},
};

/// Serves [`v1::protection_server::Protection`].
pub struct ProtectionService {
    control: Control,
}

impl ProtectionService {
    /// Over these parts.
    #[must_use]
    pub fn new(control: Control) -> Self {
        Self { control }
    }
}

fn vm(control: &Control, name: &str) -> Result<v1::Vm, Status> {
    let not_found = || Refusal::NotFound {
        what: "protected VM",
        name: name.to_owned(),
    };
    let record = records::read::<VmRecord>(&*control.store, name)?.ok_or_else(not_found)?;
    let views = VmViews::look(control)?;
    Ok(views.vm(&record).ok_or_else(not_found)?.message())
}

#[tonic::async_trait]
impl Protection for ProtectionService {
    type WatchVmStream = Watching<v1::Vm>;

    async fn list_vms(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListVmsResponse>, Status> {
        let views = VmViews::look(&self.control)?;
        let vms = records::list::<VmRecord>(&*self.control.store)?
            .iter()
            .filter_map(|record| Some((record.name.clone(), views.vm(record)?.message())))
            .collect();
        let wanted = PageRequest {
            size: request.get_ref().page_size,
            token: &request.get_ref().page_token,
        };
        let (vms, next_page_token) = page(vms, Sorting::Ascending, wanted)?;
        Ok(Response::new(v1::ListVmsResponse { vms, next_page_token }))
    }

    async fn get_vm(&self, request: Request<v1::GetVmRequest>) -> Result<Response<v1::Vm>, Status> {
        Ok(Response::new(vm(&self.control, &request.get_ref().name)?))
    }

    async fn watch_vm(
        &self,
        request: Request<v1::GetVmRequest>,
    ) -> Result<Response<Self::WatchVmStream>, Status> {
        let name = request.into_inner().name;
        vm(&self.control, &name)?;
        let watching = watch(&self.control, move |control| {
            vm(control, &name).map(Seen::Changing)
        });
        Ok(Response::new(watching))
    }

    async fn list_points(
        &self,
        request: Request<v1::ListVmPointsRequest>,
    ) -> Result<Response<v1::ListVmPointsResponse>, Status> {
        let request = request.into_inner();
        let points = points_of(&self.control, &request.vm)
            .await?
            .into_iter()
            .map(|point| (format!("{:020}", point.sequence), point))
            .collect();
        let wanted = PageRequest {
            size: request.page_size,
            token: &request.page_token,
        };
        let (points, next_page_token) = page(points, Sorting::Descending, wanted)?;
        Ok(Response::new(v1::ListVmPointsResponse {
            points,
            next_page_token,
        }))
    }

    async fn pin_point(
        &self,
        request: Request<v1::PinPointRequest>,
    ) -> Result<Response<v1::RecoveryPoint>, Status> {
        let request = request.into_inner();
        let asked = format!("{}\0{}\0{}", request.vm, request.point, request.until);
        let idempotency = Idempotency::of("pin-point", &request.idempotency_key, asked.as_bytes())?;
        let pinning = Pinning {
            pin: Some(pin_until(&request.until, self.control.clock.now())?),
            vm: request.vm,
            point: request.point,
        };
        Ok(Response::new(
            set_pin(&self.control, &idempotency, &pinning).await?,
        ))
    }

    async fn unpin_point(
        &self,
        request: Request<v1::UnpinPointRequest>,
    ) -> Result<Response<v1::RecoveryPoint>, Status> {
        let request = request.into_inner();
        let asked = format!("{}\0{}", request.vm, request.point);
        let idempotency = Idempotency::of("unpin-point", &request.idempotency_key, asked.as_bytes())?;
        let pinning = Pinning {
            vm: request.vm,
            point: request.point,
            pin: None,
        };
        Ok(Response::new(
            set_pin(&self.control, &idempotency, &pinning).await?,
        ))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let store = &*self.control.store;
        let declared = records::declared(store)?;
        let records = records::list::<VmRecord>(store)?.into_iter();
        let records = records.map(|record| (record.name.clone(), record)).collect();
        let view = self.control.view();
        let message = |group| groups::message(group, &declared, &records, &view);
        let groups = declared
            .groups()
            .map(|group| (group.name().to_string(), message(group)))
            .collect();
        let wanted = PageRequest {
            size: request.get_ref().page_size,
            token: &request.get_ref().page_token,
        };
        let (groups, next_page_token) = page(groups, Sorting::Ascending, wanted)?;
        Ok(Response::new(v1::ListGroupsResponse {
            groups,
            next_page_token,
        }))
    }

    async fn list_replicators(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListReplicatorsResponse>, Status> {
        let view = self.control.view();
        let replicators = view
            .replicators
            .iter()
            .map(|(name, replicator)| (name.clone(), messages::replicator(replicator)))
            .collect();
        let wanted = PageRequest {
            size: request.get_ref().page_size,
            token: &request.get_ref().page_token,
        };
        let (replicators, next_page_token) = page(replicators, Sorting::Ascending, wanted)?;
        Ok(Response::new(v1::ListReplicatorsResponse {
            replicators,
            next_page_token,
        }))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let request = request.into_inner();
        let events = records::events_newest_first(&*self.control.store)?
            .into_iter()
            .filter(|(_, event)| request.subject.is_empty() || event.subject == request.subject)
            .map(|(number, event)| (format!("{number:020}"), messages::event(number, event)))
            .collect();
        let wanted = PageRequest {
            size: request.page_size,
            token: &request.page_token,
        };
        let (events, next_page_token) = page(events, Sorting::Descending, wanted)?;
        Ok(Response::new(v1::ListEventsResponse {
            events,
            next_page_token,
        }))
    }
}
