//! Installing what the machine lacks: Debian packages and npm dependencies.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{announce, find, program, run};
use crate::workspace::{self, NpmProject};

/// A program that comes with the operating system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SystemPackage {
    Chromium,
    Redis,
    Postgres,
    HaProxy,
    /// SQLite's command line.
    Sqlite,
    /// What judges units, also where systemd does not run.
    Systemd,
    /// Python with what makes environments of its own.
    Python,
    /// Debian's newer Rust with the sources of the standard library.
    RustForWeb,
}

impl SystemPackage {
    fn debian_names(self) -> &'static [&'static str] {
        match self {
            Self::Chromium => &["chromium"],
            Self::Redis => &["redis-server"],
            Self::Postgres => &["postgresql"],
            Self::HaProxy => &["haproxy"],
            Self::Sqlite => &["sqlite3"],
            Self::Systemd => &["systemd"],
            Self::Python => &["python3", "python3-venv"],
            Self::RustForWeb => &["rustc-web", "cargo-web", "rust-web-src"],
        }
    }

    pub fn is_installed(self) -> bool {
        match self {
            Self::Chromium => std::env::var_os("CHROMIUM").is_some() || find("chromium").is_some(),
            Self::Redis => find("redis-server").is_some(),
            Self::Postgres => find("initdb").is_some() || debian_postgres(),
            // Not everybody's `PATH` has Debian's folder for it.
            Self::HaProxy => find("haproxy").is_some() || Path::new("/usr/sbin/haproxy").is_file(),
            Self::Sqlite => find("sqlite3").is_some(),
            Self::Systemd => find("systemd-analyze").is_some(),
            // Debian has the module without what it needs.
            Self::Python => {
                let asked = program("python3").args(["-c", "import venv, ensurepip"]).output();
                asked.is_ok_and(|answer| answer.status.success())
            }
            // Two packages own these names; only this one has the sources beside it.
            Self::RustForWeb => {
                Path::new("/usr/bin/rustc").is_file()
                    && Path::new("/usr/bin/cargo").is_file()
                    && Path::new("/usr/share/doc/rust-web-src").is_dir()
            }
        }
    }
}

/// Debian keeps each major version in a folder of its own, outside `PATH`.
fn debian_postgres() -> bool {
    fs::read_dir("/usr/lib/postgresql")
        .is_ok_and(|versions| versions.flatten().any(|version| version.path().join("bin/initdb").is_file()))
}

/// Installs the packages that are missing; says which, and asks for nothing.
pub fn system(packages: &[SystemPackage]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|package| !package.is_installed())
        .flat_map(|package| package.debian_names())
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if find("apt-get").is_none() {
        bail!("this machine lacks {names}, and has no apt-get to install them: install them by hand");
    }
    announce(&format!("installing {names}"));
    let refused = || format!("could not install {names}: run `apt-get install {names}` as root");
    run(apt_get()?.arg("update").arg("-qq")).with_context(refused)?;
    run(apt_get()?.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing)).with_context(refused)
}

fn apt_get() -> Result<Command> {
    let is_root = nix::unistd::geteuid().is_root();
    let mut command = if is_root {
        program("env")
    } else if find("sudo").is_some() {
        let mut sudo = program("sudo");
        // Never wait for a password nobody will type.
        sudo.args(["-n", "env"]);
        sudo
    } else {
        bail!("installing needs root or sudo");
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    Ok(command)
}

/// Installs an npm project's dependencies exactly as locked, unless they are there already.
pub fn npm(project: NpmProject) -> Result<()> {
    let folder = project.path();
    if find("npm").is_none() {
        bail!("npm is missing: install Node.js 20.19 or later");
    }
    let stamp = folder.join("node_modules/.installed-from");
    let wanted = lock_digest(&folder)?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    announce(&format!("npm ci in {}", project.folder()));
    let mut npm = program("npm");
    // The tests use the system's Chromium; install scripts are not needed by any dependency.
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
        .current_dir(&folder);
    run(&mut npm)?;
    fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))
}

/// A program from PyPI, with everything it needs in the versions that `requirements` names, in an environment of its own.
pub fn python_program(name: &str, requirements: &str) -> Result<PathBuf> {
    let requirements = workspace::path(requirements);
    let wanted = fs::read(&requirements).with_context(|| format!("reading {}", requirements.display()))?;
    let folder = workspace::path("target/tools").join(name);
    let installed = folder.join("bin").join(name);
    let stamp = folder.join("installed-from");
    if installed.is_file() && fs::read(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(installed);
    }
    announce(&format!("installing {name} from PyPI into {}", folder.display()));
    run(program("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = program(folder.join("bin/python"));
    // All of them are named, so nothing is chosen by the time at which this runs.
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"]);
    run(pip.arg(&requirements)).with_context(|| format!("could not install {name}"))?;
    fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))?;
    Ok(installed)
}

fn lock_digest(folder: &Path) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for name in ["package.json", "package-lock.json"] {
        let file = folder.join(name);
        fs::read(&file).with_context(|| format!("reading {}", file.display()))?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}
