//! From what QEMU says of its nodes to the options that open the same image again.

use serde_json::json;

use super::*;

fn node(name: &str, driver: &str, file: &str, direct: bool) -> BlockNode {
    let answer = json!({
        "node-name": name, "drv": driver, "file": file, "ro": false,
        "image": {"filename": file, "virtual-size": 4096},
        "cache": {"direct": direct, "writeback": true, "no-flush": false},
    });
    serde_json::from_value(answer).unwrap()
}

fn graph(edges: &[(&str, &str, &str)]) -> BlockGraph {
    let mut names: Vec<&str> = edges
        .iter()
        .flat_map(|(parent, _, child)| [*parent, *child])
        .collect();
    names.sort_unstable();
    names.dedup();
    let id = |name: &str| names.binary_search(&name).unwrap();
    let nodes: Vec<_> = names
        .iter()
        .map(|name| json!({"id": id(name), "name": name}))
        .collect();
    let edges: Vec<_> = edges
        .iter()
        .map(|(parent, role, child)| json!({"parent": id(parent), "child": id(child), "name": role}))
        .collect();
    serde_json::from_value(json!({"nodes": nodes, "edges": edges})).unwrap()
}

#[test]
fn an_image_is_opened_with_all_that_lies_below_it() {
    let nodes = [
        node("disk", "qcow2", "/d/meta.qcow2", false),
        node("meta", "file", "/d/meta.qcow2", true),
        node("bytes", "file", "/d/bytes.raw", true),
        node("base", "raw", "/d/base.img", false),
        node("base-file", "file", "/d/base.img", false),
    ];
    let graph = graph(&[
        ("disk", "file", "meta"),
        ("disk", "data-file", "bytes"),
        ("disk", "backing", "base"),
        ("base", "file", "base-file"),
    ]);
    let expected = json!({
        "driver": "qcow2",
        "read-only": true,
        "force-share": true,
        "file": {"driver": "file", "filename": "/d/meta.qcow2"},
        "data-file": {"driver": "file", "filename": "/d/bytes.raw"},
        "backing": {"driver": "raw", "file": {"driver": "file", "filename": "/d/base.img"}},
    });
    let image = Image::of("disk", &graph, &nodes).unwrap();
    assert_eq!((image.options, image.direct), (expected, true));
}

#[test]
fn what_the_image_names_as_its_backing_is_not_opened_where_qemu_has_none() {
    let nodes = [
        node("disk", "qcow2", "/d/disk.qcow2", false),
        node("file", "file", "/d/disk.qcow2", false),
    ];
    let image = Image::of("disk", &graph(&[("disk", "file", "file")]), &nodes).unwrap();
    assert_eq!(image.options["backing"], Value::Null);
    assert!(image.options.as_object().unwrap().contains_key("backing") && !image.direct);
}

#[test]
fn options_that_qemu_tells_are_taken_as_they_are() {
    let told = json!({"driver": "raw", "offset": 512, "file": {"driver": "file", "filename": "/d/whole"}});
    let nodes = [node("disk", "raw", &format!("json:{told}"), false)];
    let image = Image::of("disk", &graph(&[]), &nodes).unwrap();
    assert_eq!(
        (&image.options["offset"], &image.options["file"]),
        (&json!(512), &told["file"])
    );
}

#[test]
fn an_image_that_might_be_another_one_here_is_refused() {
    let nodes = [
        node("disk", "raw", "disk.raw", false),
        node("file", "file", "disk.raw", false),
    ];
    let graph = graph(&[("disk", "file", "file")]);
    let refused = Image::of("disk", &graph, &nodes).unwrap_err();
    assert_eq!(
        refused,
        ImageFault::Relative {
            file: "disk.raw".into()
        }
    );
    let refused = Image::of("nowhere", &graph, &nodes).unwrap_err();
    assert_eq!(
        refused,
        ImageFault::Unknown {
            node: "nowhere".into()
        }
    );
}
