//! Manifests that are wrong, each with the exact message that a person reads.

use proptest::prelude::*;

use super::*;

/// What is told of a text, line by line.
fn told(text: &str) -> String {
    parse_manifest("m.yaml", text).map_or_else(
        |errors| errors.to_string(),
        |read| panic!("{} were read", read.len()),
    )
}

/// The bad manifests, each under a line `# ---- NAME`, and what is told of it behind a line `# >>>>`.
const TABLE: &str = include_str!("tests/bad_manifests.txt");

#[test]
fn each_bad_manifest_gets_exactly_its_errors() {
    let cases: Vec<_> = TABLE.split("# ---- ").skip(1).collect();
    assert!(cases.len() >= 15);
    for case in cases {
        let (name, case) = case.split_once('\n').unwrap();
        let (manifest, expected) = case.split_once("# >>>>\n").unwrap();
        assert_eq!(told(manifest), expected.trim_end(), "{name}");
    }
}

#[test]
fn a_text_that_is_too_large_is_not_read() {
    let text = format!("# {}", " ".repeat(MAX_MANIFEST_BYTES));
    assert_eq!(told(&text), "m.yaml: has 1048578 bytes; at most 1048576 are read");
}

#[test]
fn a_text_without_a_declaration_is_an_error() {
    for text in ["", "---\n", "# nothing\n---\n---\n~\n"] {
        assert_eq!(told(text), "m.yaml: declares nothing");
    }
}

#[test]
fn only_so_many_errors_are_told_and_the_rest_counted() {
    let text = "a: 1\n---\n".repeat(50);
    let errors = parse_manifest("m.yaml", &text).unwrap_err();
    assert_eq!(errors.errors().len(), MAX_TOLD);
    // Every document lacks four fields and has one too many.
    assert_eq!(errors.untold(), 50 * 5 - MAX_TOLD);
}

#[test]
fn aliases_to_aliases_are_refused_before_they_fill_the_memory() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let inner = format!("*a{}", level - 1);
        let row = vec![inner; 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{row}]\n"));
    }
    let errors = parse_manifest("m.yaml", &text).unwrap_err();
    assert_eq!(errors.errors().len(), 1, "{errors}");
}

#[test]
fn thousands_of_bad_documents_are_answered_soon() {
    // Would take minutes if the text were read again for each of them.
    let text = "!x a\n---\n".repeat(100_000);
    let errors = parse_manifest("m.yaml", &text[..MAX_MANIFEST_BYTES / 2]).unwrap_err();
    assert_eq!(errors.errors().len(), MAX_TOLD);
}

fn lines() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "apiVersion: farshore/v1",
        "kind: Site",
        "kind: ProtectedVm",
        "metadata: {name: a}",
        "metadata:",
        "  name: b",
        "spec:",
        "spec: {",
        "  interval: 1s",
        "  disks:",
        "  - name: x",
        "- *a",
        "&a",
        "---",
        "...",
        "!!binary |",
        "? [x]",
        "{",
        "}",
        "[",
        "]",
        "'",
        "\"",
        "\t",
        "%YAML 1.1",
        "<<: *a",
        "| ",
        "> ",
        ": ",
        "~",
    ];
    proptest::collection::vec(proptest::sample::select(WORDS), 0..20).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse_manifest("m.yaml", &text);
    }

    #[test]
    fn nothing_like_yaml_makes_it_panic_and_every_error_in_a_document_has_its_place(text in lines()) {
        if let Err(errors) = parse_manifest("m.yaml", &text) {
            prop_assert!(!errors.errors().is_empty());
            for error in errors.errors() {
                let in_a_document = error.document > 0 && !error.message.contains("limit exceeded");
                prop_assert!(error.position.is_some() || !in_a_document, "{}", error);
            }
        }
    }
}
