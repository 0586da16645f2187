//! What the server and the npm package are built from, as CycloneDX.
//!
//! cargo itself says which crates are linked, with the features that these builds have. (cargo-cyclonedx lists those of all
//! features of the workspace, writes beside every manifest, and puts the build machine's folders into the documents.) Nothing
//! in a document depends on the machine or the day: the same commit gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::process::{announce, cargo, output, program};
use crate::workspace::{self, NpmProject, VERSION};

const FOLDER: &str = "target/sbom";
const SERVER_PLATFORM: &str = "x86_64-unknown-linux-gnu";
const BROWSER_PLATFORM: &str = "wasm32-unknown-unknown";

/// Writes `target/sbom/*.cdx.json`, and checks them.
///
/// # Errors
/// Where a document is not as it should be.
pub fn write() -> Result<()> {
    let checksums = checksums(&fs::read_to_string(workspace::path("Cargo.lock")).context("reading Cargo.lock")?);
    let mut server = Components::default();
    server.add(&["throughline-server"], SERVER_PLATFORM)?;
    let server = server.document(
        &json!({ "type": "application", "name": "throughline", "version": VERSION,
        "bom-ref": "throughline", "purl": format!("pkg:cargo/throughline-server@{VERSION}") }),
        &checksums,
    );
    finish("throughline-server", &server, &["throughline-core", "axum", "tokio", "sqlx", "rustls", "pasetors"])?;

    let mut package = Components::default();
    package.add(&["throughline-wasm-client", "throughline-wasm-local-storage"], BROWSER_PLATFORM)?;
    let mut package = package.document(
        &json!({ "type": "library", "name": "throughline", "version": VERSION,
        "bom-ref": "throughline", "purl": format!("pkg:npm/throughline@{VERSION}") }),
        &checksums,
    );
    add_npm(&mut package)?;
    finish("throughline-npm", &package, &["throughline-core", "throughline-wasm-client", "wasm-bindgen", "serde"])
}

fn finish(name: &str, document: &Value, expected: &[&str]) -> Result<()> {
    let faults = faults_of(document, expected);
    if !faults.is_empty() {
        bail!("the list of what {name} is built from is wrong:\n  {}", faults.join("\n  "));
    }
    let file = workspace::path(FOLDER).join(format!("{name}.cdx.json"));
    fs::create_dir_all(workspace::path(FOLDER))?;
    let text = serde_json::to_string_pretty(document)? + "\n";
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    let count = document["components"].as_array().map_or(0, Vec::len);
    announce(&format!("{FOLDER}/{name}.cdx.json: {count} components"));
    Ok(())
}

/// A crate that goes into a build.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Crate {
    name: String,
    version: String,
    licence: String,
    repository: String,
    is_ours: bool,
    /// Whether it is linked; otherwise it only runs while building.
    is_linked: bool,
}

/// Crates by their reference, and on which others each depends.
#[derive(Default)]
struct Components {
    crates: BTreeMap<String, Crate>,
    edges: BTreeMap<String, BTreeSet<String>>,
    roots: BTreeSet<String>,
}

impl Components {
    /// Adds these packages of ours with everything below them.
    fn add(&mut self, packages: &[&str], platform: &str) -> Result<()> {
        for package in packages {
            // First what is linked; then also what runs while building, which is marked so.
            for (edges, is_linked) in [("normal,no-proc-macro", true), ("normal,build", false)] {
                let mut tree = cargo();
                tree.args(["tree", "--locked", "--package", package, "--target", platform, "--edges", edges]);
                tree.args(["--prefix", "depth", "--charset", "ascii", "--format", "\t{p}\t{l}\t{r}\t"]);
                self.add_tree(&output(&mut tree)?, is_linked)?;
            }
        }
        Ok(())
    }

    fn add_tree(&mut self, tree: &str, is_linked: bool) -> Result<()> {
        let mut path: Vec<String> = Vec::new();
        for line in tree.lines() {
            let mut fields = line.split('\t');
            let mut field = || fields.next().with_context(|| format!("cargo tree printed {line:?}"));
            let depth: usize = field()?.trim().parse().with_context(|| format!("cargo tree printed {line:?}"))?;
            let (package, licence, repository) = (field()?, field()?, field()?);
            let mut words = package.split(' ');
            let name = words.next().unwrap_or_default().to_owned();
            let version = words.next().and_then(|version| version.strip_prefix('v'));
            let version = version.with_context(|| format!("cargo tree printed {line:?}"))?.to_owned();
            let reference = format!("cargo:{name}@{version}");
            // `MIT/Apache-2.0` is how licences were written before they were an expression.
            let licence = licence.replace(" / ", " OR ").replace('/', " OR ");
            self.crates.entry(reference.clone()).or_insert(Crate {
                name,
                version,
                licence,
                repository: repository.to_owned(),
                is_ours: package.contains("(/"),
                is_linked,
            });
            path.truncate(depth);
            match path.last() {
                Some(parent) => drop(self.edges.entry(parent.clone()).or_default().insert(reference.clone())),
                None => drop(self.roots.insert(reference.clone())),
            }
            path.push(reference);
        }
        Ok(())
    }

