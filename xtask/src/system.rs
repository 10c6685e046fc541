//! Programs of the operating system: reports all missing ones together, or installs them if run as root.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// A requirement from the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Compilers, for the C libraries in some crates and for libFuzzer, which is C++.
    Compilers,
    /// CMake, for the Opus decoder.
    Cmake,
    /// The header files of OpenSSL, for librdkafka.
    OpenSsl,
    /// Python with pip, to download packages.
    Pip,
    /// Python's virtual environments, for the model generator.
    Venv,
    /// The ffmpeg program, with which the tests compare our decoding.
    Ffmpeg,
    /// The LAME encoder, whose MP3 files the tests decode.
    Lame,
    /// Java, for the tests' Kafka brokers.
    Java,
    /// curl, used in commands of a document.
    Curl,
    /// Maven, which fetches Kafka.
    Maven,
    /// Go, which builds the tests' S3 server and Kubernetes.
    Go,
    /// Node.js with npm, for tests in a browser.
    Node,
    /// The browser of these tests.
    Chromium,
    /// Prometheus with promtool, for the tests of alerts and dashboard.
    Prometheus,
    /// The library that runc filters system calls with.
    Seccomp,
    /// Network plugins and programs of the tests' node.
    PodNetwork,
    /// A statically linked shell, for an image of the tests' node.
    Busybox,
    /// Tools that build images and their base.
    Images,
}

/// Requirements for building the worker and installing its dependencies.
pub(crate) const FOR_BUILDING: &[Need] = &[Need::Compilers, Need::Cmake, Need::OpenSsl, Need::Pip];

/// Requirements of all checks.
pub(crate) const FOR_CHECKING: &[Need] =
    &[Need::Compilers, Need::Cmake, Need::OpenSsl, Need::Pip, Need::Venv];

/// Requirements of all tests.
pub(crate) const FOR_TESTING: &[Need] = &[
    Need::Compilers,
    Need::Cmake,
    Need::OpenSsl,
    Need::Pip,
    Need::Venv,
    Need::Ffmpeg,
    Need::Lame,
    Need::Java,
    Need::Curl,
    Need::Maven,
    Need::Go,
    Need::Node,
    Need::Chromium,
    Need::Prometheus,
];

/// Requirements of tests on our own node.
pub(crate) const FOR_NODES: &[Need] = &[Need::Seccomp, Need::PodNetwork, Need::Busybox];

impl Need {
    /// Its name in a message.
    fn name(self) -> &'static str {
        match self {
            Self::Compilers => "a C and C++ compiler with make",
            Self::Cmake => "cmake",
            Self::OpenSsl => "OpenSSL's header files with pkg-config",
            Self::Pip => "python3 with pip",
            Self::Venv => "python3 (3.11 or newer) with venv",
            Self::Ffmpeg => "ffmpeg",
            Self::Lame => "lame",
            Self::Java => "Java 17 or newer",
            Self::Curl => "curl 7.75 or newer",
            Self::Maven => "Maven",
            Self::Go => "Go 1.26 or newer",
            Self::Node => "Node.js 18 or newer with npm",
            Self::Chromium => "Chromium",
            Self::Prometheus => "Prometheus 2.42 or newer with promtool",
            Self::Seccomp => "libseccomp's header files with pkg-config",
            Self::PodNetwork => "CNI's plugins in /usr/lib/cni, nftables and iproute2",
            Self::Busybox => "statically linked busybox",
            Self::Images => "buildah and debootstrap",
        }
    }

    /// The Debian packages that contain it.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Compilers => &["build-essential"],
            Self::Cmake => &["cmake"],
            Self::OpenSsl => &["libssl-dev", "pkg-config"],
            Self::Pip => &["python3", "python3-pip"],
            Self::Venv => &["python3", "python3-venv"],
            Self::Ffmpeg => &["ffmpeg"],
            Self::Lame => &["lame"],
            Self::Java => &["default-jre-headless"],
            Self::Curl => &["curl"],
            Self::Maven => &["maven"],
            // Debian 12's version is too old, which shows only after its installation; then use Go's own
            // archive.
            Self::Go => &["golang-go"],
            Self::Node => &["nodejs", "npm"],
            Self::Chromium => &["chromium"],
            Self::Prometheus => &["prometheus"],
            Self::Seccomp => &["libseccomp-dev", "pkg-config"],
            Self::PodNetwork => &["containernetworking-plugins", "iproute2", "nftables"],
            Self::Busybox => &["busybox-static"],
            Self::Images => &["buildah", "debootstrap", "debian-archive-keyring"],
        }
    }

    /// Commands that all succeed if it is installed.
    fn probes(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Compilers => &[
                &["cc", "--version"],
                &["c++", "--version"],
                &["make", "--version"],
            ],
            Self::Cmake => &[&["cmake", "--version"]],
            Self::OpenSsl => &[&["pkg-config", "--exists", "openssl"]],
            Self::Pip => &[&["python3", "-m", "pip", "--version"]],
            // Debian splits the venv module: without ensurepip it exists but cannot create environments.
            Self::Venv => &[&[
                "python3",
                "-c",
                "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))",
            ]],
            Self::Ffmpeg => &[&["ffmpeg", "-version"]],
            Self::Lame => &[&["lame", "--version"]],
            Self::Java => &[&["java", "--version"]],
            Self::Curl => &[&["curl", "--version"]],
            Self::Maven => &[&["mvn", "--version"]],
            Self::Go => &[&["go", "version"]],
            Self::Node => &[&["node", "--version"], &["npm", "--version"]],
            Self::Chromium => &[&["chromium", "--version"]],
            Self::Prometheus => &[&["promtool", "--version"], &["prometheus", "--version"]],
            Self::Seccomp => &[&["pkg-config", "--exists", "libseccomp"]],
            Self::PodNetwork => &[
                &["test", "-x", "/usr/lib/cni/bridge"],
                &["nft", "--version"],
                &["ip", "-Version"],
            ],
            // For a statically linked program, ldd fails.
            Self::Busybox => &[&["sh", "-c", "busybox true && ! ldd \"$(command -v busybox)\""]],
            Self::Images => &[&["buildah", "--version"], &["debootstrap", "--version"]],
        }
    }

    /// The lowest version that its first probe must print, if the probe does not check it.
    fn minimum(self) -> Option<(u32, u32)> {
        match self {
            Self::Java => Some((17, 0)),
            // The first version that signs requests for S3.
            Self::Curl => Some((7, 75)),
            Self::Go => Some((1, 26)),
            // The lowest that playwright-core runs on.
            Self::Node => Some((18, 0)),
            Self::Prometheus => Some((2, 42)),
            _ => None,
        }
    }

    fn is_met(self) -> bool {
        self.probes()
            .iter()
            .all(|probe| process::succeeds(Command::new(probe[0]).args(&probe[1..])))
            && self
                .minimum()
                .is_none_or(|minimum| self.version() >= Some(minimum))
    }

    fn version(self) -> Option<(u32, u32)> {
        let probe = self.probes().first()?;
        let printed = process::observe(Command::new(probe[0]).args(&probe[1..])).ok()?;
        first_version(&String::from_utf8_lossy(&printed.stdout))
    }
}

