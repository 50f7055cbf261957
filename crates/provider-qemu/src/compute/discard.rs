//! Removing a recovered VM with everything that was made for it, and looking whether it is gone.
//!
//! The request goes last, and only when nothing else is left: a removal that was cut short, or that left something,
//! can be ordered again.

use std::os::unix::fs::FileTypeExt;

use farshore_provider::{ComputeError, Leak, RecoveryId, RecoveryRequest};

use super::{
    Site,
    directory::RecoveryDirectory,
    network::{Namespace, Place, look_at, tap_prefix},
    process,
    start::io_failed,
    stop,
};

/// Removes everything and says what is still there.
pub(crate) async fn discard(site: &Site, id: &RecoveryId) -> Result<Vec<Leak>, ComputeError> {
    let files = site.files(id);
    let failed = |action: &str| io_failed(id, action);
    let request = files.request().map_err(failed("reading the request"))?;
    stop::end(&files, id).await?;
    // Until the request is gone: two VMs that leave a bubble at once must not each take the other for its inhabitant.
    let _turn = site.network_turn.lock().await;
    remove_network(site, id, request.as_ref()).await?;
    files
        .remove_content()
        .await
        .map_err(failed("removing its files"))?;
    let leaks = look(site, id, &files, request.as_ref()).await?;
    if leaks.is_empty() {
        files.remove().await.map_err(failed("removing its directory"))?;
        tracing::info!(vm = %id, "a recovered VM is gone");
    } else {
        tracing::warn!(vm = %id, ?leaks, "something of a recovered VM is still there");
    }
    Ok(leaks)
}

async fn remove_network(
    site: &Site,
    id: &RecoveryId,
    request: Option<&RecoveryRequest>,
) -> Result<(), ComputeError> {
    let network = site.network(id);
    let prefix = tap_prefix(&site.root, id);
    let Some(place) = request.map(|request| Place::of(&request.network)) else {
        // The request is there before the network is made and until it is gone.
        return Ok(());
    };
    let Some(namespace) = place.namespace() else {
        return network.remove_taps(&place, &prefix).await;
    };
    if !network.is_ours(namespace).await? {
        return Ok(());
    }
    network.remove_taps(&place, &prefix).await?;
    let is_free = look_at(namespace) == Namespace::Broken
        || (!is_shared(site, id, &place)?
            && network.taps(Some(namespace), "").await?.is_empty()
            && network.inhabitants(namespace).await?.is_empty());
    if is_free {
        network.remove_namespace(namespace).await?;
    }
    Ok(())
}

/// Whether another VM of ours is in the same place.
fn is_shared(site: &Site, id: &RecoveryId, place: &Place) -> Result<bool, ComputeError> {
    let requests = site
        .requests()
        .map_err(io_failed(id, "reading the requests of other VMs"))?;
    Ok(requests
        .iter()
        .any(|other| other.id != *id && Place::of(&other.network) == *place))
}

/// Looks, without relying on what was just done.
async fn look(
    site: &Site,
    id: &RecoveryId,
    files: &RecoveryDirectory,
    request: Option<&RecoveryRequest>,
) -> Result<Vec<Leak>, ComputeError> {
    let failed = |action: &str| io_failed(id, action);
    let mut leaks = Vec::new();
    for (pid, program) in process::naming(files.path()).map_err(failed("looking for processes"))? {
        leaks.push(leak("process", format!("{pid} ({program})")));
    }
    let network = site.network(id);
    let prefix = tap_prefix(&site.root, id);
    for tap in network.taps(None, &prefix).await? {
        leaks.push(leak("interface", tap));
    }
    if let Some(place) = request.map(|request| Place::of(&request.network)) {
        leaks.extend(look_in_bubble(site, id, &place, &prefix).await?);
    }
    for path in files.files().map_err(failed("looking for files"))? {
        let is_socket = std::fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket());
        if !files.is_request(&path) {
            let kind = if is_socket { "socket" } else { "file" };
            leaks.push(leak(kind, path.display().to_string()));
        }
    }
    Ok(leaks)
}

async fn look_in_bubble(
    site: &Site,
    id: &RecoveryId,
    place: &Place,
    prefix: &str,
) -> Result<Vec<Leak>, ComputeError> {
    let Some(namespace) = place.namespace() else {
        return Ok(Vec::new());
    };
    let network = site.network(id);
    if !network.is_ours(namespace).await? {
        return Ok(Vec::new());
    }
    let mut leaks = Vec::new();
    let found = look_at(namespace);
    if found == Namespace::Present {
        for tap in network.taps(Some(namespace), prefix).await? {
            leaks.push(leak("interface", format!("{tap} in {namespace}")));
        }
    }
    if is_shared(site, id, place)? {
        return Ok(leaks);
    }
    leaks.push(leak("namespace", namespace.to_owned()));
    if found == Namespace::Present {
        for pid in network.inhabitants(namespace).await? {
            leaks.push(leak("process", format!("{pid} in {namespace}")));
        }
    }
    Ok(leaks)
}

fn leak(kind: &str, name: String) -> Leak {
    Leak {
        kind: kind.to_owned(),
        name,
    }
}