    fn document(&self, subject: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
        let components = self.crates.iter().map(|(reference, part)| {
            let mut component = json!({
                "type": "library",
                "bom-ref": reference,
                "name": part.name,
                "version": part.version,
                "scope": if part.is_linked { "required" } else { "excluded" },
                "licenses": [{ "expression": part.licence }],
                "purl": format!("pkg:cargo/{}@{}", part.name, part.version.replace('+', "%2B")),
            });
            if let Some(checksum) = checksums.get(&(part.name.clone(), part.version.clone())) {
                component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
            } else if part.is_ours {
                component["properties"] = json!([{ "name": "throughline:source", "value": "this repository" }]);
            }
            if !part.repository.is_empty() {
                component["externalReferences"] = json!([{ "type": "vcs", "url": part.repository }]);
            }
            component
        });
        let components: Vec<Value> = components.collect();
        let mut dependencies: Vec<Value> =
            vec![json!({ "ref": subject["bom-ref"], "dependsOn": self.roots.iter().collect::<Vec<_>>() })];
        dependencies.extend(self.crates.keys().map(|reference| {
            let below: Vec<&String> = self.edges.get(reference).into_iter().flatten().collect();
            json!({ "ref": reference, "dependsOn": below })
        }));
        json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": { "component": subject },
            "components": components,
            "dependencies": dependencies,
        })
    }
}

/// The SHA-256 that the lock file has of each crate from the registry.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut checksums = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
            line.and_then(|rest| rest.strip_suffix('"')).map(str::to_owned)
        };
        if let (Some(name), Some(version), Some(checksum)) = (value("name"), value("version"), value("checksum")) {
            checksums.insert((name, version), checksum);
        }
    }
    checksums
}

/// Adds what the package depends on in npm, as npm itself lists it.
fn add_npm(document: &mut Value) -> Result<()> {
    let mut npm = program("npm");
    npm.args(["sbom", "--sbom-format", "cyclonedx", "--omit", "dev", "--package-lock-only"]);
    let listed = output(npm.current_dir(NpmProject::Package.path())).context("npm could not list its packages")?;
    let listed: Value = serde_json::from_str(&listed).context("what npm listed is not JSON")?;
    let subject = listed["metadata"]["component"]["bom-ref"].clone();
    let Some(components) = listed["components"].as_array() else { bail!("npm listed no `components`") };
    let of_npm = listed["dependencies"].as_array().cloned().unwrap_or_default();
    let append = |document: &mut Value, name: &str, values: Vec<Value>| {
        if let Some(list) = document[name].as_array_mut() {
            list.extend(values);
        }
    };
    append(document, "components", components.clone());
    let (own, others): (Vec<Value>, Vec<Value>) = of_npm.into_iter().partition(|entry| entry["ref"] == subject);
    append(document, "dependencies", others);
    let direct = own.into_iter().flat_map(|entry| entry["dependsOn"].as_array().cloned().unwrap_or_default());
    if let Some(list) = document["dependencies"][0]["dependsOn"].as_array_mut() {
        list.extend(direct);
    }
    Ok(())
}

