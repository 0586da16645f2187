//! The browser core: compiled to WebAssembly, given its JavaScript bindings, made small.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

use crate::process::{announce, cargo, find, output, program, run, without_task_environment};
use crate::provision::{self, SystemPackage};
use crate::workspace::{self, NpmProject};

const TARGET: &str = "wasm32-unknown-unknown";
const BUILD: &str = "target/npm/build";
const OPTIMISE: &[&str] = &[
    "-O3",
    // Brotli finds more repetition in many small functions than in few large ones: 4 % less to download.
    "--one-caller-inline-max-function-size=20",
    "--enable-bulk-memory",
    "--enable-reference-types",
    "--enable-sign-ext",
    "--enable-nontrapping-float-to-int",
    "--enable-mutable-globals",
    "--enable-multivalue",
];

#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct Options {
    /// Which Rust compiles for WebAssembly; chosen by itself unless given.
    #[arg(long, value_enum)]
    toolchain: Option<Toolchain>,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Toolchain {
    /// The active one, with the target that rustup or the machine installed.
    Active,
    /// Debian's, which builds the standard library from its sources.
    Debian,
}

/// One of the modules that the npm package consists of.
#[derive(Clone, Copy)]
struct Module {
    package: &'static str,
    /// What its bindings are called: `<name>.js`, `<name>.d.ts`, `<name>_bg.wasm`.
    name: &'static str,
}

const CLIENT: Module = Module { package: "throughline-wasm-client", name: "throughline" };
/// Loaded by those pages only that need it.
const LOCAL_STORAGE: Module = Module { package: "throughline-wasm-local-storage", name: "local_storage" };

/// The finished modules.
pub fn build(options: &Options) -> Result<Vec<PathBuf>> {
    let toolchain = options.toolchain.map_or_else(choose_toolchain, Ok)?;
    let generated = NpmProject::Package.path().join("generated");
    fs::create_dir_all(&generated)?;
    let mut finished = Vec::new();
    for module in [CLIENT, LOCAL_STORAGE] {
        announce(&format!("building {} for WebAssembly", module.package));
        let bindings = bind_and_optimise(&compile(module, toolchain, None)?, module)?;
        // The TypeScript sources import the bindings from `generated/`, which is never committed.
        for ending in [".js", ".d.ts", "_bg.wasm"] {
            let name = [module.name, ending].concat();
            fs::copy(bindings.join(&name), generated.join(&name)).with_context(|| format!("copying {name}"))?;
        }
        finished.push(bindings.join([module.name, "_bg.wasm"].concat()));
    }
    fs::write(generated.join("types.ts"), throughline_core::typescript::declarations()).context("writing types.ts")?;
    api_types(&generated)?;
    Ok(finished)
}

/// Writes the types of the REST API, for what talks to it.
fn api_types(generated: &Path) -> Result<()> {
    provision::npm(NpmProject::ApiTypes)?;
    announce("types of the REST API");
    output(
        program(NpmProject::ApiTypes.program("openapi-typescript"))
            .arg(workspace::path("docs/openapi.json"))
            // Objects without members of their own hold any JSON; and nothing has to be sent that has a default.
            .args(["--empty-objects-unknown", "--default-non-nullable=false", "--output"])
            .arg(generated.join("openapi.ts")),
    )?;
    Ok(())
}

/// Builds the core once more, with the function by which the tests ask it for verdicts. Not part of the package.
pub fn build_verdict(options: &Options) -> Result<()> {
    announce("building the core with its verdicts for WebAssembly");
    let toolchain = options.toolchain.map_or_else(choose_toolchain, Ok)?;
    let module = compile(CLIENT, toolchain, Some("verdict"))?;
    let folder = workspace::path("target/npm/verdict");
    fs::create_dir_all(&folder)?;
    Bindgen::new().input_path(module).out_name("verdict").nodejs(true)?.typescript(false).generate(&folder)?;
    // Bindings for Node are CommonJS.
    fs::write(folder.join("package.json"), "{ \"type\": \"commonjs\" }\n").context("writing package.json")
}

