//! Where things are in this repository.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::{cargo, output, run};

/// The repository's root.
pub fn root() -> &'static Path {
    // crates/xtask, two levels below the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the manifest lies two folders below the root")
}

/// A path below the root.
pub fn path(relative: &str) -> PathBuf {
    root().join(relative)
}

/// Where cargo puts what it builds: `target` in the root, unless the environment or a configuration says otherwise. What
/// the npm projects refer to by its path (`target/npm`) is in the root's `target` all the same.
pub fn target_folder() -> Result<PathBuf> {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo's metadata is not JSON")?;
    metadata["target_directory"].as_str().map(PathBuf::from).context("cargo's metadata names no target_directory")
}

/// A test target without much in it.
const SMALL_TEST: &str = "lives";

/// Builds programs of this workspace as its tests are built, so that what those compiled is compiled once: cargo counts the
/// features of the packages that it is asked for, and the features that tests need only where a test is among them.
pub fn build_programs(names: &[&str]) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--workspace", "--test", SMALL_TEST]);
    run(build.args(names.iter().flat_map(|name| ["--bin", name])))
}

/// A program of this workspace that cargo has built, for `debug` or for `release`.
pub fn built_program(profile: &str, name: &str) -> Result<PathBuf> {
    Ok(target_folder()?.join(profile).join(name))
}

/// The one version of every crate and of the npm package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An npm project of this repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NpmProject {
    /// The TypeScript shell around the WebAssembly core: the package `throughline`.
    Package,
    /// What makes TypeScript types of the API's description. It needs an older TypeScript than the package is checked with.
    ApiTypes,
    /// The demo shop.
    Demo,
    /// The browser tests.
    EndToEnd,
    /// What the package is bundled with, and run in, by the browser tests.
    Bundlers,
    /// The shop with the four legacy systems, which the browser tests build and walk through.
    LegacyShop,
    /// The same shop on Throughline.
    UnifiedShop,
    /// What the server is compared with, for Node.js.
    BenchmarkPeers,
    /// The pages that measure the package and what it is compared with.
    BrowserBenchmark,
}

impl NpmProject {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Package,
        Self::ApiTypes,
        Self::Demo,
        Self::EndToEnd,
        Self::Bundlers,
        Self::LegacyShop,
        Self::UnifiedShop,
        Self::BenchmarkPeers,
        Self::BrowserBenchmark,
    ];

    /// Those with TypeScript to check.
    pub const TYPESCRIPT: [Self; 5] = [Self::Package, Self::Demo, Self::EndToEnd, Self::LegacyShop, Self::UnifiedShop];

    pub fn folder(self) -> &'static str {
        match self {
            Self::Package => "crates/wasm-client/js",
            Self::ApiTypes => "crates/xtask/api-types",
            Self::Demo => "web-demo",
            Self::EndToEnd => "tests/e2e",
            Self::Bundlers => "tests/bundlers",
            Self::LegacyShop => "examples/nextjs/legacy",
            Self::UnifiedShop => "examples/nextjs/unified",
            Self::BenchmarkPeers => "crates/benchmarks/peers/node",
            Self::BrowserBenchmark => "crates/benchmarks/browser",
        }
    }

    pub fn path(self) -> PathBuf {
        path(self.folder())
    }

    /// A program that one of the project's dependencies installed.
    pub fn program(self, name: &str) -> PathBuf {
        self.path().join("node_modules/.bin").join(name)
    }
}
