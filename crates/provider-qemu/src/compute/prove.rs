//! Looking whether a recovered VM's bubble leads anywhere.

use std::{fs, io, os::unix::fs::MetadataExt};

use farshore_provider::{ComputeError, IsolationProof, RecoveryId};

use super::{
    Site,
    network::{Namespace, Place, isolation, look_at, namespace_path},
    process,
    start::io_failed,
};

/// Looks at every interface and route of the bubble, and whether the VM is in it at all.
pub(crate) async fn prove(site: &Site, id: &RecoveryId) -> Result<IsolationProof, ComputeError> {
    let files = site.files(id);
    let failed = |action: &str| io_failed(id, action);
    let request = files.request().map_err(failed("reading the request"))?;
    let request = request.ok_or_else(|| ComputeError::Unknown(id.clone()))?;
    let place = Place::of(&request.network);
    let unfit = |why: String| ComputeError::Unfit { id: id.clone(), why };
    let Some(namespace) = place.namespace() else {
        return Err(unfit(
            "it is on a bridge of the site; only a VM in a bubble is isolated".to_owned(),
        ));
    };
    if look_at(namespace) != Namespace::Present {
        return Err(unfit(format!(
            "its namespace {namespace} does not exist; start it first"
        )));
    }
    let network = site.network(id);
    let links = network.links(Some(namespace)).await?;
    let routes = network.routes(namespace).await?;
    let taps = site
        .taps_in(&place)
        .map_err(failed("reading the requests of other VMs"))?;
    let mut ways_out = isolation::ways_out(&links, &routes, &taps);
    for hypervisor in process::find_all(&files).map_err(failed("looking for its process"))? {
        let pid = hypervisor.pid();
        let inside = lives_in(pid, namespace).map_err(failed("looking at the namespace of its process"))?;
        if !inside {
            ways_out.push(format!("process {pid} is outside {namespace}"));
        }
    }
    Ok(IsolationProof {
        namespace: namespace.to_owned(),
        interfaces: links.into_iter().map(|link| link.name).collect(),
        ways_out,
    })
}

/// Whether the process's network namespace is the one of that name; a process that is gone is nowhere else.
fn lives_in(pid: u32, namespace: &str) -> io::Result<bool> {
    let named = fs::metadata(namespace_path(namespace))?;
    match fs::metadata(format!("/proc/{pid}/ns/net")) {
        Ok(own) => Ok((own.dev(), own.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}
