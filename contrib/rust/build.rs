//! Links libnumpack where pkg-config finds it (`make install`, PKG_CONFIG_PATH).

fn main() {
    let version = env!("CARGO_PKG_VERSION");
    if let Err(e) = pkg_config::Config::new().atleast_version(version).probe("libnumpack") {
        eprintln!("libnumpack {version} or later is needed: {e}");
        std::process::exit(1);
    }
}