/// The first version number in a text: major and minor.
fn first_version(text: &str) -> Option<(u32, u32)> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let mut numbers = text[start..].split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next().and_then(|number| number.parse().ok());
    Some((major, minor.unwrap_or(0)))
}

/// Ensures that all `needs` are met: installs missing ones as root, otherwise lists them in an error.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing = unmet(needs);
    if missing.is_empty() {
        return Ok(());
    }
    println!("missing on this machine: {}", names(&missing));
    if missing.contains(&Need::Prometheus) {
        println!(
            "where systemd runs, Debian's package of Prometheus starts a server on port 9090 of all addresses, \
             which the tests do not use; to stop it: sudo systemctl disable --now prometheus"
        );
    }
    if !may_install() {
        bail!("{} missing; fix: {}", names(&missing), fix(&missing));
    }
    let packages = packages(&missing);
    println!("installing {} with apt-get", packages.join(" "));
    process::run(&mut apt_get("update"))?;
    process::run(
        apt_get("install")
            .args(["-y", "--no-install-recommends"])
            .args(packages),
    )?;
    let still_missing = unmet(&missing);
    if !still_missing.is_empty() {
        bail!(
            "{} still missing after apt-get install: this system's version is too old; \
             fix: install it from its publisher",
            names(&still_missing)
        );
    }
    Ok(())
}

fn unmet(needs: &[Need]) -> Vec<Need> {
    needs.iter().copied().filter(|need| !need.is_met()).collect()
}

pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Whether we are root on a Debian-based system.
fn may_install() -> bool {
    is_root() && process::succeeds(Command::new("apt-get").arg("--version"))
}

fn apt_get(action: &str) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", action]);
    command
}

fn names(needs: &[Need]) -> String {
    needs
        .iter()
        .map(|need| need.name())
        .collect::<Vec<_>>()
        .join(", ")
}

fn packages(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = needs.iter().flat_map(|need| need.packages()).copied().collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn fix(needs: &[Need]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends {}",
        packages(needs).join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_output_of_programs() {
        assert_eq!(first_version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(
            first_version("openjdk 17.0.15 2025-04-15\nOpenJDK"),
            Some((17, 0))
        );
        assert_eq!(first_version("openjdk 21 2023-09-19"), Some((21, 2023)));
        assert_eq!(first_version("none"), None);
    }

    #[test]
    fn one_line_installs_all_that_is_missing() {
        assert_eq!(
            fix(&[Need::Venv, Need::Ffmpeg, Need::Pip]),
            "sudo apt-get update && sudo apt-get install -y --no-install-recommends \
             ffmpeg python3 python3-pip python3-venv"
        );
    }
}
