//! The arguments that QEMU is started with, from what is wanted. Pure.

use std::path::Path;

use super::{
    CacheMode, DiskFormat, DiskThreads, MachineError, MachineType, Network, SourceDisk, SourceVmRequest,
};
use crate::witness::PORT_NAME;

pub(super) fn arguments(request: &SourceVmRequest) -> Result<Vec<String>, MachineError> {
    let mut arguments = Arguments::default();
    let machine = match request.machine_type {
        MachineType::Pc => "pc",
        MachineType::Q35 => "q35",
    };
    arguments.option("-name", plain(&request.name)?);
    arguments.option("-machine", machine.to_owned());
    arguments.option("-accel", request.accelerator.name().to_owned());
    arguments.option("-m", request.memory_mib.to_string());
    arguments.option("-smp", request.processors.to_string());
    if let Some(uuid) = &request.uuid {
        arguments.option("-uuid", plain(uuid)?);
    }
    arguments.flag("-nodefaults");
    arguments.option("-display", "none".to_owned());
    for (position, disk) in request.disks.iter().enumerate() {
        arguments.disk(request, disk, position)?;
    }
    arguments.consoles(request)?;
    for (position, monitor) in request.monitors.iter().enumerate() {
        let path = escaped(monitor)?;
        arguments.option(
            "-chardev",
            format!("socket,id=qmp{position},path={path},server=on,wait=off"),
        );
        arguments.option("-mon", format!("chardev=qmp{position},mode=control"));
    }
    if let Network::Tap(tap) = &request.network {
        let (interface, address) = (plain(&tap.interface)?, plain(&tap.mac_address)?);
        let tap = format!("tap,id=net0,ifname={interface},script=no,downscript=no");
        arguments.option("-netdev", tap);
        arguments.option(
            "-device",
            format!("virtio-net-pci,id=nic0,netdev=net0,mac={address}"),
        );
    }
    arguments.option("-pidfile", unescaped(&request.pid_file)?);
    arguments.flag("-daemonize");
    arguments.0.extend(request.extra_arguments.iter().cloned());
    Ok(arguments.0)
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    fn option(&mut self, name: &str, value: String) {
        self.0.extend([name.to_owned(), value]);
    }

    fn disk(
        &mut self,
        request: &SourceVmRequest,
        disk: &SourceDisk,
        position: usize,
    ) -> Result<(), MachineError> {
        let node = plain(&disk.node)?;
        let path = escaped(&disk.path)?;
        let cache = match request.cache {
            CacheMode::None => "cache.direct=on",
            CacheMode::Writeback => "cache.direct=off",
        };
        let format = match disk.format {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        };
        let file = format!("driver=file,node-name={node}-file,filename={path},{cache},discard=unmap");
        self.option("-blockdev", file);
        let image = format!("driver={format},node-name={node},file={node}-file,{cache},discard=unmap");
        self.option("-blockdev", image);
        let mut device = format!("virtio-blk-pci,id=vd{node},drive={node},bootindex={position}");
        match request.disk_threads {
            DiskThreads::MainLoop => {}
            DiskThreads::IoThreads => {
                self.option("-object", format!("iothread,id=io{node}"));
                device.push_str(&format!(",iothread=io{node}"));
            }
        }
        self.option("-device", device);
        Ok(())
    }

    fn consoles(&mut self, request: &SourceVmRequest) -> Result<(), MachineError> {
        let (console, witness) = (escaped(&request.console)?, escaped(&request.witness)?);
        self.option("-chardev", format!("file,id=serial0,path={console},append=on"));
        self.option("-serial", "chardev:serial0".to_owned());
        self.option("-chardev", format!("file,id=witness,path={witness},append=on"));
        self.option("-device", "virtio-serial-pci,id=ports".to_owned());
        self.option(
            "-device",
            format!("virtserialport,bus=ports.0,chardev=witness,name={PORT_NAME}"),
        );
        Ok(())
    }
}

/// A word that means nothing to QEMU's parser.
fn plain(word: &str) -> Result<String, MachineError> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_.:".contains(letter);
    if !word.is_empty() && word.chars().all(allowed) {
        return Ok(word.to_owned());
    }
    Err(MachineError::BadArgument {
        text: word.to_owned(),
        why: "letters, digits and - _ . : are accepted",
    })
}

fn unescaped(path: &Path) -> Result<String, MachineError> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| MachineError::BadArgument {
            text: path.display().to_string(),
            why: "QEMU takes paths in UTF-8 only",
        })
}

/// A path inside a list of options, in which a comma is written twice.
fn escaped(path: &Path) -> Result<String, MachineError> {
    Ok(unescaped(path)?.replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{image::GuestDisks, machine::Tap};

    fn request() -> SourceVmRequest {
        let disks = GuestDisks {
            root: "/d/a,b.qcow2".into(),
            data: "/d/data.raw".into(),
        };
        SourceVmRequest::small(Path::new("/d"), "web", &disks)
    }

    fn line(request: &SourceVmRequest) -> String {
        arguments(request).unwrap().join(" ")
    }

    #[test]
    fn nodes_and_devices_have_the_names_that_are_promised() {
        let line = line(&request());
        for part in [
            "driver=file,node-name=root-file,filename=/d/a,,b.qcow2,cache.direct=on",
            "driver=qcow2,node-name=root,file=root-file",
            "virtio-blk-pci,id=vdroot,drive=root,bootindex=0",
            "driver=raw,node-name=data,file=data-file",
            "virtio-blk-pci,id=vddata,drive=data,bootindex=1",
            "socket,id=qmp0,path=/d/web.qmp,",
            "socket,id=qmp1,path=/d/web.qmp2,",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("iothread") && !line.contains("netdev"), "{line}");
    }

    #[test]
    fn what_was_ordered_is_what_qemu_gets() {
        let mut request = request();
        request.cache = CacheMode::Writeback;
        request.disk_threads = DiskThreads::IoThreads;
        request.uuid = Some("0194b1c0-0000-7000-8000-000000000001".into());
        request.network = Network::Tap(Tap {
            interface: "tap0".into(),
            bridge: "br0".into(),
            namespace: None,
            mac_address: "52:54:00:00:00:01".into(),
        });
        let line = line(&request);
        for part in [
            "cache.direct=off",
            "iothread,id=iodata",
            "drive=data,bootindex=1,iothread=iodata",
            "tap,id=net0,ifname=tap0,",
            "mac=52:54:00:00:00:01",
            "-uuid 0194b1c0",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("cache.direct=on"), "{line}");
    }

    #[test]
    fn a_name_that_qemu_would_misread_is_refused() {
        let mut request = request();
        request.name = "web,debug-threads=on".into();
        assert!(matches!(
            arguments(&request),
            Err(MachineError::BadArgument { .. })
        ));
        let mut request = self::request();
        request.disks[0].node = String::new();
        assert!(matches!(
            arguments(&request),
            Err(MachineError::BadArgument { .. })
        ));
    }
}
