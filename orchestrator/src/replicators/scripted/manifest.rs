//! What tests declare.

/// A VM of the site east that is to be recovered at the site west.
pub(crate) const MANIFEST: &str = r#"
apiVersion: farshore/v1
kind: Site
metadata: {name: east}
spec: {provider: qemu}
---
apiVersion: farshore/v1
kind: Site
metadata: {name: west}
spec:
  provider: qemu
  networks:
    - {name: production, bridge: prod0}
---
apiVersion: farshore/v1
kind: ReplicationPolicy
metadata: {name: gold}
spec:
  interval: 2s
  rpoTarget: 15s
---
apiVersion: farshore/v1
kind: ProtectedVm
metadata: {name: shop-db}
spec:
  policy: gold
  source: {site: east, monitor: /run/vms/shop-db.qmp}
  target: {site: west, network: production}
  machine:
    processors: 1
    memory: 256MiB
    firmware: bios
    machineType: pc
    disks:
      - {name: root, device: vdroot}
      - {name: data, device: vddata}
    nics:
      - {mac: "52:54:00:00:00:01"}
"#;