/// What of a document is not as the specification or we want it.
fn faults_of(document: &Value, expected: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    if document["bomFormat"] != "CycloneDX" || document["specVersion"] != "1.5" || document["version"] != 1 {
        faults.push("it does not call itself CycloneDX 1.5".to_owned());
    }
    let none = Vec::new();
    let components = document["components"].as_array().unwrap_or(&none);
    let mut references = BTreeSet::from([document["metadata"]["component"]["bom-ref"].as_str().unwrap_or_default()]);
    let mut names = BTreeSet::new();
    for component in components.iter().chain([&document["metadata"]["component"]]) {
        let name = component["name"].as_str().unwrap_or_default();
        let text = |field: &str| component[field].as_str().unwrap_or_default();
        names.insert(name);
        for field in ["type", "name", "version", "bom-ref"] {
            if text(field).is_empty() {
                faults.push(format!("{name:?} has no {field}"));
            }
        }
        let version = text("version").replace('+', "%2B");
        if !text("purl").starts_with("pkg:") || !text("purl").ends_with(&format!("{name}@{version}")) {
            // The server's program has another name than its crate.
            if component != &document["metadata"]["component"] || !text("purl").starts_with("pkg:cargo/") {
                faults.push(format!("{name:?} has the purl {:?}", text("purl")));
            }
        }
    }
    for component in components {
        let reference = component["bom-ref"].as_str().unwrap_or_default();
        if !references.insert(reference) {
            faults.push(format!("{reference} is there twice"));
        }
        let is_ours = component["name"].as_str().is_some_and(|name| name.starts_with("throughline"));
        if component["hashes"].as_array().is_none_or(Vec::is_empty) && !is_ours {
            faults.push(format!("{reference} has no hash"));
        }
    }
    for entry in document["dependencies"].as_array().unwrap_or(&none) {
        let below = entry["dependsOn"].as_array().unwrap_or(&none);
        for reference in below.iter().chain([&entry["ref"]]).filter_map(Value::as_str) {
            if !references.contains(reference) {
                faults.push(format!("{reference} is depended on and not there"));
            }
        }
    }
    for name in expected.iter().filter(|name| !names.contains(*name)) {
        faults.push(format!("{name} is missing"));
    }
    // What only tests use is in no release.
    for name in ["throughline-test-services", "proptest", "libfuzzer-sys", "xtask"] {
        if names.contains(name) {
            faults.push(format!("{name} is in there, and is in no release"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0\tours v0.1.0 (/somewhere/ours)\tMIT OR Apache-2.0\thttps://example.com/ours\t\n\
        1\ta v1.2.3\tMIT/Apache-2.0\t\t\n\
        2\tb v0.4.0+1.2\tMIT\t\t\n\
        1\tb v0.4.0+1.2\tMIT\t\t (*)\n";

    fn document() -> Value {
        let mut components = Components::default();
        components.add_tree(TREE, true).unwrap();
        components.add_tree("0\tours v0.1.0 (/x)\tMIT\t\t\n1\tmacros v1.0.0 (proc-macro)\tMIT\t\t\n", false).unwrap();
        let lock = "version = 4\n[[package]]\nname = \"a\"\nversion = \"1.2.3\"\nchecksum = \"aa\"\n\
            [[package]]\nname = \"b\"\nversion = \"0.4.0+1.2\"\nchecksum = \"bb\"\n\
            [[package]]\nname = \"macros\"\nversion = \"1.0.0\"\nchecksum = \"cc\"\n";
        let subject = json!({ "type": "application", "name": "ours", "version": "0.1.0", "bom-ref": "it",
            "purl": "pkg:cargo/ours@0.1.0" });
        let mut document = components.document(&subject, &checksums(lock));
        // The check knows our crates by their names.
        document["components"].as_array_mut().unwrap().retain(|component| component["name"] != "ours");
        document["dependencies"] = json!([{ "ref": "it", "dependsOn": ["cargo:a@1.2.3"] }]);
        document
    }

    #[test]
    fn a_tree_becomes_components_with_licence_hash_and_purl() {
        let document = document();
        assert_eq!(faults_of(&document, &["a", "b", "macros"]), Vec::<String>::new());
        let component = |name: &str| {
            document["components"].as_array().unwrap().iter().find(|component| component["name"] == name).unwrap()
        };
        assert_eq!(component("a")["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(component("b")["purl"], "pkg:cargo/b@0.4.0%2B1.2");
        assert_eq!(component("b")["hashes"][0]["content"], "bb");
        assert_eq!(component("a")["scope"], "required");
        assert_eq!(component("macros")["scope"], "excluded", "it runs while building, and is not linked");
        assert!(!document.to_string().contains("somewhere"), "a folder of this machine is in it");
    }

    #[test]
    fn edges_are_those_of_the_tree() {
        let mut components = Components::default();
        components.add_tree(TREE, true).unwrap();
        let below = |reference: &str| components.edges[reference].iter().cloned().collect::<Vec<_>>();
        assert_eq!(below("cargo:ours@0.1.0"), ["cargo:a@1.2.3", "cargo:b@0.4.0+1.2"]);
        assert_eq!(below("cargo:a@1.2.3"), ["cargo:b@0.4.0+1.2"]);
    }

    #[test]
    fn what_is_wrong_with_a_document_is_named() {
        let fault = |change: &dyn Fn(&mut Value)| {
            let mut document = document();
            change(&mut document);
            faults_of(&document, &["a"]).join("; ")
        };
        assert_eq!(fault(&|document| document["bomFormat"] = json!("SPDX")), "it does not call itself CycloneDX 1.5");
        assert!(fault(&|document| document["components"][0]["purl"] = json!("")).contains("has the purl \"\""));
        assert!(fault(&|document| document["components"][0]["hashes"] = json!([])).contains("has no hash"));
        assert!(fault(&|document| document["components"][1] = document["components"][0].clone()).contains("twice"));
        let unknown = |document: &mut Value| document["dependencies"][0]["dependsOn"][0] = json!("cargo:x@1");
        assert_eq!(fault(&unknown), "cargo:x@1 is depended on and not there");
        assert!(fault(&|document| document["components"] = json!([])).contains("a is missing"));
        assert!(fault(&|document| document["components"][0]["name"] = json!("proptest")).contains("is in no release"));
    }
}