fn choose_toolchain() -> Result<Toolchain> {
    if target_is_installed()? {
        return Ok(Toolchain::Active);
    }
    // A machine that needed Debian's toolchain once needs it again: don't wait for the network to fail.
    if SystemPackage::RustForWeb.is_installed() {
        return Ok(Toolchain::Debian);
    }
    if find("rustup").is_some() {
        announce(&format!("rustup target add {TARGET}"));
        if run(program("rustup").args(["target", "add", TARGET])).is_ok() && target_is_installed()? {
            return Ok(Toolchain::Active);
        }
    }
    provision::system(&[SystemPackage::RustForWeb]).with_context(|| {
        format!(
            "no Rust for {TARGET}: `rustup target add {TARGET}` did not work here, \
             nor did installing Debian's rustc-web, cargo-web and rust-web-src"
        )
    })?;
    Ok(Toolchain::Debian)
}

fn target_is_installed() -> Result<bool> {
    let folder = output(program("rustc").args(["--print", "target-libdir", "--target", TARGET]))?;
    Ok(Path::new(&folder).is_dir())
}

/// Compiles; where the module is until this package is compiled with another feature.
fn compile(module: Module, toolchain: Toolchain, feature: Option<&str>) -> Result<PathBuf> {
    let mut command = match toolchain {
        Toolchain::Active => cargo(),
        Toolchain::Debian => debian_cargo()?,
    };
    // A target folder of its own: two compilers that share one rebuild each other's work.
    let folder = workspace::target_folder()?.join("wasm");
    command.args(["build", "--package", module.package, "--lib", "--profile", "wasm"]);
    command.args(["--target", TARGET, "--target-dir"]).arg(&folder);
    command.args(feature.into_iter().flat_map(|feature| ["--features", feature]));
    if toolchain == Toolchain::Debian {
        command.args(["-Z", "build-std=std,panic_abort"]);
    }
    run(&mut command)?;
    Ok(folder.join(TARGET).join("wasm").join(module.package.replace('-', "_")).with_extension("wasm"))
}

fn debian_cargo() -> Result<std::process::Command> {
    if !SystemPackage::RustForWeb.is_installed() {
        bail!("Debian's rustc-web, cargo-web and rust-web-src are not installed");
    }
    let sysroot = output(program("rustc").args(["--print", "sysroot"]))?;
    let host = output(program("rustc").args(["--print", "host-tuple"]))?;
    // rust-lld itself understands `-flavor`; the wasm-ld beside it does not.
    let linker = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin/rust-lld");
    if !linker.is_file() {
        bail!("no linker for WebAssembly: {} is missing", linker.display());
    }
    let mut command = program("/usr/bin/cargo");
    without_task_environment(&mut command);
    command
        .env("RUSTC", "/usr/bin/rustc")
        // Building the standard library is an unstable feature of a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN");
    Ok(command)
}

/// Skips its work where neither the module nor the tools changed since the last time.
fn bind_and_optimise(compiled: &Path, Module { name, .. }: Module) -> Result<PathBuf> {
    let module = fs::read(compiled).with_context(|| format!("reading {}", compiled.display()))?;
    provision::npm(NpmProject::Package)?;

    let folder = workspace::path(BUILD).join(name);
    let stamp = folder.join(".built-from");
    let key = build_key(&module)?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found == key) {
        return Ok(folder);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).context("removing the previous bindings")?;
    }
    fs::create_dir_all(&folder)?;

    announce("generating the JavaScript bindings");
    Bindgen::new()
        .input_bytes(name, module)
        .web(true)?
        .typescript(true)
        // The package says itself where its module lies, in the form that bundlers understand.
        .omit_default_module_path(true)
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(&folder)?;

    announce("making the module small");
    let module = folder.join([name, "_bg.wasm"].concat());
    run(program(NpmProject::Package.program("wasm-opt")).args(OPTIMISE).arg(&module).arg("-o").arg(&module))?;
    fs::write(stamp, key)?;
    Ok(folder)
}

fn build_key(module: &[u8]) -> Result<String> {
    let binaryen = NpmProject::Package.path().join("node_modules/binaryen/package.json");
    let mut hasher = DefaultHasher::new();
    module.hash(&mut hasher);
    OPTIMISE.hash(&mut hasher);
    fs::read(binaryen).context("reading binaryen's version")?.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}
