//! Where things are in this repository.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> &'static Path {
    // crates/xtask, two levels below the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the manifest lies two folders below the root")
}

/// A path below the root.
pub fn path(relative: &str) -> PathBuf {
    root().join(relative)
}

/// The one version of every crate and of the npm package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An npm project of this repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NpmProject {
    /// The TypeScript shell around the WebAssembly core: the package `throughline`.
    Package,
    /// The demo shop.
    Demo,
    /// The browser tests.
    EndToEnd,
    /// What the server is compared with, for Node.js.
    BenchmarkPeers,
}

impl NpmProject {
    /// Those with TypeScript to check.
    pub const TYPESCRIPT: [Self; 3] = [Self::Package, Self::Demo, Self::EndToEnd];

    pub fn folder(self) -> &'static str {
        match self {
            Self::Package => "crates/wasm-client/js",
            Self::Demo => "web-demo",
            Self::EndToEnd => "tests/e2e",
            Self::BenchmarkPeers => "crates/benchmarks/peers/node",
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
