//! Kubernetes objects from files.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use felix::offline::Document;
use serde_json::Value;

/// Names of files that are read out of a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Every object of these files.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for path in paths {
        for path in files(path)? {
            let name = path.display().to_string();
            let text = text(&path).with_context(|| format!("reading {name}"))?;
            documents.extend(objects(&name, &text)?);
        }
    }
    Ok(documents)
}

/// The file itself, or those in the directory, in the order of names.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let context = || format!("reading the directory {}", path.display());
    let mut found = Vec::new();
    for entry in path.read_dir().with_context(context)? {
        let path = entry.with_context(context)?.path();
        let extension = path.extension().and_then(|it| it.to_str());
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if extension.is_some_and(|it| EXTENSIONS.contains(&it)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn text(path: &Path) -> std::io::Result<String> {
    if path != Path::new("-") {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// The objects of a text; the members of a List one by one.
fn objects(name: &str, text: &str) -> anyhow::Result<Vec<Document>> {
    // JSON is read as such: a file that `kubectl get -o json` wrote may be large.
    let values: Vec<Value> = match text.trim_start().starts_with('{') {
        true => serde_json::Deserializer::from_str(text)
            .into_iter()
            .collect::<Result<_, _>>()
            .with_context(|| format!("{name} is not JSON"))?,
        false => {
            serde_saphyr::from_multiple(text).with_context(|| format!("{name} is not YAML"))?
        }
    };
    let mut documents = Vec::new();
    let several = values.len() > 1;
    for (index, value) in values.into_iter().enumerate() {
        let origin = match several {
            true => format!("{name}, document {}", index + 1),
            false => name.to_owned(),
        };
        documents.extend(Document::unfold(&origin, value));
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_become_objects() {
        let yaml = "# first\n---\nkind: Pod\nmetadata: {name: a}\n---\nkind: List\nitems:\n- {kind: Pod}\n- {kind: Pod}\n";
        let found = objects("f.yaml", yaml).unwrap();
        let origins: Vec<&str> = found.iter().map(|it| it.origin.as_str()).collect();
        assert_eq!(
            origins,
            [
                "f.yaml, document 1",
                "f.yaml, document 2, items[0]",
                "f.yaml, document 2, items[1]"
            ]
        );
        let json = r#"{"kind": "Pod"}"#;
        assert_eq!(objects("f.json", json).unwrap().len(), 1);
        let error = objects("f.yaml", "a: [").unwrap_err();
        assert!(error.to_string().contains("f.yaml is not YAML"), "{error}");
    }

    #[test]
    fn directories_are_read_in_the_order_of_names() {
        let tmp = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "notes.txt"] {
            std::fs::write(tmp.path().join(name), "kind: Pod\n").unwrap();
        }
        let found = read(&[tmp.path().to_owned()]).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].origin.ends_with("a.yml"));
        let error = read(&["/nowhere.yaml".into()]).unwrap_err();
        assert!(error.to_string().contains("/nowhere.yaml"), "{error}");
    }
}
